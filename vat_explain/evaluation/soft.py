"""Soft erasure: parts of the token embeddings are dropped in proportion to the scores (Zhao and Aletras 2023).

The embeddings themselves are thinned out, so neither masking nor deletion of tokens is involved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from vat_explain.evaluation.perturb import MAX_TOKENS, FloatArray, Prepare, document_means, run_rows
from vat_explain.models import Classifier
from vat_explain.text import Encoded

SAMPLES = 4
"""Random thinnings over which the probabilities are averaged."""


def unit_range(scores: ArrayLike) -> FloatArray:
    """Scale scores, shape [tokens], to the range from 0 to 1; all 0.5 where they are equal."""
    values = np.asarray(scores, dtype=np.float64)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)


def soft_probabilities(
    classifier: Classifier,
    texts: Sequence[Encoded],
    keep: Sequence[FloatArray],
    seeds: Sequence[int],
    samples: int = SAMPLES,
    max_tokens: int = MAX_TOKENS,
) -> FloatArray:
    """Predict texts whose embeddings keep each element with its token's probability and have 0 in the others.

    Parameters
    ----------
    classifier : Classifier
    texts : sequence of Encoded
    keep : sequence of ndarray, each [tokens]
        For each token the probability that an element of its embedding stays; special tokens stay whole.
    seeds : sequence of int
        One for each text, so that its result does not depend on the texts beside it.
    samples : int
        Draws to average over.
    max_tokens : int
        Most token cells in one forward pass.

    Returns
    -------
    ndarray of float64, shape [texts, classes]
    """
    windows = [(number, part, window) for number, text in enumerate(texts) for part, window in enumerate(text.windows)]

    def thin(sample: int) -> Prepare:
        def prepare(ids: Tensor, batch: list[int]) -> Tensor:
            embeddings = classifier.embed(ids)
            for row, place in enumerate(batch):
                number, part, window = windows[place]
                rates = np.where(window.scorable, keep[number][window.position], 1.0)
                draw = np.random.default_rng((seeds[number], sample, part))
                stays = draw.random((len(window), embeddings.shape[-1])) < rates[:, None]
                embeddings[row, : len(window)] *= torch.from_numpy(stays).to(embeddings)
            return embeddings

        return prepare

    rows = [window for _, _, window in windows]
    by_window = np.zeros((len(rows), classifier.num_labels))
    for sample in range(samples):
        by_window += run_rows(classifier, rows, max_tokens, thin(sample)) / samples
    return document_means(by_window, np.array([len(text.windows) for text in texts]))


def soft_erasure(
    classifier: Classifier,
    texts: Sequence[Encoded],
    scores: Sequence[FloatArray],
    predictions: FloatArray,
    empty: FloatArray,
    seeds: Sequence[int],
    samples: int = SAMPLES,
    max_tokens: int = MAX_TOKENS,
) -> tuple[FloatArray, FloatArray]:
    """Compute soft normalised sufficiency and comprehensiveness (Zhao and Aletras 2023); higher is better for both.

    Scores are scaled to the range from 0 to 1 within a text. Soft sufficiency, 1 - max(0, p - p'), keeps each embedding
    element with that probability, soft comprehensiveness, max(0, p - p'), drops it; both are normalised by what the
    empty text (all elements 0) gives and cut off at 0 and 1. p' is averaged over `samples` draws.

    Parameters
    ----------
    classifier : Classifier
    texts : sequence of Encoded
    scores : sequence of ndarray, each [tokens]
    predictions, empty : ndarray, shape [texts, classes]
        Probabilities for the unmodified texts, and for texts without any embedding (`soft_probabilities` at 0).
    seeds : sequence of int
    samples : int
    max_tokens : int

    Returns
    -------
    soft_ns, soft_nc : ndarray, shape [texts]
        NaN where the empty text keeps the whole probability, so that there is nothing to normalise by.
    """
    rates = []
    for encoded, values in zip(texts, scores, strict=True):
        rate = np.ones(len(encoded.tokens))
        scorable = encoded.scorable
        rate[scorable] = unit_range(values[scorable])
        rates.append(rate)
    kept = soft_probabilities(classifier, texts, rates, seeds, samples, max_tokens)
    dropped = soft_probabilities(classifier, texts, [1 - rate for rate in rates], seeds, samples, max_tokens)
    rows, labels = np.arange(len(texts)), predictions.argmax(1)
    fall_kept, fall_dropped, fall_empty = (
        np.maximum(0.0, (predictions - other)[rows, labels]) for other in (kept, dropped, empty)
    )
    scale = np.where(fall_empty > 0, fall_empty, np.nan)
    return np.clip((fall_empty - fall_kept) / scale, 0, 1), np.clip(fall_dropped / scale, 0, 1)
