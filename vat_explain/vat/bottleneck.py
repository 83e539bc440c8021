"""What bottlenecks let through: tokens at the input embeddings, information in the last states."""

from __future__ import annotations

import torch
from torch import Tensor

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of the tokens that are kept or removed (ERASER, DeYoung et al., ACL 2020)."""


def top_tokens(scores: Tensor, scorable: Tensor, share: Tensor | float) -> Tensor:
    """Find the tokens of the highest scores; among equal ones the first.

    Parameters
    ----------
    scores : Tensor, shape [batch, tokens]
    scorable : Tensor of bool, shape [batch, tokens]
    share : Tensor of shape [batch, 1], or float
        How many of the scored tokens; at least one.

    Returns
    -------
    Tensor of bool, shape [batch, tokens]
    """
    order = scores.masked_fill(~scorable, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    count = (scorable.sum(1, keepdim=True) * share).ceil().clamp(min=1)
    return (order.argsort(1) < count) & scorable


def draw_top(scores: Tensor, scorable: Tensor, share: Tensor | float) -> Tensor:
    """Draw as many tokens as `top_tokens`, without replacement, by the softmax of their scores (Gumbel top-k)."""
    noise = -torch.empty_like(scores).exponential_().clamp(min=1e-30).log()
    return top_tokens(scores + noise, scorable, share)


def gaussian_information(representation: Tensor, keep: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return what passes when a representation is mixed with corpus noise, in nats (Schulz et al. 2020).

    KL(N(keep h + (1 - keep) mean, (1 - keep)^2 deviation^2) || N(mean, deviation^2)).

    Parameters
    ----------
    representation : Tensor, shape [batch, tokens, width]
    keep : Tensor, shape [batch, tokens]
        Below 1.
    mean, deviation : Tensor, shape [width]

    Returns
    -------
    Tensor, shape [batch, tokens, width]
    """
    keep = keep.unsqueeze(-1)
    standard = (representation - mean) / deviation
    return -(1 - keep).log() + ((1 - keep).square() + (keep * standard).square() - 1) / 2
