"""Faithfulness by erasure: take away, or keep only, the tokens that an explanation ranks first.

All functions speak about the class that the classifier finds most probable for the unmodified text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vat_explain.errors import InputError
from vat_explain.evaluation.perturb import (
    MAX_TOKENS,
    FloatArray,
    Operator,
    Request,
    probabilities_under,
)
from vat_explain.models import MULTI_LABEL, Classifier
from vat_explain.text import BoolArray, Encoded
from vat_explain.words import IntArray

BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of the tokens over which comprehensiveness and sufficiency are averaged (DeYoung et al. 2020)."""
CURVE = tuple(np.linspace(0, 1, 11).round(1).tolist())
"""Shares of the tokens at which deletion and insertion curves are drawn."""
LOG_ODDS_SHARE = 0.2
POST_HOC_TOKENS = 10
_SMALLEST = 1e-12  # probabilities below count as this one under a logarithm


def prefix_sizes(n: int, shares: Sequence[float] = BINS) -> IntArray:
    """Return how many of `n` tokens make up each share: to the nearest, halves up, at least one."""
    return np.maximum(1, np.floor(np.array(shares) * n + 0.5).astype(np.int64))


def ranking(scores: ArrayLike, scorable: BoolArray, ties: IntArray) -> IntArray:
    """Order the scorable tokens, highest score first.

    Parameters
    ----------
    scores : array, shape [tokens]
        Signed scores: tokens that speak against the class come last.
    scorable : ndarray of bool, shape [tokens]
    ties : ndarray of int, shape [tokens]
        Among equal scores the token with the smaller entry comes first. A random permutation keeps explanations with
        many equal scores from gaining by the order of the text.

    Returns
    -------
    ndarray of int64, shape [scorable tokens]

    Raises
    ------
    InputError
        If there is not exactly one finite score for each token.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != scorable.shape:
        raise InputError(
            f"there are scores of shape {values.shape} for {len(scorable)} tokens; give one for each token"
        )
    if not np.isfinite(values).all():
        raise InputError(f"the score of token {int(np.argmin(np.isfinite(values)))} is not a finite number")
    candidates = np.flatnonzero(scorable)
    order: IntArray = candidates[np.lexsort((ties[candidates], -values[candidates]))]
    return order


@dataclass(frozen=True)
class Prefixes:
    """Predictions after taking away, and after keeping only, the first tokens of an order.

    Attributes
    ----------
    tokens : int
        Tokens in the whole order.
    sizes : ndarray of int64, shape [sizes]
        Numbers of first tokens, ascending.
    removed, kept : ndarray, shape [sizes, classes]
        Probabilities without the first tokens, and with nothing but them.
    """

    tokens: int
    sizes: IntArray
    removed: FloatArray
    kept: FloatArray

    def at(self, sizes: IntArray) -> IntArray:
        """Return the places of `sizes` in `Prefixes.sizes`."""
        return np.searchsorted(self.sizes, sizes)


def prefix_probabilities(
    classifier: Classifier,
    texts: Sequence[Encoded],
    orders: Sequence[tuple[int, IntArray]],
    operator: Operator,
    sizes: Callable[[int], IntArray] = prefix_sizes,
    max_tokens: int = MAX_TOKENS,
) -> list[Prefixes]:
    """Predict texts without the first tokens of orders, and with only them.

    Parameters
    ----------
    classifier : Classifier
    texts : sequence of Encoded
    orders : sequence of (int, ndarray of int64)
        Number of a text and an order of its scorable tokens; a text may have several or none.
    operator : {"mask", "delete"}
    sizes : callable
        From the number of tokens in the order to the numbers of first tokens.
    max_tokens : int
        Most token cells in one forward pass.

    Returns
    -------
    list of Prefixes
        One for each order.
    """
    chosen = [np.unique(sizes(len(order))) for _, order in orders]
    requests: list[Request] = []
    for (number, order), prefix in zip(orders, chosen, strict=True):
        rank = np.full(len(texts[number].tokens), -1)
        rank[order] = np.arange(len(order))
        taken = (rank < prefix[:, None]) & (rank >= 0)
        requests.extend((number, ~row) for row in taken)
        requests.extend((number, row) for row in taken)
    probabilities = probabilities_under(classifier, texts, requests, operator, max_tokens)
    parts = np.split(probabilities, np.cumsum([2 * len(prefix) for prefix in chosen]))[:-1]
    return [
        Prefixes(len(order), prefix, *np.split(part, 2))
        for (_, order), prefix, part in zip(orders, chosen, parts, strict=True)
    ]


def drops(prefixes: Prefixes, prediction: FloatArray, shares: Sequence[float] = BINS) -> tuple[FloatArray, FloatArray]:
    """Return comprehensiveness and sufficiency at several shares of the tokens (DeYoung et al. 2020, ERASER).

    Their means over the shares are the two AOPC values.

    Parameters
    ----------
    prefixes : Prefixes
        Must hold the sizes that belong to `shares`.
    prediction : ndarray, shape [classes]
        Probabilities for the unmodified text.
    shares : sequence of float

    Returns
    -------
    comprehensiveness, sufficiency : ndarray, shape [shares]
        Probability of the predicted class minus its probability without the first tokens (higher is better), and
        minus its probability with only them (lower is better).
    """
    label = int(prediction.argmax())
    at = prefixes.at(prefix_sizes(prefixes.tokens, shares))
    return prediction[label] - prefixes.removed[at, label], prediction[label] - prefixes.kept[at, label]


def erasure_sizes(n: int) -> IntArray:
    """Return the prefixes that `erasure_metrics` needs for an order of `n` tokens."""
    return np.unique(np.concatenate([[0, n, min(POST_HOC_TOKENS, n)], prefix_sizes(n), _curve_sizes(n)]))


def erasure_metrics(
    prefixes: Prefixes, prediction: FloatArray, task: str
) -> tuple[dict[str, float], tuple[FloatArray, FloatArray]]:
    """Compute the metrics of one order from its prefixes.

    Parameters
    ----------
    prefixes : Prefixes
        With the sizes of `erasure_sizes`.
    prediction : ndarray, shape [classes]
        Probabilities for the unmodified text.
    task : {"single_label", "multi_label"}

    Returns
    -------
    metrics : dict of str to float
        ``comprehensiveness`` and ``sufficiency``, averaged over `BINS` (AOPC, DeYoung et al. 2020); ``log_odds`` of
        the predicted class without the first 20%, against the whole text (lower is better; Shrikumar et al. 2017, Chen
        and Ji 2020); ``post_hoc_accuracy``, 1 where the prediction stays with only the first 10 tokens (Chen et al.
        2018; for multi-label models: all labels from probability 0.5 on); ``deletion_auc`` (lower is better) and
        ``insertion_auc`` (higher is better), areas under the curves (Petsiuk et al. 2018).
    curves : (ndarray, ndarray), each of shape [shares of `CURVE`]
        Probability of the predicted class while tokens are deleted and while they are inserted.
    """
    label = int(prediction.argmax())
    n = prefixes.tokens
    comprehensiveness, sufficiency = drops(prefixes, prediction)
    fifth = prefixes.removed[prefixes.at(prefix_sizes(n, [LOG_ODDS_SHARE])), label][0]
    first = prefixes.kept[prefixes.at(np.array([min(POST_HOC_TOKENS, n)]))][0]
    at = prefixes.at(_curve_sizes(n))
    deletion, insertion = prefixes.removed[at, label], prefixes.kept[at, label]
    stays = bool(((first >= 0.5) == (prediction >= 0.5)).all()) if task == MULTI_LABEL else int(first.argmax()) == label
    metrics = {
        "comprehensiveness": float(comprehensiveness.mean()),
        "sufficiency": float(sufficiency.mean()),
        "log_odds": float(np.log(max(fifth, _SMALLEST)) - np.log(max(prediction[label], _SMALLEST))),
        "post_hoc_accuracy": float(stays),
        "deletion_auc": float(np.trapezoid(deletion, CURVE)),
        "insertion_auc": float(np.trapezoid(insertion, CURVE)),
    }
    return metrics, (deletion, insertion)


def leave_one_out(
    classifier: Classifier,
    texts: Sequence[Encoded],
    predictions: FloatArray,
    operator: Operator,
    max_tokens: int = MAX_TOKENS,
) -> list[FloatArray]:
    """Return how far the predicted class falls when each token alone is taken away.

    Parameters
    ----------
    classifier : Classifier
    texts : sequence of Encoded
    predictions : ndarray, shape [texts, classes]
        Probabilities for the unmodified texts.
    operator : {"mask", "delete"}
    max_tokens : int
        Most token cells in one forward pass.

    Returns
    -------
    list of ndarray, each [scorable tokens of the text]
    """
    tokens = [np.flatnonzero(encoded.scorable) for encoded in texts]
    requests: list[Request] = []
    for number, (encoded, scorable) in enumerate(zip(texts, tokens, strict=True)):
        keep = np.ones((len(scorable), len(encoded.tokens)), dtype=np.bool_)
        keep[np.arange(len(scorable)), scorable] = False
        requests.extend((number, row) for row in keep)
    probabilities = probabilities_under(classifier, texts, requests, operator, max_tokens)
    parts = np.split(probabilities, np.cumsum([len(scorable) for scorable in tokens]))[:-1]
    return [p.max() - part[:, p.argmax()] for p, part in zip(predictions, parts, strict=True)]


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Return Kendall's tau-b of two sequences of equal length; 0 where one is constant, NaN where there is no pair."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    if len(a) < 2:
        return float("nan")
    both = mine = theirs = 0.0
    for x, y in zip(a, b, strict=True):  # a row of pairs at a time: all of them would not fit for a long text
        above, beside = np.sign(x - a), np.sign(y - b)
        both, mine, theirs = both + above @ beside, mine + above @ above, theirs + beside @ beside
    return float(both / np.sqrt(mine * theirs)) if mine * theirs > 0 else 0.0


def _curve_sizes(n: int) -> IntArray:
    return np.floor(np.array(CURVE) * n + 0.5).astype(np.int64)
