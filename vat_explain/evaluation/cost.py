"""What explanations cost, in forward passes and in seconds, counted while they are made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BACKWARD_COST = 1
"""A backward pass counts as so many forward passes: attributors ask for gradients of the inputs alone, which take about
as many multiplications as the forward pass. Gradients of the weights would take as many again."""


@dataclass
class Cost:
    """Filled in when the block of `measured` ends.

    Attributes
    ----------
    tokens : int
        Tokens that went through an encoder, padding left out; those of a backward pass count `BACKWARD_COST` times.
    seconds : float
        Wall-clock time.
    """

    tokens: int = 0
    seconds: float = 0.0


@contextmanager
def measured(models: Sequence[nn.Module]) -> Iterator[Cost]:
    """Count what goes through the encoders inside some modules while a block runs.

    Parameters
    ----------
    models : sequence of nn.Module
        Modules with HuggingFace encoders in them; an encoder that several of them share is counted once.
    """
    cost = Cost()

    def count(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        tokens = _tokens(args, keywords)
        cost.tokens += tokens
        result = output if isinstance(output, Tensor) else output[0]
        if result.requires_grad:

            def count_backward(_: Tensor) -> None:
                cost.tokens += BACKWARD_COST * tokens

            result.register_hook(count_backward)

    encoders = {id(encoder): encoder for model in models for encoder in _encoders(model)}
    handles = [encoder.register_forward_hook(count, with_kwargs=True) for encoder in encoders.values()]
    _finish_device()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        _finish_device()
        cost.seconds = time.perf_counter() - start
        for handle in handles:
            handle.remove()


def _encoders(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost models without a head: for HuggingFace models those that are their own base model."""
    if getattr(module, "base_model", None) is module:
        yield module
    else:
        for child in module.children():
            yield from _encoders(child)


def _tokens(args: tuple[Any, ...], keywords: dict[str, Any]) -> int:
    mask = keywords.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return int(mask.sum())
    given = (*args, keywords.get("input_ids"), keywords.get("inputs_embeds"))
    inputs = next(value for value in given if isinstance(value, Tensor))
    return inputs.shape[0] * inputs.shape[1]


def _finish_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
