"""What bottlenecks let through, against definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from vat_explain.vat.bottleneck import draw_top, gaussian_information, top_tokens
from vat_explain.vat.compressor import complete, masked_softmax
from vat_explain.vat.objectives import random_keep, shapley_coalition


def random_rows(seed: int, rows: int = 4, tokens: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, tokens, generator=generator, dtype=torch.float64) * 5
    mask = torch.rand(rows, tokens, generator=generator) < 0.7
    mask[:, 0] = True
    return scores, mask


@given(st.integers(0, 999), st.floats(0.01, 1.0))
def test_the_highest_scores_are_kept_and_as_many_as_asked_for(seed, share):
    scores, mask = random_rows(seed)
    top = top_tokens(scores, mask, share)
    assert not (top & ~mask).any()
    assert (top.sum(1) == (mask.sum(1) * share).ceil().clamp(min=1)).all()
    lowest = scores.masked_fill(~top, torch.inf).amin(1)
    assert (lowest >= scores.masked_fill(top | ~mask, -torch.inf).amax(1)).all()
    assert torch.equal(top_tokens(torch.zeros_like(scores), mask, 1e-9), (mask.cumsum(1) == 1) & mask)


def test_sets_are_drawn_by_the_softmax_of_their_scores():
    torch.manual_seed(0)
    scores = torch.tensor([[1.0, 0.0, -1.0, 5.0]]).expand(30_000, -1)
    mask = torch.tensor([[True, True, True, False]]).expand(30_000, -1)
    one = draw_top(scores, mask, 0.01).float().mean(0)
    torch.testing.assert_close(one[:3], scores[0, :3].softmax(0), atol=0.01, rtol=0)
    two = draw_top(scores, mask, 0.5)
    assert (two.sum(1) == 2).all()
    assert not two[:, 3].any()


def test_information_is_the_divergence_of_torch_distributions():
    torch.manual_seed(0)
    keep, h = torch.rand(2, 3) * 0.9, torch.randn(2, 3, 4)
    mean, deviation = torch.randn(4), torch.rand(4) + 0.5
    k = keep.unsqueeze(-1)
    expected = kl_divergence(Normal(k * h + (1 - k) * mean, (1 - k) * deviation), Normal(mean, deviation))
    torch.testing.assert_close(gaussian_information(h, keep, mean, deviation), expected)


@settings(max_examples=30)
@given(st.integers(0, 999))
def test_shares_and_parts_add_up_and_vanish_off_the_text(seed):
    scores, mask = random_rows(seed)
    shares = masked_softmax(scores, mask)
    torch.testing.assert_close(shares.sum(1), torch.ones(4, dtype=torch.float64))
    assert (shares[~mask] == 0).all()
    assert (masked_softmax(scores, torch.zeros_like(mask)) == 0).all()
    parts = torch.stack([scores, -scores], -1) * mask.unsqueeze(-1)
    total = torch.randn(4, 2, dtype=torch.float64)
    completed = complete(parts, total, mask)
    torch.testing.assert_close(completed.sum(1), total)
    assert (completed[~mask] == 0).all()


def test_shapley_coalitions_have_the_sizes_of_the_kernel():
    torch.manual_seed(0)
    scorable = torch.tensor([[False, True, True, True, True, True, False]]).expand(30_000, -1)
    sizes = shapley_coalition(scorable).sum(1)
    kernel = torch.tensor([1 / (k * (5 - k)) for k in range(1, 5)])
    shares = torch.bincount(sizes, minlength=5)[1:5] / 30_000
    torch.testing.assert_close(shares, kernel / kernel.sum(), atol=0.01, rtol=0)
    assert not (shapley_coalition(scorable) & ~scorable).any()
    single = torch.tensor([[False, True, False]])
    assert shapley_coalition(single).shape == single.shape


def test_random_masks_keep_special_tokens_and_padding_as_they_are():
    torch.manual_seed(0)
    scorable = torch.tensor([[False, True, True, False]]).expand(2_000, -1)
    keep = random_keep(scorable)
    assert (keep[:, [0, 3]] == 1).all()
    assert keep[:, 1].mean().item() == pytest.approx(0.5, abs=0.05)
