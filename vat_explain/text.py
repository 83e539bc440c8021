"""From text to windows of token ids with character offsets.

Everything here works on ``tokenizers.Tokenizer`` and NumPy, so that the part that explains with ONNX Runtime reads
texts exactly as the part that explains with torch does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from vat_explain.errors import InputError, InputTypeError, ModelError
from vat_explain.words import IntArray, words_of_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BoolArray = NDArray[np.bool_]

MAX_CHARACTERS = 1_000_000
"""Longest text, in characters, that is tokenised at all; longer ones are refused."""

MAX_PAIR_WINDOWS = 1024
"""Most windows of a pair, whose number grows with the product of the lengths of its texts."""


@dataclass(frozen=True)
class SpecialTokens:
    """The token ids that are never scored, masked or removed, and the two that replace others.

    Attributes
    ----------
    mask : int or None
        Id of the mask token, the replacement for a token taken away; None where the vocabulary has none.
    pad : int
        Id that fills rows up to the longest of a batch.
    fixed : frozenset of int
        Ids of the classification, separator, begin, end and padding tokens.
    """

    mask: int | None
    pad: int
    fixed: frozenset[int]

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
        """Read the ids off a HuggingFace tokenizer.

        Raises
        ------
        ModelError
            If the tokenizer has no padding token.
        """
        if tokenizer.pad_token_id is None:
            raise ModelError(
                "the tokenizer has no padding token, so texts of different lengths cannot share a batch; "
                "set one, e.g. tokenizer.pad_token = tokenizer.eos_token"
            )
        names = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
        ids = (getattr(tokenizer, name) for name in names)
        return cls(tokenizer.mask_token_id, tokenizer.pad_token_id, frozenset(i for i in ids if i is not None))

    def to_dict(self) -> dict[str, Any]:
        """Return the ids as JSON-able values."""
        return {"mask": self.mask, "pad": self.pad, "fixed": sorted(self.fixed)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SpecialTokens:
        """Read what `to_dict` returned."""
        return cls(values["mask"], values["pad"], frozenset(values["fixed"]))


@dataclass(frozen=True)
class Window:
    """One row for the model: special tokens around a stretch of the text.

    Attributes
    ----------
    ids, type_ids : ndarray of int64, shape [tokens]
        Token ids and segment ids.
    scorable : ndarray of bool, shape [tokens]
        True where a token belongs to the text, False at special tokens.
    position : ndarray of int64, shape [tokens]
        Number of the token in its `Encoded.tokens`; -1 at special tokens.
    """

    ids: IntArray
    type_ids: IntArray
    scorable: BoolArray
    position: IntArray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Encoded:
    """A text, or a pair of texts, as tokens with character offsets, cut into windows.

    Attributes
    ----------
    text, text_pair : str, str or None
        What was encoded.
    tokens : tuple of str
        The tokens of text and pair, special tokens left out, as the vocabulary spells them.
    spans : ndarray of int64, shape [tokens, 2]
        Start and end of each token, in characters of its own text, white space at the edges left out.
    segments : ndarray of int64, shape [tokens]
        0 for tokens of the text, 1 for tokens of the pair.
    windows : tuple of Window
        One window where the text fits the model, otherwise overlapping ones that cover all of it.
    """

    text: str
    text_pair: str | None
    tokens: tuple[str, ...]
    spans: IntArray
    segments: IntArray
    windows: tuple[Window, ...]

    @cached_property
    def _word_table(self) -> tuple[IntArray, IntArray, IntArray]:
        return words_of_tokens((self.text, self.text_pair), self.spans, self.segments)

    @cached_property
    def scorable(self) -> NDArray[np.bool_]:
        """Which tokens can be scored and taken away, shape [tokens]: not special tokens that the text spells out."""
        scorable = np.zeros(len(self.tokens), dtype=np.bool_)
        for window in self.windows:
            scorable[window.position[window.scorable]] = True
        return scorable

    @property
    def words(self) -> IntArray:
        """Number of the word that each token belongs to, shape [tokens], counted from 0 without gaps."""
        return self._word_table[0]

    @property
    def word_spans(self) -> IntArray:
        """Start and end of each word, in characters of its own text, shape [words, 2]."""
        return self._word_table[1]

    @property
    def word_segments(self) -> IntArray:
        """0 for words of the text, 1 for words of the pair, shape [words]."""
        return self._word_table[2]


class TextEncoder:
    """Turn texts into `Encoded` records: tokens, character offsets and windows.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer; a private copy is used, with truncation and padding switched off.
    special : SpecialTokens
        Ids that are never scored.
    max_length : int
        Longest row, in tokens with the special ones, that the model takes.
    overlap : int, default 64
        Tokens that neighbouring windows share, at most a quarter of a window.
    """

    def __init__(self, tokenizer: Tokenizer, special: SpecialTokens, max_length: int, overlap: int = 64) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._fixed = np.array(sorted(special.fixed), dtype=np.int64)
        self.special = special
        self.max_length = max_length
        self.overlap = overlap

    def digest(self) -> str:
        """Return the SHA-256 of all that decides how texts are read: tokenizer, special tokens, windows."""
        content = [self._tokenizer.to_str(), self.special.to_dict(), self.max_length, self.overlap]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def encode(self, text: str, text_pair: str | None = None) -> Encoded:
        """Encode one text or one pair.

        Raises
        ------
        InputTypeError
            If a text is not a string.
        InputError
            If a text is empty or only white space, holds a lone surrogate, is longer than `MAX_CHARACTERS`, or
            consists of nothing that the tokenizer turns into tokens to score, or a pair has more than
            `MAX_PAIR_WINDOWS` windows.
        """
        for name, value in (("text", text), ("text_pair", text_pair)):
            if value is not None or name == "text":
                _check_text(name, value)
        encoding = self._tokenizer.encode(text, text_pair)
        return self._cut(text, text_pair, encoding)

    def _cut(self, text: str, text_pair: str | None, encoding: Encoding) -> Encoded:
        ids = np.array(encoding.ids, dtype=np.int64)
        type_ids = np.array(encoding.type_ids, dtype=np.int64)
        segment = np.array([-1 if s is None else s for s in encoding.sequence_ids], dtype=np.int64)
        scorable = (segment >= 0) & ~np.isin(ids, self._fixed)
        for number, name in enumerate(("text", "text_pair")[: 1 if text_pair is None else 2]):
            if not scorable[segment == number].any():
                raise InputError(
                    f"{name} holds nothing to score: the tokenizer turns it into special tokens or nothing at all; "
                    "pass a text with words in it"
                )
        content = np.flatnonzero(segment >= 0)
        tokens, offsets = encoding.tokens, encoding.offsets  # each access copies the whole list
        texts = (text, text_pair or "")
        spans = [_trim(texts[segment[i]], *offsets[i]) for i in content]
        position = np.full(len(ids), -1, dtype=np.int64)
        position[content] = np.arange(len(content))
        windows = tuple(
            Window(ids[rows], type_ids[rows], scorable[rows], position[rows])
            for rows in self._rows(segment, paired=text_pair is not None)
        )
        return Encoded(
            text,
            text_pair,
            tuple(tokens[i] for i in content),
            np.array(spans, dtype=np.int64).reshape(-1, 2),
            segment[content],
            tuple(window for window in windows if window.scorable.any()),
        )

    def _rows(self, segment: IntArray, *, paired: bool) -> Iterable[IntArray]:
        """Yield, for each window, the positions of its tokens in the full encoding."""
        if len(segment) <= self.max_length:
            yield np.arange(len(segment))
            return
        room = self.max_length - int((segment < 0).sum())
        first, second = np.flatnonzero(segment == 0), np.flatnonzero(segment == 1)
        if room < (2 if paired else 1):
            raise InputError(
                f"the model takes {self.max_length} tokens a row, which leaves no room beside the special tokens; "
                "use a model or a max_length with more room"
            )
        # The shorter text of a pair stays whole in every window unless it takes more than half of the room.
        room_first = max(room - len(second), room - room // 2) if paired else room
        room_first = min(room_first, len(first))
        room_second = room - room_first
        special = np.flatnonzero(segment < 0)
        parts_first = _stretches(first, room_first, self.overlap)
        parts_second = _stretches(second, room_second, self.overlap)
        if paired and len(parts_first) * len(parts_second) > MAX_PAIR_WINDOWS:
            raise InputError(
                f"the pair would be read in {len(parts_first) * len(parts_second):,} windows, each stretch of one text "
                f"with each of the other, and {MAX_PAIR_WINDOWS:,} is the most; shorten one of the texts"
            )
        for part_first in parts_first:
            for part_second in parts_second:
                yield np.sort(np.concatenate([special, part_first, part_second]))


def collate(windows: Sequence[Window], pad_id: int) -> dict[str, NDArray[Any]]:
    """Pad windows on the right to the longest and stack them.

    Returns
    -------
    dict of ndarray, shape [windows, tokens]
        ``input_ids``, ``attention_mask`` and ``token_type_ids`` (int64) and ``scorable`` (bool).
    """
    shape = (len(windows), max(len(window) for window in windows))
    batch: dict[str, NDArray[Any]] = {
        "input_ids": np.full(shape, pad_id, dtype=np.int64),
        "attention_mask": np.zeros(shape, dtype=np.int64),
        "token_type_ids": np.zeros(shape, dtype=np.int64),
        "scorable": np.zeros(shape, dtype=np.bool_),
    }
    for row, window in enumerate(windows):
        n = len(window)
        batch["input_ids"][row, :n] = window.ids
        batch["attention_mask"][row, :n] = 1
        batch["token_type_ids"][row, :n] = window.type_ids
        batch["scorable"][row, :n] = window.scorable
    return batch


def token_budget_batches(lengths: Sequence[int], max_tokens: int, max_rows: int | None = None) -> list[list[int]]:
    """Group rows of similar length so that rows times longest stays within a budget.

    Parameters
    ----------
    lengths : sequence of int
        Tokens in each row.
    max_tokens : int
        Most cells, padding counted, in one batch; a longer row gets a batch of its own.
    max_rows : int, optional
        Most rows in one batch.

    Returns
    -------
    list of list of int
        Row numbers; every row once, shortest batches first.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda r: lengths[r]):
        last = batches[-1] if batches else None
        if last is None or (len(last) + 1) * lengths[row] > max_tokens or len(last) == max_rows:
            batches.append([row])
        else:
            last.append(row)
    return batches


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InputTypeError(f"{name} must be a string, got {type(value).__name__}; pass one text as str")
    if not value.strip():
        raise InputError(f"{name} is empty or only white space; pass a text with words in it")
    if len(value) > MAX_CHARACTERS:
        raise InputError(f"{name} has {len(value):,} characters, more than {MAX_CHARACTERS:,}; split it into parts")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds a lone surrogate (half of a character) at offset {error.start}; decode it properly, "
            "for example with errors='replace'"
        ) from None


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Leave out white space at the edges of a span, unless it is all that the span holds."""
    piece = text[start:end]
    if piece.isspace() or not piece:
        return start, end
    return end - len(piece.lstrip()), start + len(piece.rstrip())


def _stretches(positions: IntArray, room: int, overlap: int) -> list[IntArray]:
    """Cut positions into overlapping stretches of at most `room`, the last one ending at the end."""
    if len(positions) <= room:
        return [positions]
    step = room - min(overlap, room // 4)
    starts = [*range(0, len(positions) - room, step), len(positions) - room]
    return [positions[start : start + room] for start in starts]
