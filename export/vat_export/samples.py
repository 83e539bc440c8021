"""What an export is checked with, and its int8 form fitted to: random tokens, and texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vat_explain.base import Text
from vat_explain.corpus import generate
from vat_explain.explainer import VATExplainer
from vat_explain.text import Window, collate
from vat_export.spec import Spec

SHAPES = ((1, 4), (1, 33), (8, 7), (3, 64), (8, 128))
"""Rows and tokens of random batches; those of the longest row that the model takes, at most `LONGEST`, follow."""

LONGEST = 512
_ROWS = 8

Batch = dict[str, NDArray[Any]]
"""Inputs of a graph, and which tokens are scored, each [batch, tokens]."""


def sample_texts(explainer: VATExplainer, texts: Sequence[Text]) -> list[Window]:
    """Return windows of messages and pairs of messages from the built-in corpus, and of the texts.

    Raises
    ------
    InputError
        If one of the texts cannot be explained.
    """
    messages = [example.text for example in generate(seed=0, size=48)]
    pairs = list(zip(messages[:8], messages[8:16], strict=True))
    encoded = [*explainer.encode([*messages, *pairs]), *(explainer.encode(texts) if texts else ())]
    return [window for text in encoded for window in text.windows]


def random_batches(spec: Spec, shapes: Iterable[tuple[int, int]] = SHAPES) -> Iterator[Batch]:
    """Yield batches of random tokens, each row a little shorter than the one before, special tokens at both ends."""
    generator = np.random.default_rng(0)
    special = spec.special
    fixed = sorted(special.fixed - {special.pad}) or [special.pad]
    free = np.setdiff1d(np.arange(spec.vocabulary_size), sorted(special.fixed))
    longest = min(spec.max_length, LONGEST)
    for rows, most in (*shapes, (1, longest), (3, longest)):
        tokens = min(most, longest)
        ids = generator.choice(free, size=(rows, tokens))
        lengths = np.maximum(tokens - 2 * np.arange(rows), min(tokens, 3))
        ids[:, 0] = fixed[0]
        ids[np.arange(rows), lengths - 1] = fixed[-1]
        mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
        types = mask * (np.arange(tokens) > tokens // 2) * ("token_type_ids" in spec.inputs)
        ids[mask == 0] = special.pad
        scorable = (mask == 1) & ~np.isin(ids, sorted(special.fixed))
        yield {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "scorable": scorable}


def text_batches(spec: Spec, samples: Sequence[Window]) -> Iterator[Batch]:
    """Yield batches of windows, in their order."""
    for start in range(0, len(samples), _ROWS):
        yield collate(samples[start : start + _ROWS], spec.special.pad)
