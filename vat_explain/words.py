"""From text to words, independently of any tokenizer, and from a tokenizer's tokens to these words."""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

# Scripts written without spaces: each character is a word of its own until a token joins several.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_JOINERS = "\u200c\u200d"
_INNER_PUNCTUATION = "'\u2019-"


def _is_unspaced(character: str) -> bool:
    code = ord(character)
    return code >= 0x0E00 and any(low <= code <= high for low, high in _UNSPACED)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Split a text into words.

    A word is a run of letters, digits and their marks (apostrophes and hyphens inside it included), one character of
    a script written without spaces, or one other character that is not white space (marks and joiners that follow it
    included, so that composed emoji stay whole).

    Returns
    -------
    list of (int, int)
        Start and end of each word in characters.
    """
    spans: list[tuple[int, int]] = []
    run = False  # whether the last word is a run of letters that may grow
    for i, character in enumerate(text):
        if character.isspace():
            run = False
            continue
        category = unicodedata.category(character)
        touches = bool(spans) and spans[-1][1] == i
        letter = category[0] in "LN" and not _is_unspaced(character)
        inner = (
            run
            and character in _INNER_PUNCTUATION
            and i + 1 < len(text)
            and text[i + 1].isalnum()
            and not _is_unspaced(text[i + 1])
        )
        attached = (
            category[0] == "M"
            or character in _JOINERS
            or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
            or (i > 0 and text[i - 1] == "\u200d")
        )
        if touches and (attached or inner or (letter and run)):
            spans[-1] = (spans[-1][0], i + 1)
        else:
            spans.append((i, i + 1))
            run = letter
    return spans


def words_of_tokens(
    texts: tuple[str, str | None], spans: IntArray, segments: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Assign every token to a word; words that one token spans are joined, words without tokens left out.

    Parameters
    ----------
    texts : (str, str or None)
    spans : ndarray of int64, shape [tokens, 2]
        Start and end of each token in the characters of its text.
    segments : ndarray of int64, shape [tokens]
        Which of the two texts a token belongs to.

    Returns
    -------
    word_of_token : ndarray of int64, shape [tokens]
    spans : ndarray of int64, shape [words, 2]
    segments : ndarray of int64, shape [words]
    """
    word_of_token = np.zeros(len(spans), dtype=np.int64)
    all_spans: list[tuple[int, int]] = []
    all_segments: list[int] = []
    for segment, text in enumerate(texts):
        if text is None:
            continue
        words = word_spans(text)
        starts = np.array([start for start, _ in words], dtype=np.int64)
        members = np.flatnonzero(segments == segment)
        first = np.searchsorted(starts, spans[members, 0], side="right") - 1
        last = np.searchsorted(starts, np.maximum(spans[members, 1] - 1, spans[members, 0]), side="right") - 1
        first, last = np.maximum(first, 0), np.maximum(last, 0)
        joined = np.zeros(len(words) + 1, dtype=np.bool_)  # joined[w]: word w continues word w - 1
        for low, high in zip(first, last, strict=True):
            joined[low + 1 : high + 1] = True
        group = np.cumsum(~joined[: len(words)]) - 1
        used, inverse = np.unique(group[first], return_inverse=True)
        word_of_token[members] = len(all_spans) + inverse
        heads, tails = np.searchsorted(group, used), np.searchsorted(group, used, side="right") - 1
        all_spans.extend((words[head][0], words[tail][1]) for head, tail in zip(heads, tails, strict=True))
        all_segments.extend([segment] * len(used))
    return (
        word_of_token,
        np.array(all_spans, dtype=np.int64).reshape(-1, 2),
        np.array(all_segments, dtype=np.int64),
    )
