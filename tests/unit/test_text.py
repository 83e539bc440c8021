"""Offsets, words, windows and batches, on ordinary and on odd texts."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests import tiny
from vat_explain.errors import InputError, InputTypeError
from vat_explain.text import MAX_CHARACTERS, SpecialTokens, TextEncoder, collate, token_budget_batches
from vat_explain.words import word_spans

SPECIAL = SpecialTokens.from_tokenizer(tiny.tokenizer())


def encoder(max_length: int = 64, overlap: int = 4) -> TextEncoder:
    return TextEncoder(tiny.tokenizer().backend_tokenizer, SPECIAL, max_length, overlap)


def byte_level_encoder() -> TextEncoder:
    """Every byte a token, as RoBERTa's vocabulary falls back to: tokens that are parts of characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *alphabet])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    return TextEncoder(backend, SPECIAL, 64, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The well-known don't.", ["The", "well-known", "don't", "."]),
        ("3.5 stars!!", ["3", ".", "5", "stars", "!", "!"]),
        ("很好吃 ok", ["很", "好", "吃", "ok"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("family 👨\u200d👩\u200d👧 👍🏽x", ["family", "👨\u200d👩\u200d👧", "👍🏽", "x"]),
        ("cafe\u0301 'quoted'", ["cafe\u0301", "'", "quoted", "'"]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("a\u00a0b\tc\n", ["a", "b", "c"]),
    ],
)
def test_words(text, words):
    assert [text[start:end] for start, end in word_spans(text)] == words


@given(st.text(max_size=60))
def test_words_cover_all_but_white_space_once(text):
    spans = word_spans(text)
    covered = [i for start, end in spans for i in range(start, end)]
    assert covered == sorted(set(covered))
    assert set(range(len(text))) - set(covered) == {i for i, c in enumerate(text) if c.isspace()}


def test_pairs_of_two_long_texts_are_refused_before_their_windows_are_made():
    long = "good film " * 3000
    short = encoder().encode(long, "bad")
    assert len(short.windows) > 1
    with pytest.raises(InputError, match=r"read in [0-9,]+ windows.*shorten one"):
        encoder().encode(long, long)


@pytest.mark.parametrize("make", [encoder, byte_level_encoder])
@settings(max_examples=150)
@given(text=st.text(max_size=80), pair=st.none() | st.text(max_size=80))
def test_any_text_is_encoded_or_refused_in_words(make, text, pair):
    with contextlib.suppress(InputError):  # what the refusals say is checked below
        check_encoded(make().encode(text, pair), text, pair)


def check_encoded(encoded, text, pair):
    texts = (encoded.text, encoded.text_pair)
    assert texts == (text, pair)
    assert len(encoded.tokens) == len(encoded.spans) == len(encoded.segments) == len(encoded.words)
    for (start, end), segment in zip(encoded.spans, encoded.segments, strict=True):
        assert 0 <= start <= end <= len(texts[segment])
    numbers = encoded.words
    assert sorted(set(numbers)) == list(range(len(encoded.word_spans)))
    for (start, end), segment in zip(encoded.word_spans, encoded.word_segments, strict=True):
        assert texts[segment][start:end].strip() == texts[segment][start:end] != ""
    ends = -1
    for (start, end), segment in zip(encoded.word_spans, encoded.word_segments, strict=True):
        offset = segment * 1_000
        assert start + offset >= ends
        ends = end + offset
    for token, (start, end) in enumerate(encoded.spans):
        if texts[encoded.segments[token]][start:end].strip():
            low, high = encoded.word_spans[numbers[token]]
            assert encoded.word_segments[numbers[token]] == encoded.segments[token]
            assert low <= start < end <= high
    seen = np.concatenate([window.position for window in encoded.windows])
    assert set(seen) - {-1} == set(range(len(encoded.tokens))) or len(encoded.windows) > 1


def test_offsets_leave_out_the_space_that_byte_level_tokens_carry():
    encoded = byte_level_encoder().encode("ab é")
    assert encoded.spans.tolist() == [[0, 0], [0, 1], [1, 2], [3, 3], [3, 4], [3, 4]]
    assert [encoded.text[a:b] for a, b in encoded.word_spans] == ["ab", "é"]


@pytest.mark.parametrize(("first", "second"), [(200, None), (200, 5), (5, 200), (90, 110), (61, None), (63, None)])
def test_windows_cover_long_texts_completely(first, second):
    words = "the plot was good bad never funny"
    text = " ".join((words.split() * 40)[:first])
    pair = " ".join((words.split() * 40)[:second]) if second else None
    encoded = encoder(64, 8).encode(text, pair)
    assert all(len(window) <= 64 for window in encoded.windows)
    seen = np.unique(np.concatenate([window.position for window in encoded.windows]))
    assert seen.tolist() == [-1, *range(len(encoded.tokens))]
    for window in encoded.windows:
        assert window.ids[0] == 2
        assert window.ids[-1] == 3
        content = window.position[window.position >= 0]
        assert (np.diff(content) > 0).all()
        if pair:
            assert {0, 1} == set(encoded.segments[content])
            assert window.type_ids[window.position >= 0].tolist() == encoded.segments[content].tolist()
    if second is None:
        for a, b in zip(encoded.windows, encoded.windows[1:], strict=False):
            assert len(np.intersect1d(a.position, b.position)) >= 1 + 8


def test_what_cannot_be_encoded_is_refused_in_words():
    e = encoder()
    for text in ("", "  \n\t", "\u200b\u0007"):
        with pytest.raises(InputError, match=r"empty or only white space|nothing to score"):
            e.encode(text)
    with pytest.raises(InputError, match="nothing to score"):
        e.encode("[CLS] [SEP]")
    with pytest.raises(InputError, match="lone surrogate"):
        e.encode("half \ud800 a character")
    with pytest.raises(InputError, match="text_pair is empty"):
        e.encode("good", " ")
    with pytest.raises(InputTypeError, match="NoneType"):
        e.encode(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="split it"):
        e.encode("a" * (MAX_CHARACTERS + 1))
    with pytest.raises(InputError, match="no room"):
        encoder(2).encode("good film")


def test_a_very_long_text_is_encoded_whole():
    encoded = encoder(512, 64).encode("a good film " * 8_334)
    assert len(encoded.text) > 100_000
    assert len(encoded.tokens) == 25_002
    assert len(encoded.windows) > 50


def test_special_token_spelled_in_the_text_is_not_scored():
    encoded = encoder().encode("good [SEP] film")
    window = encoded.windows[0]
    assert window.scorable.tolist() == [False, True, False, True, False]
    assert window.position.tolist() == [-1, 0, 1, 2, -1]


def test_collate_pads_on_the_right():
    e = encoder()
    windows = [e.encode("good").windows[0], e.encode("a good film", "bad").windows[0]]
    batch = collate(windows, SPECIAL.pad)
    assert batch["input_ids"].shape == (2, 7)
    assert batch["attention_mask"].sum(1).tolist() == [3, 7]
    assert batch["input_ids"][0, 3:].tolist() == [0] * 4
    assert batch["token_type_ids"][1].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert batch["scorable"].sum(1).tolist() == [1, 4]


@given(st.lists(st.integers(1, 300), max_size=50), st.integers(1, 1000), st.integers(1, 8))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget, rows):
    batches = token_budget_batches(lengths, budget, rows)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * max(lengths[r] for r in batch) <= budget
