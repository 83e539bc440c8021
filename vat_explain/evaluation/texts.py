"""What is computed for each text of an evaluation: once for the text, and once more for each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from vat_explain.attribution.standard import Method
from vat_explain.errors import ModelError
from vat_explain.evaluation import ceiling, erasure, plausibility, sanity, soft
from vat_explain.evaluation.journal import Record
from vat_explain.evaluation.perturb import (
    OPERATORS,
    FloatArray,
    Operator,
    probabilities_under,
)
from vat_explain.evaluation.scoring import score_texts
from vat_explain.evaluation.stability import stability
from vat_explain.models import MULTI_LABEL, Classifier
from vat_explain.text import Encoded

TEXT = "(text)"
"""Name of the records that do not belong to a method."""


@dataclass(frozen=True)
class Settings:
    """How an evaluation is carried out; part of the digest that its interim results are filed under.

    Attributes
    ----------
    operators : tuple of {"mask", "delete"}
        Ways to take tokens away; each gets metrics of its own.
    seed : int
        For the choice of texts, ties, random orders and bootstrap.
    search_budget : int
        Most rows that one search for the best order, or leave-one-out, may spend on a text; texts that need more go
        without `normalised` metrics or tau.
    soft_samples : int
        Draws for soft erasure; 0 leaves it out.
    stability_samples : int
        Perturbations for infidelity and sensitivity, which explains each text so many times more; 0 leaves them out.
    batch_rows : int
        Rows that a method is given at once.
    max_tokens : int
        Most token cells in a forward pass of the metrics.
    """

    operators: tuple[Operator, ...] = OPERATORS
    seed: int = 0
    search_budget: int = 500
    soft_samples: int = soft.SAMPLES
    stability_samples: int = 0
    batch_rows: int = 16
    max_tokens: int = 4096


@dataclass(frozen=True)
class Batch:
    """Some texts with what is known about them.

    Attributes
    ----------
    numbers : list of int
        Numbers of the texts among all.
    encoded : list of Encoded
    rationales, planted : list of spans
        In characters of the first text; empty where nothing is known.
    rationale_share : float
        Share of the words that people marked in the whole data set.
    """

    numbers: list[int]
    encoded: list[Encoded]
    rationales: list[Sequence[tuple[int, int]]]
    planted: list[Sequence[tuple[int, int]]]
    rationale_share: float


@dataclass(frozen=True)
class Bench:
    """The models and settings of an evaluation.

    Attributes
    ----------
    classifier : Classifier
        The model that is explained and judged.
    settings : Settings
    judge : Classifier, optional
        Trained on random masks, for the encoding gap and class leak.
    models : tuple of nn.Module
        Further modules whose passes count as cost.
    """

    classifier: Classifier
    settings: Settings
    judge: Classifier | None = None
    models: tuple[nn.Module, ...] = field(default=())

    def describe(self, batch: Batch) -> list[Record]:
        """Compute what all methods are compared with: predictions, leave-one-out, ceiling, the empty text."""
        settings, texts = self.settings, batch.encoded
        everything = [(i, np.ones(len(encoded.tokens), dtype=np.bool_)) for i, encoded in enumerate(texts)]
        predictions = probabilities_under(self.classifier, texts, everything, "mask", settings.max_tokens)
        if not np.isfinite(predictions).all():
            raise ModelError("the model's probabilities are NaN or infinite; check its weights and its precision")
        records: list[Record] = [
            {"name": TEXT, "text": number, "prediction": prediction.tolist(), "operators": {}}
            for number, prediction in zip(batch.numbers, predictions, strict=True)
        ]
        short = [i for i, e in enumerate(texts) if e.scorable.sum() * len(e.windows) <= settings.search_budget]
        short_texts, short_predictions = [texts[i] for i in short], predictions[short]
        seeds = [self._seed(batch.numbers[i]) for i in short]
        for operator in settings.operators:
            common = (self.classifier, short_texts, short_predictions, operator)
            falls = erasure.leave_one_out(*common, settings.max_tokens)
            reaches = ceiling.reach(*common, settings.search_budget, seeds, max_tokens=settings.max_tokens)
            for i, fall, reach in zip(short, falls, reaches, strict=True):
                records[i]["operators"][operator] = {"leave_one_out": fall.tolist(), "reach": _plain(asdict(reach))}
        if settings.soft_samples:
            nothing = [(~encoded.scorable).astype(np.float64) for encoded in texts]
            seeds = [self._seed(number) for number in batch.numbers]
            empty = soft.soft_probabilities(
                self.classifier, texts, nothing, seeds, samples=1, max_tokens=settings.max_tokens
            )
            for record, row in zip(records, empty, strict=True):
                record["empty"] = row.tolist()
        return records

    def measure(self, batch: Batch, method: Method, described: Sequence[Record]) -> list[Record]:
        """Explain texts with one method and compute all its metrics, from what `describe` returned."""
        settings, texts = self.settings, batch.encoded
        predictions = np.array([record["prediction"] for record in described])
        labels = [int(label) for label in predictions.argmax(1)]
        scored = score_texts(
            method,
            self.classifier,
            texts,
            labels,
            seed=self._seed(batch.numbers[0]),
            max_rows=settings.batch_rows,
            models=self.models,
        )
        scores = scored.scores
        orders = [
            (i, erasure.ranking(values, encoded.scorable, self._ties(number, encoded)))
            for i, (number, encoded, values) in enumerate(zip(batch.numbers, texts, scores, strict=True))
        ]
        metrics: list[dict[str, float]] = [
            sanity.collapse_alarms(encoded, values)
            | plausibility.plausibility(encoded, values, rationale, batch.rationale_share)
            | plausibility.shortcut_metrics(encoded, values, planted)
            for encoded, values, rationale, planted in zip(texts, scores, batch.rationales, batch.planted, strict=True)
        ]
        curves: list[dict[str, list[list[float]]]] = [{} for _ in texts]
        for operator in settings.operators:
            prefixes = erasure.prefix_probabilities(
                self.classifier, texts, orders, operator, erasure.erasure_sizes, settings.max_tokens
            )
            for i, (found, prediction) in enumerate(zip(prefixes, predictions, strict=True)):
                values, pair = erasure.erasure_metrics(found, prediction, self.classifier.task)
                curves[i][operator] = [curve.tolist() for curve in pair]
                if operator in described[i]["operators"]:
                    falls = described[i]["operators"][operator]["leave_one_out"]
                    values["tau_loo"] = erasure.kendall_tau(scores[i][texts[i].scorable], falls)
                metrics[i] |= {f"{name}_{operator}": value for name, value in values.items()}
        for name, column in self._further(batch, method, scores, predictions, described).items():
            for i, value in enumerate(column):
                metrics[i][name] = float(value)
        return [
            {
                "name": method.identity,
                "text": number,
                "metrics": _plain(metrics[i]),
                "curves": curves[i],
                "scores": [float(f"{value:.6g}") for value in scores[i]],
                "forwards": scored.forwards,
                "seconds": scored.seconds,
            }
            for i, number in enumerate(batch.numbers)
        ]

    def _further(
        self,
        batch: Batch,
        method: Method,
        scores: list[FloatArray],
        predictions: FloatArray,
        described: Sequence[Record],
    ) -> dict[str, FloatArray]:
        """Compute the metrics that settings or models ask for, each [texts]."""
        settings, texts = self.settings, batch.encoded
        labels = [int(label) for label in predictions.argmax(1)]
        seeds = [self._seed(number) for number in batch.numbers]
        columns: dict[str, FloatArray] = {}
        if settings.soft_samples:
            empty = np.array([record["empty"] for record in described])
            columns["soft_ns"], columns["soft_nc"] = soft.soft_erasure(
                self.classifier, texts, scores, predictions, empty, seeds, settings.soft_samples, settings.max_tokens
            )
        if settings.stability_samples:
            columns["infidelity"], columns["sensitivity_max"] = stability(
                method, self.classifier, texts, labels, samples=settings.stability_samples, seed=seeds[0]
            )
        if self.judge is not None:
            columns["encoding_gap"] = sanity.encoding_gap(self.classifier, self.judge, texts, scores, seed=seeds[0])
            # Where several labels may hold, the second likeliest is not wrong.
            if method.targeted and self.classifier.task != MULTI_LABEL:
                wrong = [int(label) for label in predictions.argsort(1)[:, -2]]
                against = score_texts(method, self.classifier, texts, wrong, seed=seeds[0]).scores
                columns["class_leak"] = sanity.class_leak(self.judge, texts, wrong, against, seed=seeds[0])
        return columns

    def _seed(self, number: int) -> int:
        return int(np.random.SeedSequence((self.settings.seed, number)).generate_state(1)[0])

    def _ties(self, number: int, encoded: Encoded) -> Any:
        """Return the order in which tokens of equal score come; the same for all methods."""
        return np.random.default_rng(self._seed(number)).permutation(len(encoded.tokens))


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    """Put None, which JSON knows, for NaN."""
    return {name: None if math.isnan(value) else float(value) for name, value in values.items()}
