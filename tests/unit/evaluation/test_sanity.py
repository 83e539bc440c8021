from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from tests.unit.evaluation import linear
from tests.unit.evaluation.linear import sigmoid
from vat_explain.attribution.standard import Method, standard_method
from vat_explain.errors import InputError
from vat_explain.evaluation import erasure, sanity
from vat_explain.evaluation.scoring import score_texts
from vat_explain.evaluation.stability import stability
from vat_explain.models import Classifier, text_encoder
from vat_explain.text import SpecialTokens


@pytest.fixture(scope="module")
def bert():
    return tiny.classifier("bert", 2)


@pytest.fixture(scope="module")
def texts(bert):
    encoder = text_encoder(tiny.tokenizer(), bert)
    lines = ("the film was good", "the plot was bad and slow", "never a dull scene")
    return [encoder.encode(line) for line in lines]


def test_collapse_alarms_by_hand(bert):
    encoded = text_encoder(tiny.tokenizer(), bert).encode("good, film!")
    assert encoded.tokens == ("good", ",", "film", "!")
    found = sanity.collapse_alarms(encoded, np.array([4.0, -1.0, 2.0, 1.0]))
    assert found["score_spread"] == pytest.approx(np.std([1, -0.25, 0.5, 0.25]))
    assert found["punctuation_share"] == pytest.approx(2 / 8)
    assert found["position_correlation"] == pytest.approx(-2 / 6)
    assert sanity.collapse_alarms(encoded, np.zeros(4)) == dict.fromkeys(found, 0.0)
    assert sanity.collapse_alarms(encoded, np.arange(4.0))["position_correlation"] == 1


def test_a_lexicon_gives_each_type_its_mean_and_unknown_ones_the_overall_mean():
    model = linear.classifier({"good": 2.0, "bad": -3.0})
    encoder = linear.encoder(model)
    train = [encoder.encode("good bad good")]
    table = sanity.TokenLexicon(model, train, [np.array([1.0, -3.0, 3.0])])
    method = Method("table", table, False)
    (scores,) = score_texts(method, model, [encoder.encode("bad film good")], [1]).scores
    assert scores == pytest.approx([-3, 1 / 3, 2])


def test_a_lexicon_does_as_well_as_leave_one_out_where_words_count_alone():
    model = linear.classifier({"good": 2.0, "bad": -3.0, "great": 4.0})
    encoder = linear.encoder(model)
    train = [encoder.encode("good bad great film"), encoder.encode("great plot was good")]
    leave_one_out = standard_method("leave-one-out", model)
    lexicon = sanity.token_lexicon(leave_one_out, model, train, [1, 1])
    assert lexicon.name == "leave-one-out-lexicon"
    test = [encoder.encode("film was great not bad but good")]
    (known,), (looked_up,) = (score_texts(m, model, test, [1]).scores for m in (leave_one_out, lexicon))
    assert known.argmax() == looked_up.argmax()
    assert known.argmin() == looked_up.argmin()


def test_no_encoding_gap_between_a_model_and_itself(bert, texts):
    scores = [np.arange(len(t.tokens), dtype=float) for t in texts]
    assert sanity.encoding_gap(bert, bert, texts, scores) == pytest.approx(np.zeros(3), abs=1e-6)


def test_an_encoding_gap_shows_where_the_judge_does_not_understand_what_is_kept():
    # The learner takes the position of "the" for its label; the judge knows "good" alone.
    learner = linear.classifier({"the": 5.0})
    judge = linear.classifier({"good": 5.0})
    encoded = linear.encoder(learner).encode("the film was good")
    scores = np.array([1.0, 0.0, 0.0, -1.0])
    (gap,) = sanity.encoding_gap(learner, judge, [encoded], [scores])
    assert gap == pytest.approx(sigmoid(5) - 0.5, abs=1e-6)


def test_class_leak_by_hand():
    judge = linear.classifier({"good": 2.0, "bad": -3.0})
    encoded = linear.encoder(judge).encode("good bad")
    (leak,) = sanity.class_leak(judge, [encoded], [0], [np.array([0.0, 1.0])], seed=0)
    first_at_random = sanity.class_leak(judge, [encoded], [0], [np.array([1.0, 0.0])], seed=0)[0]
    alone = {"bad": 1 - sigmoid(-3), "good": 1 - sigmoid(2)}
    assert leak - first_at_random == pytest.approx(alone["bad"] - alone["good"], abs=1e-6)
    assert leak >= 0 >= first_at_random


def test_randomised_weights_are_shuffled_and_the_original_kept(bert):
    before = [p.clone() for p in bert.parameters()]
    other = sanity.randomised(bert, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(before, bert.parameters(), strict=True))
    for old, new in zip(before, other.parameters(), strict=True):
        assert torch.equal(old.flatten().sort().values, new.flatten().sort().values)
    assert not torch.equal(before[0], next(other.parameters()))


def test_the_randomisation_test_tells_methods_that_see_the_model_from_others(bert, texts):
    blind = Method("blind", sanity.TokenLexicon(bert, texts, [np.arange(len(t.tokens)) for t in texts]), False)
    indifferent = sanity.randomisation_test(lambda model: blind, bert, texts, [0, 1, 0])
    assert indifferent == pytest.approx(np.ones(3))
    dependent = sanity.randomisation_test(lambda model: standard_method("leave-one-out", model), bert, texts, [0, 1, 0])
    assert np.abs(dependent).mean() < 0.9


def test_infidelity_of_exact_scores_is_zero_and_of_wrong_ones_is_not():
    # With weights this small the probability is as good as linear, and leave-one-out exact.
    model = linear.classifier({"good": 0.02, "bad": -0.03, "great": 0.05, "film": 0.01})
    encoder = linear.encoder(model)
    texts = [encoder.encode("good bad great film the plot"), encoder.encode("great film not bad")]
    exact = standard_method("leave-one-out", model, probabilities=True)
    wrong = Method("wrong", sanity.TokenLexicon(model, texts, [np.arange(6.0), np.arange(4.0)]), False)
    small, _ = stability(exact, model, texts, [1, 1], samples=20)
    large, _ = stability(wrong, model, texts, [1, 1], samples=20)
    assert (small < 1e-8).all()
    assert (large > 10 * small).all()


def test_sensitivity_is_zero_for_scores_that_ignore_the_text(bert, texts):
    class Constant(sanity.TokenLexicon):
        def _score(self, batch, limit):
            return batch.scorable.float()

    constant = Method("constant", Constant(bert, [], []), False)
    _, steady = stability(constant, bert, texts, [0, 1, 0], samples=3)
    _, varying = stability(standard_method("leave-one-out", bert), bert, texts, [0, 1, 0], samples=3)
    assert (steady == 0).all()
    assert (varying > 0).all()


def test_stability_is_reproducible_and_means_windows(bert):
    encoder = text_encoder(tiny.tokenizer(), bert, max_length=8)
    texts = [encoder.encode("the film was good and the plot was bad and slow"), encoder.encode("good")]
    method = standard_method("grad-x-input", bert)
    first, second = (stability(method, bert, texts, [0, 1], samples=3, seed=4) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.isfinite(first).all()


def test_infidelity_needs_a_mask_token():
    special = SpecialTokens.from_tokenizer(tiny.tokenizer())
    model = Classifier(tiny.model("bert"), SpecialTokens(None, special.pad, special.fixed)).eval()
    texts = [text_encoder(tiny.tokenizer(), model).encode("good film")]
    infidelity, sensitivity = stability(standard_method("grad-x-input", model), model, texts, [0], samples=2)
    assert np.isnan(infidelity[0])
    assert np.isfinite(sensitivity[0])


def test_a_lexicon_refuses_embeddings(bert):
    with pytest.raises(InputError, match="ids"):
        sanity.TokenLexicon(bert, [], []).attribute(torch.zeros(1, 3, bert.embedding_size))


def test_a_lexicon_ranks_like_any_other_method(bert, texts):
    scores = [np.arange(len(t.tokens), dtype=float) for t in texts]
    method = Method("table", sanity.TokenLexicon(bert, texts, scores), False)
    found = score_texts(method, bert, texts, [0, 0, 0])
    assert found.forwards == 0
    order = erasure.ranking(found.scores[0], np.ones(4, dtype=bool), np.arange(4))
    assert sorted(order.tolist()) == [0, 1, 2, 3]
