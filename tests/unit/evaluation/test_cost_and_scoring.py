from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import Attribution

from tests import tiny
from tests.unit.evaluation import linear
from vat_explain.attribution.standard import Method, standard_method
from vat_explain.errors import InputError
from vat_explain.evaluation.cost import measured
from vat_explain.evaluation.scoring import score_texts
from vat_explain.models import text_encoder


class Lookup(Attribution):
    """Scores a token by its id; counts the batches it was given."""

    targeted = False

    def __init__(self, classifier):
        super().__init__(classifier)
        self.shapes = []

    def attribute(self, inputs, target=None, additional_forward_args=None):
        self.shapes.append(tuple(inputs.shape))
        self.target = target
        return torch.where(self.forward_func.scorable(inputs, additional_forward_args[0]), inputs.double(), 0)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_forward_and_backward_passes_are_counted_in_tokens(architecture):
    model = tiny.classifier(architecture)
    ids = torch.tensor([[2, 10, 11, 3, 0], [2, 10, 11, 12, 3]])
    mask = (ids != 0).long()
    with measured([model]) as cost, torch.no_grad():
        model(ids, mask)
    assert cost.tokens == 9
    assert cost.seconds > 0
    with measured([model, model.model]) as cost:
        model(ids, mask).sum().backward()
    assert cost.tokens == 9 * 2
    with measured([model]) as cost, torch.no_grad():
        model(model.embed(ids))
    assert cost.tokens == 10


def test_hooks_are_removed_after_an_error():
    model = tiny.classifier()
    before = sum(len(module._forward_hooks) for module in model.modules())
    with pytest.raises(ZeroDivisionError), measured([model]):
        raise ZeroDivisionError
    assert sum(len(module._forward_hooks) for module in model.modules()) == before


@pytest.mark.parametrize(
    ("name", "forwards"),
    [("random", 0), ("attention", 1), ("leave-one-out", 5), ("grad-l2", 2), ("ig", 100)],
)
def test_known_methods_cost_what_they_should(name, forwards):
    model = tiny.classifier()
    encoder = text_encoder(tiny.tokenizer(), model)
    texts = [encoder.encode(text) for text in ("good film bad plot", "the hotel was slow")]
    scored = score_texts(standard_method(name, model), model, texts, [0, 1])
    assert scored.forwards == pytest.approx(forwards, rel=0.25, abs=0.01)
    assert scored.seconds > 0
    assert [len(s) for s in scored.scores] == [4, 4]


def test_scores_of_windows_are_merged_and_batches_bounded():
    model = linear.classifier({})
    encoder = text_encoder(tiny.tokenizer(), model, max_length=8)
    texts = [encoder.encode("the film was good and the plot was bad " * n) for n in (1, 3, 2)]
    assert all(len(text.windows) > 1 for text in texts)
    attribution = Lookup(model)
    scored = score_texts(Method("lookup", attribution, False), model, texts, [0, 0, 0], max_rows=2)
    assert max(rows for rows, _ in attribution.shapes) == 2
    assert attribution.target is None
    for text, scores in zip(texts, scored.scores, strict=True):
        assert scores.tolist() == [float(tiny.tokenizer().convert_tokens_to_ids(token)) for token in text.tokens]


def test_targeted_methods_are_given_the_class_of_each_text():
    model = linear.classifier({})
    texts = [linear.encoder(model).encode(text) for text in ("good film bad", "the hotel", "was")]
    attribution = Lookup(model)
    score_texts(Method("lookup", attribution, True), model, texts, [1, 0, 1])
    assert attribution.target.tolist() == [1, 0, 1]


def test_random_scores_of_each_text_are_drawn_anew():
    model = tiny.classifier()
    encoder = text_encoder(tiny.tokenizer(), model)
    texts = [encoder.encode(f"the film was {word}") for word in ("good", "bad", "slow", "dull")]
    scores = score_texts(standard_method("random", model), model, texts, [0] * 4).scores
    assert len({score.tobytes() for score in scores}) == 4
    assert len({score[0] for score in scores}) == 4


def test_random_scores_depend_on_the_seed_alone():
    model = tiny.classifier()
    texts = [text_encoder(tiny.tokenizer(), model).encode("good film bad plot")]
    random = standard_method("random", model)
    first, again, other = (score_texts(random, model, texts, [0], seed=seed).scores[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("bad", [lambda ids: ids[:, :2].double(), lambda ids: ids.double() * torch.nan])
def test_scores_of_the_wrong_shape_or_nan_are_refused(bad):
    model = tiny.classifier()
    texts = [text_encoder(tiny.tokenizer(), model).encode("good film bad plot")]
    attribution = Lookup(model)
    attribution.attribute = lambda ids, **_: bad(ids)
    with pytest.raises(InputError, match="'broken'"):
        score_texts(Method("broken", attribution, False), model, texts, [0])
