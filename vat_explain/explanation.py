"""The record that every door of vat-explain hands out: a prediction and what each token and word did for it.

Standard library and NumPy only, so that the parts that run without torch share it.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vat_explain.errors import InputError, InputTypeError, TargetError
from vat_explain.records import from_plain, to_plain

SCHEMA_VERSION = 1
"""Version of the JSON form; raised when a reader of the old form could misread the new one."""

Task = Literal["single_label", "multi_label"]
ScoreUnit = Literal["share", "probability", "score"]
Granularity = Literal["words", "tokens"]


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A token or a word with its place in the text and its score.

    Attributes
    ----------
    text : str
        For a word, the characters from `start` to `end`; for a token, its spelling in the vocabulary ("##ing").
    start, end : int
        Offsets in characters (code points, not bytes) of its own text; `end` is exclusive.
    segment : int
        0 for the text, 1 for the second text of a pair.
    score : float
        In the unit that `Explanation.unit` names; finite.

    Raises
    ------
    InputError
        If the offsets are negative or reversed, the segment is not 0 or 1, or the score is NaN or infinite.
    """

    text: str
    start: int
    end: int
    segment: int
    score: float

    def __post_init__(self) -> None:
        _check_string(self.text, "span text")
        for name in ("start", "end", "segment"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        object.__setattr__(self, "score", _finite(self.score, f"score of {self.text!r}"))
        if not 0 <= self.start <= self.end:
            raise InputError(
                f"span {self.text!r} runs from {self.start} to {self.end}; offsets count up from 0, start before end"
            )
        if self.segment not in (0, 1):
            raise InputError(f"span {self.text!r} has segment {self.segment}; 0 is the text, 1 the second of a pair")


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One text, what the model predicted for it, and the score of every token and word.

    Attributes
    ----------
    text, text_pair : str, str or None
        What was explained.
    label : str
        The label with the highest probability.
    predicted : tuple of str
        The labels that hold: `label` alone, or for a multi-label model all with probability 0.5 or more, which may
        be none.
    scores : dict of str to float
        Probability of every label of the model.
    task : {"single_label", "multi_label"}
        Whether the probabilities come from a softmax over labels or from a sigmoid for each.
    target : str or None
        The label that the scores speak about; None where they are class-free, ranking the tokens by what they do for
        the likeliest class.
    method : str
        Name of the attribution method.
    unit : {"share", "probability", "score"}
        What a score counts: a share of the whole, which is 1; a signed part of the target's probability; or the
        method's own, signed.
    tokens, words : tuple of ScoredSpan
        In the order of the text, then of the pair; special tokens are not among them. Words do not overlap.
    tokens_to_words : tuple of int
        For every token, the number of its word in `words`. The score of a word is the sum over its tokens.
    class_scores : dict of str to tuple of float, optional
        For a label, the signed scores of all tokens, aligned with `tokens`, in parts of that label's probability.
    reference : dict of str to float, optional
        Prediction on the fully masked text, to which `class_scores` add up to give `scores`.
    windows : int
        Number of windows that the text was read in.
    truncated : bool
        Whether text was left unread; only where the caller asked for it.
    id : str, optional
        The caller's name for the text.
    provenance : dict of str to str
        Where the explanation comes from: model, bundle, versions.

    Raises
    ------
    InputError
        If a score or probability is NaN, infinite or out of range, a span lies outside its text, lengths disagree,
        or a label is unknown.
    """

    text: str
    text_pair: str | None = None
    label: str
    predicted: tuple[str, ...]
    scores: dict[str, float]
    task: Task
    target: str | None
    method: str
    unit: ScoreUnit
    tokens: tuple[ScoredSpan, ...]
    words: tuple[ScoredSpan, ...]
    tokens_to_words: tuple[int, ...]
    class_scores: dict[str, tuple[float, ...]] | None = None
    reference: dict[str, float] | None = None
    windows: int = 1
    truncated: bool = False
    id: str | None = None
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._normalise()
        for name, value in (("text", self.text), ("text_pair", self.text_pair), ("id", self.id)):
            if value is not None or name == "text":
                _check_string(value, name)
        for name, value, allowed in (("task", self.task, Task), ("unit", self.unit, ScoreUnit)):
            if value not in get_args(allowed):
                raise InputError(f"{name} is {value!r}; it must be one of {', '.join(get_args(allowed))}")
        self._check_labels()
        self._check_spans()
        if self.windows < 1:
            raise InputError(f"windows is {self.windows}; a text is read in at least one")

    def _normalise(self) -> None:
        """Turn lists into tuples and NumPy scalars into Python numbers, so that the record compares and serialises."""
        plain: dict[str, Any] = {
            "predicted": tuple(self.predicted),
            "scores": _finite_map(self.scores, "scores"),
            "tokens": tuple(self.tokens),
            "words": tuple(self.words),
            "tokens_to_words": tuple(map(operator.index, self.tokens_to_words)),
            "windows": operator.index(self.windows),
            "truncated": bool(self.truncated),
            "provenance": dict(self.provenance),
        }
        if self.class_scores is not None:
            plain["class_scores"] = {
                label: tuple(_finite(value, f"class_scores[{label!r}][{i}]") for i, value in enumerate(values))
                for label, values in self.class_scores.items()
            }
        if self.reference is not None:
            plain["reference"] = _finite_map(self.reference, "reference")
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def _check_labels(self) -> None:
        for label, probability in self.scores.items():
            _check_string(label, "a label in scores")
            if not 0 <= probability <= 1:
                raise InputError(f"scores[{label!r}] is {probability}; a probability lies between 0 and 1")
        named: dict[str, Iterable[str]] = {
            "label": [self.label],
            "predicted": self.predicted,
            "target": [] if self.target is None else [self.target],
            "class_scores": self.class_scores or (),
            "reference": self.reference or (),
        }
        for name, labels in named.items():
            for label in labels:
                if label not in self.scores:
                    raise InputError(f"{name} names {label!r}, which is not in scores; known are {_some(self.scores)}")
        for label, values in (self.class_scores or {}).items():
            if len(values) != len(self.tokens):
                raise InputError(
                    f"class_scores[{label!r}] has {len(values)} values for {len(self.tokens)} tokens; give one for each"
                )
        for key, entry in {"method": self.method, **self.provenance}.items():
            _check_string(key, "a key in provenance")
            _check_string(entry, f"provenance[{key!r}]" if key in self.provenance else key)

    def _check_spans(self) -> None:
        texts = (self.text, self.text_pair)
        for name in get_args(Granularity):
            for i, span in enumerate(self.spans(name)):
                source = texts[span.segment]
                if source is None:
                    raise InputError(f"{name}[{i}] has segment 1, but there is no text_pair; use 0")
                if span.end > len(source):
                    raise InputError(
                        f"{name}[{i}] ends at {span.end}, after the {len(source)} characters of its text; "
                        "offsets count characters, not bytes"
                    )
                if self.unit == "share" and span.score < 0:
                    raise InputError(f"{name}[{i}] has score {span.score}; a share is not negative, use another unit")
        reached = (0, 0)
        for i, word in enumerate(self.words):
            if (word.segment, word.start) < reached:
                raise InputError(f"words[{i}] starts before the word ahead of it ends; put words in the text's order")
            reached = (word.segment, word.end)
            if word.text != (self.text if word.segment == 0 else self.text_pair or "")[word.start : word.end]:
                raise InputError(
                    f"words[{i}] is {word.text!r}, but the text reads otherwise from {word.start} to {word.end}"
                )
        if len(self.tokens_to_words) != len(self.tokens):
            raise InputError(
                f"tokens_to_words has {len(self.tokens_to_words)} values for {len(self.tokens)} tokens; "
                "give the number of a word for each"
            )
        for i, number in enumerate(self.tokens_to_words):
            if not 0 <= number < len(self.words):
                raise InputError(f"tokens_to_words[{i}] is {number}, but there are {len(self.words)} words")

    def spans(self, unit: Granularity) -> tuple[ScoredSpan, ...]:
        """Return `words` or `tokens`.

        Raises
        ------
        InputError
            If `unit` is neither.
        """
        if unit not in get_args(Granularity):
            raise InputError(f"unit is {unit!r}; pass one of {', '.join(get_args(Granularity))}")
        return self.words if unit == "words" else self.tokens

    def top(self, k: int, unit: Granularity = "words") -> tuple[ScoredSpan, ...]:
        """Return the `k` words or tokens of largest absolute score, largest first; at equal scores the earlier first.

        Raises
        ------
        InputError
            If `k` is below 1 or `unit` is unknown.
        """
        if k < 1:
            raise InputError(f"k is {k}; ask for at least 1")
        return tuple(sorted(self.spans(unit), key=lambda span: -abs(span.score))[:k])

    def display_scores(self, unit: Granularity = "words") -> NDArray[np.float64]:
        """Return the scores divided by the largest absolute one, for colours.

        Returns
        -------
        ndarray of float64, shape [words] or [tokens]
            In [-1, 1]; all 0 where every score is 0.
        """
        return scale_to_unit([span.score for span in self.spans(unit)])

    def word_class_scores(self, label: str) -> tuple[float, ...]:
        """Return the signed scores of all words for one label: the sums over each word's tokens.

        Raises
        ------
        TargetError
            If there are no class scores for `label`.
        """
        if self.class_scores is None or label not in self.class_scores:
            known = _some(self.class_scores) if self.class_scores else "none"
            raise TargetError(f"there are no class scores for {label!r}; this explanation has them for: {known}")
        sums = [0.0] * len(self.words)
        for word, score in zip(self.tokens_to_words, self.class_scores[label], strict=True):
            sums[word] += score
        return tuple(sums)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as dicts, lists, strings and numbers, as `json_schema` describes it."""
        return {"schema_version": SCHEMA_VERSION, **to_plain(self)}

    def to_json(self, indent: int | None = None) -> str:
        """Return the record as one JSON document; characters outside ASCII stay as they are."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=indent)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Explanation:
        """Read what `to_dict` returned, or the parsed JSON of `to_json`.

        Raises
        ------
        InputError
            If a field is missing, unknown, of the wrong type or value, or the schema version is another one.
        """
        content = dict(values) if isinstance(values, Mapping) else values
        if isinstance(content, dict) and (version := content.pop("schema_version", None)) != SCHEMA_VERSION:
            raise InputError(
                f"explanation has schema_version {version!r}, this vat-explain reads {SCHEMA_VERSION}; "
                "write it again, or read it with the version of vat-explain that wrote it"
            )
        explanation: Explanation = from_plain(content, cls, "explanation")
        return explanation


def scale_to_unit(scores: Sequence[float]) -> NDArray[np.float64]:
    """Divide scores, shape [n], by the largest absolute one; all 0 where every score is 0."""
    values = np.asarray(scores, dtype=np.float64)
    largest = np.abs(values).max(initial=0.0)
    return values / largest if largest > 0 else np.zeros_like(values)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `Explanation.to_dict`."""
    path = resources.files("vat_explain") / "schemas" / "explanation.schema.json"
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def _check_string(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise InputTypeError(f"{name} must be a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} holds a lone surrogate at offset {error.start}; decode it properly") from None


def _finite(value: float, name: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # an int beyond the range of floats
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{name} is {number}; scores must be finite numbers")
    return number


def _finite_map(values: Mapping[str, float], name: str) -> dict[str, float]:
    return {label: _finite(value, f"{name}[{label!r}]") for label, value in values.items()}


def _some(labels: Mapping[str, object]) -> str:
    """Name the labels, not more than ten of them."""
    names = [repr(label) for label in labels]
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
