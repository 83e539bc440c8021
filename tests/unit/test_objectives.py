"""The class scores are trained towards Shapley values, and the gates towards sets that decide."""

from __future__ import annotations

from itertools import combinations
from math import ceil, factorial

import pytest
import torch
from torch import nn

from vat_explain.text import SpecialTokens
from vat_explain.vat.batches import leave_out
from vat_explain.vat.bottleneck import SHARES
from vat_explain.vat.compressor import CompressorOutput, complete
from vat_explain.vat.objectives import GATE_SCALE, FaithfulObjective, Weights, shapley_coalition

SCORABLE = torch.tensor([False, True, True, True, True, False])


class Interacting(nn.Module):
    """Stands in for a classifier: tokens count alone, and two of them more together."""

    task = "single_label"
    special = SpecialTokens(mask=None, pad=0, fixed=frozenset())

    def embed(self, ids):
        return torch.tensor([0.0, 1.0, 2.0, -1.5, 0.5, 0.0]).repeat(len(ids), 1)[..., None]

    def mask_inputs(self, embeddings, keep):
        return embeddings * keep[..., None]

    def probabilities(self, logits):
        return logits.softmax(-1)

    def forward(self, inputs, attention_mask, token_type_ids):
        x = inputs[..., 0]
        total = x.sum(1) + 2 * x[:, 1] * x[:, 4]
        return torch.stack([torch.zeros_like(total), total], 1)


class Table(nn.Module):
    """Stands in for a compressor: parts that are parameters."""

    def __init__(self, reference):
        super().__init__()
        self.parts = nn.Parameter(torch.zeros(6, 2))
        self.reference = reference

    def features(self, *_):
        return torch.zeros(())

    def score(self, features, pass_, p, scorable):
        parts = self.parts.masked_fill(~SCORABLE[:, None], 0).expand(len(p), -1, -1)
        return CompressorOutput(parts, parts, complete(parts, p - self.reference, scorable))


class Model(nn.Module):
    """A learner and a compressor, without the checks of VATModel."""

    def __init__(self):
        super().__init__()
        self.learner = Interacting()
        self.learner.run = lambda ids, *_: Pass(self.learner(self.learner.embed(ids), None, None))
        self.compressor = Table(self.learner(torch.zeros(1, 6, 1), None, None).softmax(-1)[0])


class Pass:
    def __init__(self, logits):
        self.logits, self.states = logits, [logits]


def shapley(learner):
    """Shapley values by enumeration, [tokens, classes]."""
    tokens = SCORABLE.nonzero()[:, 0].tolist()

    def value(kept):
        keep = torch.zeros(1, 6)
        keep[0, list(kept)] = 1
        masked = learner.mask_inputs(learner.embed(keep), keep)
        return learner(masked, None, None).softmax(-1)[0]

    found = torch.zeros(6, 2)
    for token in tokens:
        others = [other for other in tokens if other != token]
        for size in range(len(others) + 1):
            weight = factorial(size) * factorial(len(others) - size) / factorial(len(tokens))
            for kept in combinations(others, size):
                found[token] += weight * (value((*kept, token)) - value(kept))
    return found


@pytest.mark.parametrize("pairs", [1, 3])
def test_parts_that_minimise_the_loss_are_the_shapley_values(pairs):
    torch.manual_seed(0)
    model = Model()
    objective = FaithfulObjective(model, Weights(pairs=pairs, left_out=0.0))
    rows = 512
    batch = {
        "input_ids": torch.zeros(rows, 6, dtype=torch.long),
        "attention_mask": torch.ones(rows, 6, dtype=torch.long),
        "token_type_ids": torch.zeros(rows, 6, dtype=torch.long),
        "scorable": SCORABLE.repeat(rows, 1),
        "labels": torch.zeros(rows, dtype=torch.long),
        "rows": torch.arange(rows),
    }
    optimizer = torch.optim.SGD(model.compressor.parameters(), lr=0.05)
    averaged = torch.zeros(6, 2)
    for step in range(200):
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
        if step >= 100:
            p = model.learner(model.learner.embed(batch["input_ids"][:1]), None, None).softmax(-1)
            averaged += model.compressor.score(None, None, p, SCORABLE[None]).class_importance[0].detach() / 100
    wanted = shapley(model.learner)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(averaged, wanted, atol=0.005, rtol=0.02)


def test_the_gates_follow_the_gradient_of_the_mean_drop_of_evidence():
    torch.manual_seed(0)
    model = Model()
    rows = 40_000
    batch = {
        "scorable": SCORABLE.repeat(rows, 1),
        "attention_mask": torch.ones(rows, 6, dtype=torch.long),
        "token_type_ids": torch.zeros(rows, 6, dtype=torch.long),
    }
    embeddings = model.learner.embed(torch.zeros(rows, 6))
    p = model.learner(embeddings, None, None).softmax(-1)
    scores = torch.zeros(rows, 6, requires_grad=True)
    FaithfulObjective(model, Weights(draws=3))._gates(scores, p, embeddings, batch).backward()

    def reward(kept):
        keep = torch.stack([torch.zeros(6), SCORABLE.float()])  # the set alone, the others alone
        keep[0, list(kept)], keep[1, list(kept)] = 1, 0
        masked = model.learner.mask_inputs(model.learner.embed(keep), keep)
        alone, others = model.learner(masked, None, None).softmax(-1)[:, p[0].argmax()]
        return (alone - others).item()

    wanted = torch.zeros(6)
    for share in SHARES:  # all sets of a size are equally likely where all scores are equal
        sets = list(combinations(SCORABLE.nonzero()[:, 0].tolist(), ceil(4 * share)))
        rewards = torch.tensor([reward(kept) for kept in sets])
        gates = torch.stack([torch.zeros(6).scatter(0, torch.tensor(kept), 1.0) for kept in sets])
        wanted -= GATE_SCALE * (gates * (rewards - rewards.mean())[:, None]).mean(0) / len(SHARES)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(scores.grad.sum(0), wanted, atol=0.01, rtol=0)


def test_sizes_of_coalitions_follow_the_shapley_kernel():
    torch.manual_seed(0)
    scorable = torch.tensor([[True] * 5 + [False]]).repeat(20_000, 1)
    chosen = shapley_coalition(scorable)
    assert not chosen[:, 5].any()
    shares = chosen.sum(1).bincount(minlength=6) / len(scorable)
    kernel = torch.tensor([0, 1 / 4, 1 / 6, 1 / 6, 1 / 4, 0])
    torch.testing.assert_close(shares, kernel / kernel.sum(), atol=0.015, rtol=0)
    assert (chosen[:, :5].float().mean(0) - 0.5).abs().max() < 0.02


def test_left_out_tokens_make_shorter_rows_of_the_same_tokens_in_their_order():
    torch.manual_seed(0)
    lengths = torch.randint(3, 12, (400,))  # with a special token at each end
    place = torch.arange(12).expand(400, -1)
    there = place < lengths[:, None]
    batch = {
        "input_ids": torch.where(there, place + 100, 0),
        "attention_mask": there.long(),
        "token_type_ids": (there & (place > 5)).long(),
        "scorable": there & (place > 0) & (place < lengths[:, None] - 1),
        "labels": torch.arange(400),
        "rows": torch.arange(400),
    }
    out = leave_out(batch, 0.5, pad_id=7)
    for row in range(400):
        count = int(out["attention_mask"][row].sum())
        ids = out["input_ids"][row, :count] - 100
        assert (ids.diff() > 0).all()
        assert ids[[0, -1]].tolist() == [0, lengths[row] - 1]  # special tokens stay
        assert out["scorable"][row].sum() == count - 2 >= 1
        assert (out["input_ids"][row, count:] == 7).all()
        assert not out["attention_mask"][row, count:].any()
        torch.testing.assert_close(out["token_type_ids"][row, :count], (ids > 5).long())
    assert out["input_ids"].shape[1] == out["attention_mask"].sum(1).max()
    kept = [leave_out(batch, 0.5, 0)["scorable"].sum() / (lengths - 2).sum() for _ in range(200)]
    assert 0.73 < torch.stack(kept).mean() < 0.79  # a quarter goes on average, less where one token is all
    assert torch.stack(kept).std() > 0.1  # of all rows together, so that they stay of similar length
    torch.testing.assert_close(out["labels"], batch["labels"])
    whole = leave_out(batch, 0.0, pad_id=0)
    assert all(
        torch.equal(whole[name][:, : int(lengths.max())], batch[name][:, : int(lengths.max())])
        for name in ("input_ids", "scorable")
    )
