"""The result of an evaluation: means with intervals, paired differences, and what a report shows besides."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vat_explain.attribution.standard import Method
from vat_explain.evaluation.bootstrap import Interval, intervals
from vat_explain.evaluation.erasure import CURVE
from vat_explain.evaluation.journal import Journal
from vat_explain.evaluation.perturb import FloatArray
from vat_explain.evaluation.texts import TEXT
from vat_explain.files import write_atomically

Scores = dict[str, "Interval | float"]
Paired = dict[str, dict[str, dict[str, Interval]]]
NORMALISED = {"comprehensiveness": "normalised_comprehensiveness", "sufficiency": "normalised_sufficiency"}
COSTS = ("forwards_per_text", "seconds_per_text")
REFERENCE = "vat"
DISAGREEMENTS = 8


@dataclass(frozen=True)
class Disagreement:
    """A text on which methods rank the tokens most differently.

    Attributes
    ----------
    text : int
        Number of the example.
    agreement : float
        Mean correlation of the token scores over all pairs of methods.
    prediction : list of float
        Probability of each class.
    scores : dict of str to list of float
        Token scores of each method.
    """

    text: int
    agreement: float
    prediction: list[float]
    scores: dict[str, list[float]]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` returns.

    Attributes
    ----------
    methods : dict
        For each method, ``mean``, ``low`` and ``high`` (bootstrap interval of 95% over the texts) of each metric, and
        ``forwards_per_text`` and ``seconds_per_text``.
    paired : dict
        ``paired[a][b][metric]``: mean and interval of a's value minus b's on the same texts; a is the first method of
        the evaluation, or VAT where it takes part.
    provenance : dict
        Model, data, settings and versions; ``texts_of_metrics`` says of how many texts a metric speaks that is not
        defined for all of them, such as normalised ones, which need a text short enough for the search.
    values : dict of str to dict of str to ndarray, shape [texts]
        For each method, each metric text by text; NaN where it is undefined.
    curves : dict of str to dict of str to ndarray, shape [2, shares]
        For each method and operator, mean probability of the predicted class under deletion and under insertion of
        the shares of tokens in `vat_explain.evaluation.erasure.CURVE`.
    disagreements : list of Disagreement
        The least agreement first.
    """

    methods: dict[str, Scores]
    paired: Paired
    provenance: dict[str, Any]
    values: dict[str, dict[str, FloatArray]]
    curves: dict[str, dict[str, FloatArray]]
    disagreements: list[Disagreement]

    def to_dict(self) -> dict[str, Any]:
        """Return ``methods``, ``paired`` and ``provenance``."""
        return {"methods": self.methods, "paired": self.paired, "provenance": self.provenance}

    def to_json(self) -> str:
        """Return `to_dict` as one JSON document."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return one line for each method and metric: method, metric, mean, low, high."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["method", "metric", "mean", "low", "high"])
        for method, scores in self.methods.items():
            for metric, value in scores.items():
                cells = [value, "", ""] if isinstance(value, float) else [value["mean"], value["low"], value["high"]]
                writer.writerow([method, metric, *cells])
        return stream.getvalue()

    def save(self, directory: Path) -> None:
        """Write ``results.json`` and ``results.csv``.

        Raises
        ------
        DataError
            If the directory cannot be written.
        """
        write_atomically(directory / "results.json", self.to_json())
        write_atomically(directory / "results.csv", self.to_csv())


def collect(
    journal: Journal, methods: Sequence[Method], numbers: Sequence[int], seed: int, provenance: dict[str, Any]
) -> Evaluation:
    """Read the records of texts and methods and sum them up.

    Parameters
    ----------
    journal : Journal
        Holds a record for each text, and for each text and method.
    methods : sequence of Method
    numbers : sequence of int
        Texts.
    seed : int
        For the bootstrap.
    provenance : dict
        Completed with the number of texts of the metrics that are not defined for all of them.
    """
    names = [method.name for method in methods]
    values: dict[str, dict[str, FloatArray]] = {name: {} for name in names}
    sums: dict[str, dict[str, FloatArray]] = {name: {} for name in names}
    cost = {name: np.zeros(2) for name in names}
    room: dict[str, FloatArray] = {}
    disagreements: list[Disagreement] = []
    for row, number in enumerate(numbers):
        described = journal.read(TEXT, number)
        scores: dict[str, list[float]] = {}
        for method in methods:
            name, record = method.name, journal.read(method.identity, number)
            scores[name] = record["scores"]
            cost[name] += (record["forwards"], record["seconds"])
            found = record["metrics"] | _above_random(record["metrics"], described["operators"])
            for metric, value in found.items():
                column = values[name].setdefault(metric, np.full(len(numbers), np.nan))
                column[row] = np.nan if value is None else value
            for operator, pair in record["curves"].items():
                sums[name][operator] = sums[name].get(operator, np.zeros((2, len(CURVE)))) + np.array(pair)
        for metric, value in _room(described["operators"]).items():
            room.setdefault(metric, np.full(len(numbers), np.nan))[row] = value
        disagreements.append(Disagreement(number, _agreement(list(scores.values())), described["prediction"], scores))
        disagreements = sorted(disagreements, key=lambda d: d.agreement)[:DISAGREEMENTS]
    counts: dict[str, int] = {}
    for columns in values.values():
        for metric, column in columns.items():
            counts[metric] = max(counts.get(metric, 0), int(np.isfinite(column).sum()))
    partly = {metric: count for metric, count in counts.items() if count < len(numbers)}
    return Evaluation(
        methods={name: {**_summary(values[name], room, seed), **_costs(cost[name] / len(numbers))} for name in names},
        paired=_paired(values, room, seed),
        provenance={**provenance, "texts_of_metrics": partly},
        values=values,
        curves={name: {op: total / len(numbers) for op, total in sums[name].items()} for name in names},
        disagreements=disagreements,
    )


def _above_random(metrics: Mapping[str, float | None], operators: Mapping[str, Any]) -> dict[str, float | None]:
    """Return by how much a method is better than random orders; only on texts with a ceiling."""
    result: dict[str, float | None] = {}
    for operator, found in operators.items():
        for metric, name in NORMALISED.items():
            value, chance = metrics[f"{metric}_{operator}"], found["reach"][f"random_{metric}"]
            usable = found["reach"][f"best_{metric}"] is not None and value is not None
            result[f"{name}_{operator}"] = value - chance if usable and value is not None else None
    return result


def _room(operators: Mapping[str, Any]) -> dict[str, float]:
    """Return by how much the best order found is better than random ones."""
    return {
        f"{name}_{operator}": found["reach"][f"best_{metric}"] - found["reach"][f"random_{metric}"]
        for operator, found in operators.items()
        for metric, name in NORMALISED.items()
        if found["reach"][f"best_{metric}"] is not None
    }


def _summary(values: Mapping[str, FloatArray], room: Mapping[str, FloatArray], seed: int) -> dict[str, Interval]:
    """Return means over texts; for normalised metrics the sum over texts of what is reached over that of the room.

    Ratios text by text would have no bounds where random orders are nearly as good as the best.
    """
    if not values:
        return {}
    above = np.stack(list(values.values()), axis=1)
    below = np.stack([room.get(name, np.ones(len(above))) for name in values], axis=1)
    found = zip(values, intervals(above, below, seed=seed), strict=True)
    return {name: interval for name, interval in found if interval is not None}


def _paired(values: Mapping[str, Mapping[str, FloatArray]], room: Mapping[str, FloatArray], seed: int) -> Paired:
    first = REFERENCE if REFERENCE in values else next(iter(values))
    mine = values[first]
    return {
        first: {
            name: _summary({m: mine[m] - column for m, column in theirs.items() if m in mine}, room, seed)
            for name, theirs in values.items()
            if name != first
        }
    }


def _costs(cost: FloatArray) -> dict[str, float]:
    return dict(zip(COSTS, cost.tolist(), strict=True))


def _agreement(scores: Sequence[Sequence[float]]) -> float:
    """Return the mean correlation over pairs of methods, constant scores counting 0; 1 where nothing can differ."""
    if len(scores) < 2 or len(scores[0]) < 2:
        return 1.0
    table = np.array(scores)
    table = table - table.mean(1, keepdims=True)
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    table = table / np.where(norms > 0, norms, 1)
    pairs = (table @ table.T)[np.triu_indices(len(table), 1)]
    return float(pairs.mean())
