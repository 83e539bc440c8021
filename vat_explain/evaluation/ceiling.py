"""The best removal and the best keep order that a bounded search finds: what erasure metrics could reach at most.

After Edin et al. 2024 ("Normalized AOPC"): how far comprehensiveness and sufficiency can go depends on model and text,
so a method is placed on the way from a random order to the best one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vat_explain.evaluation.erasure import drops, prefix_probabilities, prefix_sizes
from vat_explain.evaluation.perturb import (
    MAX_TOKENS,
    FloatArray,
    Operator,
    Request,
    probabilities_under,
)
from vat_explain.models import Classifier
from vat_explain.text import BoolArray, Encoded
from vat_explain.words import IntArray

WIDEST_BEAM = 4


@dataclass(frozen=True)
class Reach:
    """Averages over the bins (AOPC) between which explanations of one text lie.

    Attributes
    ----------
    best_comprehensiveness, best_sufficiency : float
        Found by `search`; NaN where the budget does not suffice for one greedy search.
    random_comprehensiveness, random_sufficiency : float
        Means over random orders; NaN likewise.
    """

    best_comprehensiveness: float
    best_sufficiency: float
    random_comprehensiveness: float
    random_sufficiency: float


def reach(
    classifier: Classifier,
    texts: Sequence[Encoded],
    predictions: FloatArray,
    operator: Operator,
    budget: int,
    seeds: Sequence[int],
    random_orders: int = 10,
    max_tokens: int = MAX_TOKENS,
) -> list[Reach]:
    """Find the best orders for texts, and what random ones give.

    Parameters
    ----------
    classifier : Classifier
    texts : sequence of Encoded
    predictions : ndarray, shape [texts, classes]
        Probabilities for the unmodified texts.
    operator : {"mask", "delete"}
    budget : int
        Most rows that each of the two searches may spend on a text.
    seeds : sequence of int
        For the random orders of each text.
    random_orders : int
    max_tokens : int
        Most token cells in one forward pass.
    """
    removal = search(classifier, texts, predictions, operator, budget, keep=False, max_tokens=max_tokens)
    insertion = search(classifier, texts, predictions, operator, budget, keep=True, max_tokens=max_tokens)
    orders: list[tuple[int, IntArray]] = []
    searched = np.flatnonzero(np.isfinite(removal)).tolist()
    for number in searched:
        draw = np.random.default_rng(seeds[number])
        tokens = np.flatnonzero(texts[number].scorable)
        orders.extend((number, draw.permutation(tokens)) for _ in range(random_orders))
    prefixes = prefix_probabilities(classifier, texts, orders, operator, max_tokens=max_tokens)
    means = np.array(
        [[d.mean() for d in drops(p, predictions[number])] for (number, _), p in zip(orders, prefixes, strict=True)]
    )
    by_text = np.full((len(texts), 2), np.nan)
    by_text[searched] = means.reshape(len(searched), random_orders, 2).mean(1)
    return [
        Reach(float(best), float(kept), float(comprehensiveness), float(sufficiency))
        for best, kept, (comprehensiveness, sufficiency) in zip(removal, insertion, by_text, strict=True)
    ]


def search_cost(n: int, windows: int) -> int:
    """Return the rows that one greedy search needs for a text of `n` tokens, with a beam of 1."""
    longest = int(prefix_sizes(n).max())
    return windows * sum(n - done for done in range(longest))


@dataclass
class _Beam:
    """The state of the search in one text."""

    number: int
    label: int
    candidates: IntArray
    width: int
    sizes: IntArray
    chosen: BoolArray  # [beam, candidates]
    gained: FloatArray = field(default_factory=lambda: np.zeros(1))  # sums over the bins passed, [beam]

    def expand(self) -> tuple[BoolArray, IntArray]:
        """Return all sets one token larger, each once, and the beam that each comes from."""
        beam, token = np.nonzero(~self.chosen)
        grown = self.chosen[beam]
        grown[np.arange(len(token)), token] = True
        if len(self.chosen) == 1:
            return grown, beam
        # Beams that meet in one set go on from the better of them.
        better_first = np.argsort(-self.gained[beam], kind="stable")
        _, first = np.unique(np.packbits(grown[better_first], axis=1), axis=0, return_index=True)
        chosen = np.sort(better_first[first])
        return grown[chosen], beam[chosen]

    def select(self, grown: BoolArray, beam: IntArray, values: FloatArray) -> None:
        """Keep the most promising sets: by what is gained so far plus what it comes to if the rest stays as it is."""
        size = int(grown[0].sum())
        gained = self.gained[beam] + values * (self.sizes == size).sum()
        promise = gained + values * (self.sizes > size).sum()
        best = np.argsort(-promise, kind="stable")[: self.width]
        self.chosen, self.gained = grown[best], gained[best]


def search(
    classifier: Classifier,
    texts: Sequence[Encoded],
    predictions: FloatArray,
    operator: Operator,
    budget: int,
    *,
    keep: bool,
    max_tokens: int = MAX_TOKENS,
) -> FloatArray:
    """Search the order of tokens with the best average over the bins, by a beam as wide as the budget allows.

    Parameters
    ----------
    classifier : Classifier
    texts : sequence of Encoded
    predictions : ndarray, shape [texts, classes]
        Probabilities for the unmodified texts.
    operator : {"mask", "delete"}
    budget : int
        Most rows to spend on a text; the beam is at most `WIDEST_BEAM` wide.
    keep : bool
        False: take tokens away and return the highest comprehensiveness. True: add tokens to the empty text and
        return the lowest sufficiency.
    max_tokens : int
        Most token cells in one forward pass.

    Returns
    -------
    ndarray, shape [texts]
        NaN where the budget does not suffice for a beam of 1.
    """
    beams: list[_Beam] = []
    for number, encoded in enumerate(texts):
        candidates = np.flatnonzero(encoded.scorable)
        n = len(candidates)
        if width := min(WIDEST_BEAM, budget // search_cost(n, len(encoded.windows))):
            start = np.zeros((1, n), dtype=np.bool_)
            label = int(predictions[number].argmax())
            beams.append(_Beam(number, label, candidates, width, prefix_sizes(n), start))
    sign = 1.0 if keep else -1.0
    for step in range(max((int(beam.sizes.max()) for beam in beams), default=0)):
        active = [beam for beam in beams if step < beam.sizes.max()]
        grown = [beam.expand() for beam in active]
        requests: list[Request] = []
        for beam, (sets, _) in zip(active, grown, strict=True):
            masks = np.full((len(sets), len(texts[beam.number].tokens)), True)
            masks[:, beam.candidates] = sets if keep else ~sets
            requests.extend((beam.number, row) for row in masks)
        probabilities = probabilities_under(classifier, texts, requests, operator, max_tokens)
        ends = np.cumsum([len(sets) for sets, _ in grown])
        for beam, (sets, origin), part in zip(active, grown, np.split(probabilities, ends)[:-1], strict=True):
            beam.select(sets, origin, sign * part[:, beam.label])
    best = np.full(len(texts), np.nan)
    for beam in beams:
        best[beam.number] = predictions[beam.number, beam.label] - sign * beam.gained.max() / len(beam.sizes)
    return best
