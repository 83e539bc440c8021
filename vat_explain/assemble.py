"""From what a model says about windows to one `Explanation` of the whole text; free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vat_explain.errors import TargetError
from vat_explain.explanation import Explanation, ScoredSpan, ScoreUnit, Task
from vat_explain.text import Encoded

FloatArray = NDArray[np.floating]

TEMPERATURE = 0.1
"""Probability by which tokens must differ in effect for their shares to differ by a factor of e."""


@dataclass(frozen=True)
class WindowScores:
    """What a model says about one window, padding cut off.

    Attributes
    ----------
    probabilities : ndarray, shape [classes]
    importance : ndarray, shape [tokens]
        The scores to show; 0 at special tokens.
    class_importance : ndarray, shape [tokens, classes], optional
        Signed parts of the probabilities; 0 at special tokens.
    """

    probabilities: FloatArray
    importance: FloatArray
    class_importance: FloatArray | None = None


@dataclass(frozen=True)
class Origin:
    """What all explanations of one model and method share.

    Attributes
    ----------
    labels : tuple of str
        Names of the classes.
    task : {"single_label", "multi_label"}
    method : str
    unit : {"share", "probability", "score"}
        Unit of `WindowScores.importance`.
    reference : tuple of float, optional
        Prediction on fully masked text, one probability a class.
    provenance : mapping of str to str
    """

    labels: tuple[str, ...]
    task: Task
    method: str
    unit: ScoreUnit
    reference: tuple[float, ...] | None
    provenance: Mapping[str, str]


def resolve_target(target: str | int | None, labels: Sequence[str]) -> int | None:
    """Turn the name or number of a class into its number.

    Raises
    ------
    TargetError
        If there is no such class.
    """
    if target is None:
        return None
    if isinstance(target, str) and target in labels:
        return list(labels).index(target)
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(labels):
        return target
    raise TargetError(f"target {target!r} is no class of this model; use one of {', '.join(labels)}")


def merge_windows(encoded: Encoded, windows: Sequence[FloatArray], unit: ScoreUnit) -> NDArray[np.float64]:
    """Join the scores of overlapping windows into one score a token.

    Shares are averaged over the windows that see a token and scaled to sum to 1. Parts of a probability are averaged
    over all windows, those that do not see the token counting 0, so that they add up to the mean prediction. Other
    scores are averaged over the windows that see the token.

    Parameters
    ----------
    encoded : Encoded
        The text.
    windows : sequence of ndarray, each [tokens] or [tokens, classes]
        Scores of each window, in the order of ``encoded.windows``.
    unit : {"share", "probability", "score"}

    Returns
    -------
    ndarray of float64, shape [tokens of the text] or [tokens of the text, classes]
    """
    total = np.zeros((len(encoded.tokens), *windows[0].shape[1:]))
    seen = np.zeros(len(encoded.tokens))
    for window, scores in zip(encoded.windows, windows, strict=True):
        inside = window.position >= 0
        total[window.position[inside]] += scores[inside]
        seen[window.position[inside]] += 1
    if unit == "probability":
        return total / len(windows)
    mean = total / np.maximum(seen, 1).reshape(-1, *[1] * (total.ndim - 1))
    if unit == "share" and mean.sum() > 0:
        mean /= mean.sum()
    return mean


def joint_shares(encoded: Encoded, parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn the merged parts of one class into shares of a text of several windows.

    Each window's own shares sum to 1, whether or not anything in it counts, and for the class that is likeliest there;
    only parts of the same class can be compared across windows.

    Parameters
    ----------
    encoded : Encoded
        The text.
    parts : ndarray, shape [tokens of the text]
        From `merge_windows`.

    Returns
    -------
    ndarray of float64, shape [tokens of the text]
        0 at special tokens that the text spells out.
    """
    if not encoded.scorable.any():
        return np.zeros(len(parts))
    scores = np.where(encoded.scorable, parts * len(encoded.windows) / TEMPERATURE, -np.inf)
    raised = np.exp(scores - scores.max())
    shares: NDArray[np.float64] = raised / raised.sum()
    return shares


def merge_shares(
    encoded: Encoded, windows: Sequence[WindowScores], parts: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the shares of a text: those of its one window, or `joint_shares` of several.

    Parameters
    ----------
    encoded : Encoded
        The text.
    windows : sequence of WindowScores
        In the order of ``encoded.windows``.
    parts : ndarray, shape [tokens of the text], optional
        Merged parts of the text's likeliest class. Without them the shares of the windows are averaged.

    Returns
    -------
    ndarray of float64, shape [tokens of the text]
    """
    if parts is not None and len(windows) > 1:
        return joint_shares(encoded, parts)
    return merge_windows(encoded, [window.importance for window in windows], "share")


def assemble(
    encoded: Encoded, windows: Sequence[WindowScores], origin: Origin, target: int | None = None, id: str | None = None
) -> Explanation:
    """Build the explanation of one text.

    The prediction for a text of several windows is the mean of their probabilities, and its shares are those of the
    parts of its likeliest class, if there are any (`joint_shares`).

    Parameters
    ----------
    encoded : Encoded
        The text.
    windows : sequence of WindowScores
        In the order of ``encoded.windows``.
    origin : Origin
        Labels, method and provenance.
    target : int, optional
        Class to explain, by its signed parts where the method gives them for every class.
    id : str, optional
        The caller's name for the text.
    """
    probabilities = np.mean([np.asarray(w.probabilities, dtype=np.float64) for w in windows], axis=0)
    probabilities = np.clip(probabilities, 0.0, 1.0)
    by_class = [w.class_importance for w in windows if w.class_importance is not None]
    parts = merge_windows(encoded, by_class, "probability") if by_class else None
    unit = origin.unit
    if target is not None and parts is not None:
        scores, unit = parts[:, target], "probability"
    elif unit == "share":
        scores = merge_shares(encoded, windows, None if parts is None else parts[:, int(probabilities.argmax())])
    else:
        scores = merge_windows(encoded, [w.importance for w in windows], unit)
    texts = (encoded.text, encoded.text_pair or "")
    words = np.bincount(encoded.words, weights=scores, minlength=len(encoded.word_spans))
    labels = origin.labels
    top = labels[int(probabilities.argmax())]
    predicted = (
        tuple(label for label, p in zip(labels, probabilities, strict=True) if p >= 0.5)
        if origin.task == "multi_label"
        else (top,)
    )
    return Explanation(
        text=encoded.text,
        text_pair=encoded.text_pair,
        label=top,
        predicted=predicted,
        scores=dict(zip(labels, probabilities.tolist(), strict=True)),
        task=origin.task,
        target=None if target is None else labels[target],
        method=origin.method,
        unit=unit,
        tokens=tuple(
            ScoredSpan(token, start, end, segment, score)
            for token, (start, end), segment, score in zip(
                encoded.tokens, encoded.spans.tolist(), encoded.segments.tolist(), scores.tolist(), strict=True
            )
        ),
        words=tuple(
            ScoredSpan(texts[segment][start:end], start, end, segment, score)
            for (start, end), segment, score in zip(
                encoded.word_spans.tolist(), encoded.word_segments.tolist(), words.tolist(), strict=True
            )
        ),
        tokens_to_words=tuple(encoded.words.tolist()),
        class_scores=None if parts is None else {label: tuple(parts[:, c].tolist()) for c, label in enumerate(labels)},
        reference=None if origin.reference is None else dict(zip(labels, origin.reference, strict=True)),
        windows=len(windows),
        id=id,
        provenance=dict(origin.provenance),
    )
