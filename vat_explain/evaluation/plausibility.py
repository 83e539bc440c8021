"""Compare explanations with where people, or the makers of the data, know the reason to be.

The unit is the word. The score of a word is the sum of the scores of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from vat_explain.evaluation.perturb import FloatArray
from vat_explain.text import BoolArray, Encoded
from vat_explain.words import IntArray

IOU_MATCH = 0.5


def word_scores(encoded: Encoded, scores: ArrayLike) -> FloatArray:
    """Sum token scores, shape [tokens], over words, shape [words]."""
    values = np.asarray(scores, dtype=np.float64)
    return np.bincount(encoded.words, weights=values, minlength=len(encoded.word_spans)).astype(np.float64)


def marked_words(encoded: Encoded, spans: Sequence[tuple[int, int]]) -> BoolArray:
    """Tell the words of the first text that share a character with one of the spans, shape [words]."""
    starts, ends = encoded.word_spans[:, 0], encoded.word_spans[:, 1]
    marked = np.zeros(len(starts), dtype=np.bool_)
    for start, end in spans:
        marked |= (starts < end) & (ends > start)
    marked &= encoded.word_segments == 0
    return marked


def top_words(scores: FloatArray, count: int) -> BoolArray:
    """Tell the `count` words of highest score, shape [words]; at equal scores the earlier ones."""
    chosen = np.zeros(len(scores), dtype=np.bool_)
    chosen[np.argsort(-scores, kind="stable")[:count]] = True
    return chosen


def token_f1(predicted: BoolArray, human: BoolArray) -> float:
    """Return the F1 of two sets of words, each [words] (DeYoung et al. 2020); 0 where they share none."""
    total = int(predicted.sum() + human.sum())
    return 2 * int((predicted & human).sum()) / total if total else 0.0


def iou_f1(predicted: BoolArray, human: BoolArray) -> float:
    """Return the F1 of two sets of word runs, of which two match from an overlap of half their union on.

    Parameters
    ----------
    predicted, human : ndarray of bool, shape [words]
        Each run of marked words is one span.

    Returns
    -------
    float
        Precision is the share of predicted spans that match a human one, recall the reverse (DeYoung et al. 2020).
    """
    mine, theirs = _runs(predicted), _runs(human)
    if not len(mine) or not len(theirs):
        return 0.0
    overlap = np.minimum(mine[:, None, 1], theirs[None, :, 1]) - np.maximum(mine[:, None, 0], theirs[None, :, 0])
    overlap = np.maximum(overlap, 0)
    lengths = (mine[:, 1] - mine[:, 0])[:, None] + (theirs[:, 1] - theirs[:, 0])[None]
    match = overlap / (lengths - overlap) >= IOU_MATCH
    precision, recall = match.any(1).mean(), match.any(0).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall > 0 else 0.0


def average_precision(scores: FloatArray, human: BoolArray) -> float:
    """Return the area under the precision-recall curve by its step sum; words of equal score enter together.

    Parameters
    ----------
    scores : ndarray, shape [words]
    human : ndarray of bool, shape [words]

    Returns
    -------
    float
        NaN where no word is marked.
    """
    if not human.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits, ordered = np.cumsum(human[order]), scores[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # last word of each run of equal scores
    found = hits[ends]
    gained = np.diff(found, prepend=0) / found[-1]
    return float((gained * found / (ends + 1)).sum())


def plausibility(
    encoded: Encoded, scores: ArrayLike, spans: Sequence[tuple[int, int]], share: float
) -> dict[str, float]:
    """Compare an explanation of the first text with the spans that a person marked in it.

    Parameters
    ----------
    encoded : Encoded
    scores : array, shape [tokens]
    spans : sequence of (int, int)
        Characters of the first text; empty spans, or ones without a word, give NaN throughout.
    share : float
        Share of the words that counts as the explanation for the two F1 measures: the mean share that people marked
        in the data set (DeYoung et al. 2020).

    Returns
    -------
    dict
        ``token_f1``, ``iou_f1``, ``auprc``.
    """
    first = encoded.word_segments == 0  # nobody was asked to mark the second text
    human, summed = marked_words(encoded, spans)[first], word_scores(encoded, scores)[first]
    if not human.any():
        return dict.fromkeys(("token_f1", "iou_f1", "auprc"), float("nan"))
    predicted = top_words(summed, max(1, round(share * len(summed))))
    return {
        "token_f1": token_f1(predicted, human),
        "iou_f1": iou_f1(predicted, human),
        "auprc": average_precision(summed, human),
    }


def shortcut_metrics(encoded: Encoded, scores: ArrayLike, planted: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Ask whether planted words, which decide the label, are ranked first in the first text (Bastings et al. 2022).

    Parameters
    ----------
    encoded : Encoded
    scores : array, shape [tokens]
    planted : sequence of (int, int)
        Characters of the planted words; NaN throughout where there are none.

    Returns
    -------
    dict
        ``shortcut_precision``: share of planted words among the k first, k being their number; ``shortcut_rank``:
        their mean rank, 1 the best, words of equal score sharing the mean of their ranks.
    """
    first = encoded.word_segments == 0
    words, summed = marked_words(encoded, planted)[first], word_scores(encoded, scores)[first]
    if not words.any():
        return dict.fromkeys(("shortcut_precision", "shortcut_rank"), float("nan"))
    ahead = (summed[None] > summed[words, None]).sum(1)
    level = (summed[None] == summed[words, None]).sum(1)
    k = int(words.sum())
    # Of words level with each other, only some may fit among the k first; each then counts by its chance.
    chance = np.clip((k - ahead) / level, 0, 1)
    return {"shortcut_precision": float(chance.mean()), "shortcut_rank": float((ahead + (level + 1) / 2).mean())}


def _runs(marked: BoolArray) -> IntArray:
    """Return start and end of each run of True, shape [runs, 2]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)
