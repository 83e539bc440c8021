"""Compare an exported graph with torch, and an approximate one with an exact one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vat_explain.assemble import FloatArray
from vat_explain.errors import ModelError
from vat_explain.explainer import VATExplainer
from vat_explain.text import Window
from vat_export.runtime import OnnxExplainer
from vat_export.samples import Batch, random_batches, text_batches
from vat_export.spec import OUTPUTS

LIMIT = 1e-4
"""Largest difference to torch, in any output, of an export in float32."""

_TOP = 5


def verify(explainer: VATExplainer, runtime: OnnxExplainer, samples: Sequence[Window]) -> dict[str, Any]:
    """Check that ONNX Runtime computes what torch computes.

    Parameters
    ----------
    explainer : VATExplainer
        The bundle, in float32.
    runtime : OnnxExplainer
        Its export, in float32.
    samples : sequence of Window
        Real texts.

    Returns
    -------
    dict
        Largest differences by output, what was compared, and how far an explanation moves with the texts in its batch.

    Raises
    ------
    ModelError
        If an output differs by more than `LIMIT`, or a special token or padding has a score other than 0.
    """
    worst = dict.fromkeys(OUTPUTS, 0.0)
    random = list(random_batches(runtime.spec))
    for batch in [*random, *text_batches(runtime.spec, samples)]:
        outputs = _forward(runtime, batch)
        for name, ours, theirs in zip(OUTPUTS, outputs, _torch(explainer, batch), strict=True):
            difference = float(np.abs(ours - theirs).max())
            worst[name] = difference if not difference <= worst[name] else worst[name]
            if not difference <= LIMIT:
                raise ModelError(
                    f"ONNX Runtime and torch differ by {difference:.2g} in {name} for {ours.shape[0]} rows of "
                    f"{batch['input_ids'].shape[1]} tokens, more than {LIMIT}; nothing was written. Explain with the "
                    "bundle itself, and report this with the names of model and versions"
                )
        unscored = ~batch["scorable"]
        if outputs[1][unscored].any() or outputs[2][unscored].any():
            raise ModelError("the graph scores special tokens or padding; nothing was written. Report this")
    return {
        "checked": True,
        "limit": LIMIT,
        "largest_difference": worst,
        "shapes": [list(batch["input_ids"].shape) for batch in random],
        "texts": len(samples),
        "batch_mates": batch_mates(runtime, samples),
    }


def compare_precisions(exact: OnnxExplainer, approximate: OnnxExplainer, samples: Sequence[Window]) -> dict[str, Any]:
    """Measure how close the predictions and explanations of an approximate graph are to those of an exact one.

    Returns
    -------
    dict
        Share of equal labels; Spearman correlation of importances (mean and 5th percentile) and shared tokens among the
        five most important, over the texts with equal labels, since others explain another prediction; and how far an
        explanation moves with the texts in its batch.
    """
    same, correlations, overlaps = [], [], []
    for batch in text_batches(exact.spec, samples):
        one, other = _forward(exact, batch), _forward(approximate, batch)
        alike = _same_labels(exact, one[0], other[0])
        same += list(alike)
        for row in np.flatnonzero(alike):
            scored = batch["scorable"][row]
            left, right = one[1][row][scored], other[1][row][scored]
            correlations.append(spearman(left, right))
            overlaps.append(_overlap(left, right))
    return {
        "texts": len(samples),
        "label_agreement": float(np.mean(same)),
        "spearman_mean": float(np.mean(correlations or [0.0])),
        "spearman_p5": float(np.percentile(correlations or [0.0], 5)),
        "top_5_overlap": float(np.mean(overlaps or [0.0])),
        "batch_mates": batch_mates(approximate, samples),
    }


def batch_mates(runtime: OnnxExplainer, samples: Sequence[Window]) -> dict[str, float]:
    """Compare the explanation of each text alone with that of the same text among others.

    Returns
    -------
    dict
        Largest difference of an importance; median over texts of the largest difference relative to its token; lowest
        Spearman correlation.
    """
    differences, relative, correlations = [], [], []
    for batch in text_batches(runtime.spec, samples):
        together = _forward(runtime, batch)[1]
        for row, scored in enumerate(batch["scorable"]):
            length = int(batch["attention_mask"][row].sum())
            alone = _forward(runtime, {name: array[row : row + 1, :length] for name, array in batch.items()})[1][0]
            left, right = alone[scored[:length]], together[row][scored]
            difference = np.abs(left - right)
            differences.append(float(difference.max()))
            relative.append(float((difference / np.maximum(np.abs(left), 1e-12)).max()))
            correlations.append(spearman(left, right))
    return {
        "largest_difference": max(differences),
        "median_relative_difference": float(np.median(relative)),
        "lowest_spearman": min(correlations),
    }


def spearman(one: FloatArray, other: FloatArray) -> float:
    """Rank correlation of two rows of scores, shape [tokens]; equal scores share the mean of their ranks."""
    left, right = _ranks(one), _ranks(other)
    left, right = left - left.mean(), right - right.mean()
    norm = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / norm if norm else 1.0


def _ranks(scores: FloatArray) -> FloatArray:
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _overlap(one: FloatArray, other: FloatArray) -> float:
    k = min(_TOP, len(one))
    return len({*np.argsort(-one)[:k].tolist()} & {*np.argsort(-other)[:k].tolist()}) / k


def _same_labels(runtime: OnnxExplainer, one: FloatArray, other: FloatArray) -> NDArray[np.bool_]:
    """Tell the rows of logits that predict the same label, or the same set of labels."""
    multi = runtime.spec.task == "multi_label"
    same: NDArray[np.bool_] = ((one >= 0) == (other >= 0)).all(-1) if multi else one.argmax(-1) == other.argmax(-1)
    return same


def _forward(runtime: OnnxExplainer, batch: Batch) -> tuple[FloatArray, FloatArray, FloatArray]:
    return runtime.forward(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])


@torch.no_grad()
def _torch(explainer: VATExplainer, batch: Batch) -> tuple[FloatArray, FloatArray, FloatArray]:
    names = ("input_ids", "attention_mask", "token_type_ids", "scorable")
    output = explainer.model(*(torch.from_numpy(batch[name]) for name in names))
    return output.logits.numpy(), output.importance.numpy(), output.class_importance.numpy()
