"""Batches of windows as tensors, and a classifier run on masked ones."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vat_explain.models import Classifier
from vat_explain.text import Window, collate

Batch = Mapping[str, Tensor]
"""``input_ids, attention_mask, token_type_ids``, ``scorable`` (bool), each [rows, tokens]; ``labels`` and ``rows``."""


@dataclass(frozen=True)
class TrainingSet:
    """Windows of texts with the label of their text.

    Attributes
    ----------
    windows : sequence of Window
    labels : Tensor
        Class numbers [windows], or 0/1 [windows, classes] for multi-label tasks.
    pad_id : int
    texts : Tensor of int64, shape [windows], optional
        Number of the text of each window; each is its own without them.
    """

    windows: Sequence[Window]
    labels: Tensor
    pad_id: int
    texts: Tensor | None = None

    def sample(self, size: int, seed: int) -> TrainingSet:
        """Return so many rows drawn at random, or all where there are no more."""
        if size >= len(self.windows):
            return self
        rows = sorted(random.Random(seed).sample(range(len(self.windows)), size))
        texts = None if self.texts is None else self.texts[rows]
        return TrainingSet([self.windows[row] for row in rows], self.labels[rows], self.pad_id, texts)

    def batch(self, rows: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Stack rows to tensors [rows, tokens]."""
        arrays = collate([self.windows[row] for row in rows], self.pad_id)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        tensors |= {"labels": self.labels[list(rows)], "rows": torch.tensor(rows)}
        return {name: tensor.to(device) for name, tensor in tensors.items()}


def leave_out(batch: Batch, highest: float, pad_id: int) -> dict[str, Tensor]:
    """Delete scored tokens at random, which makes new texts of known ones; one of each row always stays.

    Parameters
    ----------
    batch : Batch
    highest : float
        The rate is drawn uniformly between 0 and this; rows of similar length then stay so.
    pad_id : int

    Returns
    -------
    dict of str to Tensor
        The batch without these tokens, as short as its longest row is then.
    """
    scorable = batch["scorable"]
    count = scorable.sum(1, keepdim=True)
    rate = highest * torch.rand((), device=scorable.device)
    expected = rate * count
    deleted = torch.minimum((expected + torch.rand_like(expected)).floor(), count - 1)
    stay = ((random_rank(scorable) >= deleted) | ~scorable) & batch["attention_mask"].bool()
    order = stay.int().argsort(dim=1, descending=True, stable=True)[:, : int(stay.sum(1).max())]
    shorter = {name: batch[name].gather(1, order) for name in ("input_ids", "token_type_ids", "scorable")}
    there = stay.gather(1, order)
    shorter["input_ids"] = shorter["input_ids"].masked_fill(~there, pad_id)
    shorter["token_type_ids"] = shorter["token_type_ids"].masked_fill(~there, 0)
    shorter["scorable"] = shorter["scorable"] & there
    return {**batch, **shorter, "attention_mask": there.to(batch["attention_mask"].dtype)}


def random_rank(scorable: Tensor) -> Tensor:
    """Rank the scored tokens [batch, tokens] of each row from 0 in random order; others come after them."""
    return torch.rand(scorable.shape, device=scorable.device).masked_fill(~scorable, 2.0).argsort(1).argsort(1)


def run_masked(classifier: Classifier, embeddings: Tensor, keep: Tensor, batch: Batch) -> Tensor:
    """Return the logits [batch, classes] for embeddings of which `keep` [batch, tokens] tells what stays."""
    masked = classifier.mask_inputs(embeddings, keep)
    logits: Tensor = classifier(masked, batch["attention_mask"], batch["token_type_ids"])
    return logits.float()
