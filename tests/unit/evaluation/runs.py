"""Short evaluations of random texts."""

from __future__ import annotations

import json

import numpy as np

from tests import tiny
from vat_explain.data import Example
from vat_explain.evaluation import Settings, evaluate

FAST = Settings(operators=("mask",), search_budget=60, soft_samples=1)


def examples(count, seed=0, **keywords):
    draw = np.random.default_rng(seed)
    return [
        Example(" ".join(draw.choice(tiny.WORDS, draw.integers(2, 12))), None, (0,), row + 1, **keywords)
        for row in range(count)
    ]


def run(bert, texts, methods=("random", "leave-one-out"), settings=FAST, **keywords):
    model, encoder = bert
    return evaluate(model, texts, encoder=encoder, methods=methods, settings=settings, quiet=True, **keywords)


def without_times(result):
    found = result.to_dict()
    for scores in found["methods"].values():
        del scores["seconds_per_text"]
    return json.dumps(found)
