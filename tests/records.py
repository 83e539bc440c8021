"""Explanations made by hand, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from vat_explain.explanation import Explanation, ScoredSpan
from vat_explain.words import word_spans

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
"""Any text that can be encoded, control characters and all scripts included."""

SCORES = st.floats(-1e300, 1e300, allow_nan=False, allow_infinity=False)


def make(text: str, word_scores: Sequence[float] | None = None, **fields: Any) -> Explanation:
    """Explain a text by scores for its words, the pair's words after the text's; each word is one token."""
    pair = fields.get("text_pair")
    places = [(text, 0, *span) for span in word_spans(text)]
    places += [(pair, 1, *span) for span in word_spans(pair or "")]
    if word_scores is None:
        word_scores = [1 / max(len(places), 1)] * len(places)
    words = tuple(
        ScoredSpan(source[start:end], start, end, segment, score)
        for (source, segment, start, end), score in zip(places, word_scores, strict=True)
    )
    signed = any(word.score < 0 for word in words)
    defaults: dict[str, Any] = {
        "label": "good",
        "predicted": ("good",),
        "scores": {"good": 0.75, "bad": 0.25},
        "task": "single_label",
        "target": "good" if signed else None,
        "method": "vat",
        "unit": "probability" if signed else "share",
        "tokens": words,
        "words": words,
        "tokens_to_words": tuple(range(len(words))),
    }
    return Explanation(text=text, **(defaults | fields))


@st.composite
def explanations(draw: st.DrawFn) -> Explanation:
    """Draw an explanation of any text, with words cut into tokens at any place."""
    text, pair = draw(TEXTS), draw(st.none() | TEXTS)
    words, tokens, owners = [], [], []
    for segment, source in enumerate([text] if pair is None else [text, pair]):
        for start, end in word_spans(source):
            cut = draw(st.integers(start, end))
            for low, high in ((start, cut), (cut, end)):
                tokens.append(ScoredSpan(draw(TEXTS), low, high, segment, draw(SCORES)))
                owners.append(len(words))
            words.append(ScoredSpan(source[start:end], start, end, segment, draw(SCORES)))
    probabilities = draw(st.dictionaries(TEXTS, st.floats(0, 1), min_size=1, max_size=3))
    labels = st.sampled_from(sorted(probabilities))
    per_token = st.lists(SCORES, min_size=len(tokens), max_size=len(tokens)).map(tuple)
    return Explanation(
        text=text,
        text_pair=pair,
        label=draw(labels),
        predicted=tuple(draw(st.lists(labels, max_size=3, unique=True))),
        scores=probabilities,
        task=draw(st.sampled_from(["single_label", "multi_label"])),
        target=draw(st.none() | labels),
        method=draw(TEXTS),
        unit=draw(st.sampled_from(["probability", "score"])),
        tokens=tuple(tokens),
        words=tuple(words),
        tokens_to_words=tuple(owners),
        class_scores=draw(st.none() | st.dictionaries(labels, per_token)),
        reference=draw(st.none() | st.dictionaries(labels, SCORES)),
        windows=draw(st.integers(1, 9)),
        truncated=draw(st.booleans()),
        id=draw(st.none() | TEXTS),
        provenance=draw(st.dictionaries(TEXTS, TEXTS, max_size=2)),
    )
