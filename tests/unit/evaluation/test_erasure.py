from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.unit.evaluation import linear
from tests.unit.evaluation.linear import sigmoid
from vat_explain.errors import InputError
from vat_explain.evaluation import erasure
from vat_explain.evaluation.perturb import probabilities_under
from vat_explain.models import Classifier, text_encoder
from vat_explain.text import SpecialTokens

WEIGHTS = {"good": 2.0, "bad": -3.0, "great": 4.0, "film": 0.5, "the": -0.25, "never": -1.0}
TEXT = "the film was great and the plot was good but never bad"


def order_of(encoded, scores):
    n = len(encoded.tokens)
    return erasure.ranking(scores, encoded.scorable, np.arange(n))


def probability_of(model, ids):
    """Call the HuggingFace model itself on one row, without batching or padding."""
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        if model.task == "multi_label":
            return torch.sigmoid(logits.logits)[0].double().numpy()
        return torch.softmax(logits.logits, -1)[0].double().numpy()


def reference(model, encoded, order, operator):
    """The ERASER definitions written out row by row for texts of one window."""
    (window,) = encoded.windows
    ids = window.ids.tolist()
    place = {int(p): i for i, p in enumerate(window.position) if p >= 0}

    def predict(kept):
        row = []
        for i, token in enumerate(ids):
            position = int(window.position[i])
            if position < 0 or position in kept:
                row.append(token)
            elif operator == "mask":
                row.append(model.special.mask)
        return probability_of(model, row)

    tokens = [int(t) for t in order]
    assert set(tokens) <= set(place)
    full = predict(set(tokens))
    y = int(full.argmax())
    n = len(tokens)
    comprehensiveness, sufficiency = [], []
    for share in (0.01, 0.05, 0.1, 0.2, 0.5):
        k = max(1, int(n * share + 0.5))
        comprehensiveness.append(full[y] - predict(set(tokens[k:]))[y])
        sufficiency.append(full[y] - predict(set(tokens[:k]))[y])
    fifth = predict(set(tokens[max(1, int(n * 0.2 + 0.5)) :]))[y]
    ten = predict(set(tokens[:10]))
    deletion = [predict(set(tokens[int(n * s / 10 + 0.5) :]))[y] for s in range(11)]
    insertion = [predict(set(tokens[: int(n * s / 10 + 0.5)]))[y] for s in range(11)]
    stays = ((ten >= 0.5) == (full >= 0.5)).all() if model.task == "multi_label" else ten.argmax() == y
    return {
        "comprehensiveness": sum(comprehensiveness) / 5,
        "sufficiency": sum(sufficiency) / 5,
        "log_odds": np.log(fifth) - np.log(full[y]),
        "post_hoc_accuracy": float(stays),
        "deletion_auc": sum((a + b) / 2 for a, b in itertools.pairwise(deletion)) / 10,
        "insertion_auc": sum((a + b) / 2 for a, b in itertools.pairwise(insertion)) / 10,
    }, [full[y] - predict(set(tokens) - {t})[y] for t in sorted(tokens)]


def metrics(model, texts, orders, operator, **keywords):
    whole = [(i, np.ones(len(t.tokens), dtype=bool)) for i, t in enumerate(texts)]
    predictions = probabilities_under(model, texts, whole, operator)
    prefixes = erasure.prefix_probabilities(
        model, texts, list(enumerate(orders)), operator, erasure.erasure_sizes, **keywords
    )
    return [
        erasure.erasure_metrics(p, prediction, model.task)[0]
        for p, prediction in zip(prefixes, predictions, strict=True)
    ], predictions


def test_prefix_sizes():
    assert erasure.prefix_sizes(20).tolist() == [1, 1, 2, 4, 10]
    assert erasure.prefix_sizes(1).tolist() == [1, 1, 1, 1, 1]
    assert erasure.prefix_sizes(5).tolist() == [1, 1, 1, 1, 3]
    assert erasure.prefix_sizes(200).tolist() == [2, 10, 20, 40, 100]


def test_ranking_leaves_out_special_tokens_and_breaks_ties_as_told():
    scorable = np.array([True, True, False, True, True])
    ties = np.array([4, 1, 0, 3, 2])
    assert erasure.ranking([0.0, 0.0, 9.0, 1.0, 0.0], scorable, ties).tolist() == [3, 1, 4, 0]
    assert erasure.ranking([-5.0, 0.0, 9.0, -0.1, 2.0], scorable, ties).tolist() == [4, 1, 3, 0]


@pytest.mark.parametrize("scores", [[1.0, np.nan], [1.0, np.inf], [1.0], [[1.0, 2.0]]])
def test_ranking_refuses_scores_that_cannot_be_ranked(scores):
    with pytest.raises(InputError):
        erasure.ranking(scores, np.array([True, True]), np.arange(2))


@pytest.mark.parametrize("operator", ["mask", "delete"])
def test_hand_computed(operator):
    # 4 tokens, weights 2, -3, 4, 0: the sum is 3; bins of 4 tokens are 1, 1, 1, 1, 2 tokens.
    model = linear.classifier(WEIGHTS)
    encoded = linear.encoder(model).encode("good bad great dull")
    order = order_of(encoded, [2.0, -3.0, 4.0, 0.0])
    assert order.tolist() == [2, 0, 3, 1]
    (found,), _ = metrics(model, [encoded], [order], operator)
    full = sigmoid(3)
    assert found["comprehensiveness"] == pytest.approx(full - (4 * sigmoid(-1) + sigmoid(-3)) / 5, abs=1e-6)
    assert found["sufficiency"] == pytest.approx(full - (4 * sigmoid(4) + sigmoid(6)) / 5, abs=1e-6)
    assert found["log_odds"] == pytest.approx(np.log(sigmoid(-1)) - np.log(full), abs=1e-6)
    assert found["post_hoc_accuracy"] == 1
    # Tokens deleted at 0, 10, ..., 100%: 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4.
    gone = [sigmoid(x) for x in (3, 3, -1, -1, -3, -3, -3, -3, -3, 0, 0)]
    assert found["deletion_auc"] == pytest.approx((sum(gone) - (gone[0] + gone[-1]) / 2) / 10, abs=1e-6)


def test_post_hoc_accuracy_looks_at_ten_tokens():
    # Eleven neutral words outweigh nothing: "bad" ranked last is what decides, so ten others do not suffice.
    model = linear.classifier({"bad": -1.0})
    encoded = linear.encoder(model).encode("bad " + "hotel " * 10)
    scores = [0.0] + [1.0] * 10
    (found,), _ = metrics(model, [encoded], [order_of(encoded, scores)], "mask")
    assert found["post_hoc_accuracy"] == 1  # at 0.5 each the first class wins the tie, as for the whole text
    model = linear.classifier({"good": 1.0})
    encoded = linear.encoder(model).encode("good " + "hotel " * 10)
    (found,), _ = metrics(model, [encoded], [order_of(encoded, scores)], "mask")
    assert found["post_hoc_accuracy"] == 0
    (found,), _ = metrics(model, [encoded], [order_of(encoded, [2.0, *scores[1:]])], "mask")
    assert found["post_hoc_accuracy"] == 1


@pytest.mark.parametrize("operator", ["mask", "delete"])
def test_oracle_random_and_constant_on_a_linear_model(operator):
    model = linear.classifier(WEIGHTS)
    encoded = linear.encoder(model).encode(TEXT)
    weights = np.array([WEIGHTS.get(token, 0.0) for token in encoded.tokens])
    n = len(weights)
    total = weights.sum()
    assert total > 0
    sizes = erasure.prefix_sizes(n)
    orders = [order_of(encoded, weights), order_of(encoded, np.zeros(n)), order_of(encoded, -weights)]
    found, _ = metrics(model, [encoded] * 3, orders, operator)
    for scored, order in zip(found, orders, strict=True):
        sums = np.concatenate([[0], np.cumsum(weights[order])])
        removed = [sigmoid(total - sums[k]) for k in sizes]
        kept = [sigmoid(sums[k]) for k in sizes]
        assert scored["comprehensiveness"] == pytest.approx(sigmoid(total) - np.mean(removed), abs=1e-6)
        assert scored["sufficiency"] == pytest.approx(sigmoid(total) - np.mean(kept), abs=1e-6)
    oracle, constant, worst = (scored["comprehensiveness"] for scored in found)
    assert oracle > constant > worst
    # No order does better than sorting by weight, for a sum goes through a monotone function.
    draw = np.random.default_rng(0)
    others, _ = metrics(model, [encoded] * 200, [draw.permutation(n) for _ in range(200)], operator)
    assert max(other["comprehensiveness"] for other in others) <= oracle + 1e-9
    assert min(other["sufficiency"] for other in others) >= found[0]["sufficiency"] - 1e-9


words = st.lists(st.sampled_from(tiny.WORDS), min_size=1, max_size=14).map(" ".join)


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(words, min_size=1, max_size=4),
    seed=st.integers(0, 3),
    architecture=st.sampled_from(["bert", "distilbert", "roberta"]),
    multi_label=st.booleans(),
    operator=st.sampled_from(["mask", "delete"]),
    data=st.data(),
)
def test_agrees_with_the_definitions_written_out(texts, seed, architecture, multi_label, operator, data):
    model = tiny.classifier(architecture, 3, multi_label=multi_label, seed=seed)
    encoder = text_encoder(tiny.tokenizer(), model)
    encoded = [encoder.encode(text) for text in texts]
    draw = np.random.default_rng(data.draw(st.integers(0, 1000)))
    orders = [order_of(one, draw.integers(0, 4, len(one.tokens))) for one in encoded]
    found, predictions = metrics(model, encoded, orders, operator, max_tokens=data.draw(st.sampled_from([1, 64, 4096])))
    falls = erasure.leave_one_out(model, encoded, predictions, operator)
    for one, order, scored, fall in zip(encoded, orders, found, falls, strict=True):
        expected, expected_falls = reference(model, one, order, operator)
        assert scored == pytest.approx(expected, abs=2e-5)
        assert fall == pytest.approx(np.array(expected_falls), abs=2e-5)


@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=12).flatmap(
        lambda a: st.tuples(st.just(a), st.lists(st.integers(-3, 3), min_size=len(a), max_size=len(a)))
    )
)
def test_kendall_tau_counts_pairs(pair):
    a, b = pair
    pairs = list(itertools.combinations(range(len(a)), 2))
    agreement = sum(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in pairs)
    untied = [sum(x[i] != x[j] for i, j in pairs) for x in (a, b)]
    expected = agreement / np.sqrt(untied[0] * untied[1]) if all(untied) else 0.0
    assert erasure.kendall_tau(a, b) == pytest.approx(expected)


def test_kendall_tau_of_equal_opposite_and_constant_scores():
    assert erasure.kendall_tau([1, 2, 3], [10, 20, 30]) == 1
    assert erasure.kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert erasure.kendall_tau([1, 1, 1], [3, 2, 1]) == 0
    assert np.isnan(erasure.kendall_tau([1.0], [2.0]))


def test_leave_one_out_of_a_linear_model_ranks_by_weight():
    model = linear.classifier(WEIGHTS)
    encoded = linear.encoder(model).encode("good bad great film")
    weights = [2.0, -3.0, 4.0, 0.5]
    _, predictions = metrics(model, [encoded], [order_of(encoded, weights)], "mask")
    (falls,) = erasure.leave_one_out(model, [encoded], predictions, "mask")
    assert erasure.kendall_tau(falls, weights) == 1
    assert falls == pytest.approx([sigmoid(3.5) - sigmoid(3.5 - w) for w in weights], abs=1e-6)


@pytest.mark.parametrize("operator", ["mask", "delete"])
def test_long_texts_average_their_windows_and_lose_a_token_in_all_of_them(operator):
    model = tiny.classifier("bert", 2)
    encoder = text_encoder(tiny.tokenizer(), model, max_length=12)
    encoded = encoder.encode(
        "the film was great and the plot was good but never bad and the hotel was lovely with food"
    )
    assert len(encoded.windows) > 1
    keep = np.ones(len(encoded.tokens), dtype=bool)
    keep[[1, 7, 8, 9]] = False
    assert any((np.isin(w.position, [7, 8, 9])).sum() for w in encoded.windows[1:])
    (found,) = probabilities_under(model, [encoded], [(0, keep)], operator)
    by_window = []
    for window in encoded.windows:
        kept = (window.position < 0) | keep[window.position]
        if operator == "mask":
            row = [i if k else model.special.mask for i, k in zip(window.ids.tolist(), kept, strict=True)]
        else:
            row = window.ids[kept].tolist()
        by_window.append(probability_of(model, row))
    assert found == pytest.approx(np.mean(by_window, axis=0), abs=1e-5)


def test_all_tokens_deleted_leaves_the_special_ones():
    model = tiny.classifier("bert", 2)
    encoded = text_encoder(tiny.tokenizer(), model).encode("good film")
    (found,) = probabilities_under(model, [encoded], [(0, np.zeros(2, dtype=bool))], "delete")
    assert found == pytest.approx(probability_of(model, [2, 3]), abs=1e-5)


def test_special_tokens_spelled_out_in_the_text_are_never_removed():
    model = tiny.classifier("bert", 2)
    encoded = text_encoder(tiny.tokenizer(), model).encode("good [SEP] film")
    assert encoded.scorable.tolist() == [True, False, True]
    (found,) = probabilities_under(model, [encoded], [(0, np.zeros(3, dtype=bool))], "delete")
    assert found == pytest.approx(probability_of(model, [2, 3, 3]), abs=1e-5)


def test_models_without_a_mask_token_mask_with_their_placeholder():
    special = SpecialTokens.from_tokenizer(tiny.tokenizer())
    model = Classifier(tiny.model("bert"), SpecialTokens(None, special.pad, special.fixed)).eval()
    encoded = text_encoder(tiny.tokenizer(), model).encode("good bad film")
    (found,) = probabilities_under(model, [encoded], [(0, np.array([True, False, True]))], "mask")
    ids = torch.from_numpy(encoded.windows[0].ids).unsqueeze(0)
    with torch.no_grad():
        embeddings = model.embed(ids).clone()
        embeddings[0, 2] = model.mask_embedding()
        expected = torch.softmax(model(embeddings), -1)[0]
    assert found == pytest.approx(expected.double().numpy(), abs=1e-6)


def test_equal_requests_share_a_row():
    model = tiny.classifier("bert")
    encoded = [text_encoder(tiny.tokenizer(), model).encode("good bad film")] * 2
    rows = []
    handle = model.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    requests = [(number, keep) for number in (0, 1) for keep in (np.array([True, False, True]),) * 3]
    probabilities = probabilities_under(model, encoded, requests, "mask")
    handle.remove()
    assert sum(rows) == 1
    assert probabilities.shape == (6, 2)
    assert (probabilities == probabilities[0]).all()


def test_batches_stay_within_the_token_budget():
    model = tiny.classifier("bert")
    encoder = text_encoder(tiny.tokenizer(), model)
    encoded = [encoder.encode("good " * n) for n in range(1, 20)]
    cells = []
    handle = model.register_forward_hook(lambda module, inputs, output: cells.append(inputs[0].numel()))
    orders = [(i, np.arange(len(one.tokens))) for i, one in enumerate(encoded)]
    erasure.prefix_probabilities(model, encoded, orders, "delete", erasure.erasure_sizes, max_tokens=64)
    handle.remove()
    assert max(cells) <= 64
    assert len(cells) > 1


def test_pairs_keep_their_segments():
    model = tiny.classifier("bert")
    encoded = text_encoder(tiny.tokenizer(), model).encode("good film", "bad plot")
    keep = np.array([True, False, False, True])
    (found,) = probabilities_under(model, [encoded], [(0, keep)], "delete")
    ids = [int(i) for i in encoded.windows[0].ids]
    row, types = [ids[0], ids[1], ids[3], ids[5], ids[6]], [0, 0, 0, 1, 1]
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([row]), token_type_ids=torch.tensor([types])).logits
    assert found == pytest.approx(torch.softmax(logits, -1)[0].double().numpy(), abs=1e-6)


def test_no_texts_and_no_orders_are_no_special_case():
    model = tiny.classifier("bert")
    assert erasure.leave_one_out(model, [], np.zeros((0, 2)), "mask") == []
    assert erasure.prefix_probabilities(model, [], [], "mask") == []
    assert probabilities_under(model, [], [], "mask").shape == (0, 2)


def test_an_unknown_operator_is_refused():
    model = tiny.classifier("bert")
    with pytest.raises(InputError, match="'swap'"):
        probabilities_under(model, [], [], "swap")
