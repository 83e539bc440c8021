"""Merging of windows and building of explanations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from vat_explain.assemble import (
    TEMPERATURE,
    Origin,
    WindowScores,
    assemble,
    joint_shares,
    merge_windows,
    resolve_target,
)
from vat_explain.errors import TargetError
from vat_explain.text import SpecialTokens, TextEncoder

LABELS = ("bad", "good")


def encoder(max_length: int = 12) -> TextEncoder:
    special = SpecialTokens.from_tokenizer(tiny.tokenizer())
    return TextEncoder(tiny.tokenizer().backend_tokenizer, special, max_length, 4)


def origin(unit: str = "share", task: str = "single_label") -> Origin:
    return Origin(LABELS, task, "vat", unit, (0.5, 0.5), {"bundle": "x"})  # type: ignore[arg-type]


def random_windows(encoded, seed=0):
    generator = np.random.default_rng(seed)
    windows = []
    for window in encoded.windows:
        raw = generator.random(len(window)) * window.scorable
        p = generator.dirichlet([1, 1])
        parts = generator.normal(size=(len(window), 2)) * window.scorable[:, None]
        parts += window.scorable[:, None] * (p - 0.5 - parts.sum(0)) / window.scorable.sum()
        windows.append(WindowScores(p, raw / raw.sum(), parts))
    return windows


@given(st.integers(1, 60), st.integers(0, 99))
def test_shares_sum_to_one_and_parts_to_the_mean_prediction(length, seed):
    encoded = encoder().encode(" ".join(tiny.WORDS[i % 30] for i in range(length)))
    windows = random_windows(encoded, seed)
    explanation = assemble(encoded, windows, origin())
    assert sum(t.score for t in explanation.tokens) == pytest.approx(1)
    assert sum(w.score for w in explanation.words) == pytest.approx(1)
    for c, label in enumerate(LABELS):
        signed = assemble(encoded, windows, origin(), target=c)
        assert signed.unit == "probability"
        assert signed.target == label
        total = sum(t.score for t in signed.tokens) + explanation.reference[label]
        assert total == pytest.approx(explanation.scores[label])
    assert explanation.windows == len(encoded.windows)


def test_seams_are_averaged():
    encoded = encoder(8).encode("the plot was good and bad but funny film")
    windows = [np.where(w.scorable, 1.0, 0.0) * (n + 1) for n, w in enumerate(encoded.windows)]
    merged = merge_windows(encoded, windows, "score")
    seen = [[n + 1 for n, w in enumerate(encoded.windows) if token in w.position] for token in range(9)]
    assert merged.tolist() == [np.mean(s) for s in seen]
    assert any(len(s) > 1 for s in seen)


def test_words_sum_their_tokens_and_offsets_point_into_their_text():
    encoded = encoder(64).encode("the unfunny plot", "good")
    explanation = assemble(encoded, random_windows(encoded), origin(), id="7")
    assert [w.text for w in explanation.words] == ["the", "unfunny", "plot", "good"]
    assert explanation.words[1].score == pytest.approx(
        sum(t.score for t, w in zip(explanation.tokens, explanation.tokens_to_words, strict=True) if w == 1)
    )
    assert explanation.words[3].segment == 1
    assert explanation.id == "7"


def test_multi_label_predictions_are_those_above_one_half():
    encoded = encoder().encode("good")
    window = WindowScores(np.array([0.7, 0.6]), np.array([0, 1.0, 0]))
    assert assemble(encoded, [window], origin(task="multi_label")).predicted == LABELS
    none = WindowScores(np.array([0.1, 0.2]), np.array([0, 1.0, 0]))
    assert assemble(encoded, [none], origin(task="multi_label")).predicted == ()


def test_targets_by_name_and_number():
    assert resolve_target(None, LABELS) is None
    assert resolve_target("good", LABELS) == resolve_target(1, LABELS) == 1
    for wrong in ("fine", 2, -1, True):
        with pytest.raises(TargetError, match="bad, good"):
            resolve_target(wrong, LABELS)


def test_shares_of_several_windows_follow_the_parts_of_the_texts_own_class():
    encoded = encoder(8).encode("the plot was good and bad but funny film")
    assert len(encoded.windows) > 1
    windows = random_windows(encoded)
    explanation = assemble(encoded, windows, origin())
    parts = np.array(explanation.class_scores[explanation.label])
    raised = np.exp(parts * len(windows) / TEMPERATURE)
    assert [t.score for t in explanation.tokens] == pytest.approx((raised / raised.sum()).tolist())
    with_shares_only = [WindowScores(w.probabilities, w.importance) for w in windows]
    merged = merge_windows(encoded, [w.importance for w in windows], "share")
    assert [t.score for t in assemble(encoded, with_shares_only, origin()).tokens] == merged.tolist()


def test_special_tokens_that_a_text_spells_out_have_no_share_of_it():
    encoded = encoder(8).encode("the plot [SEP] was good and bad but funny film")
    spelt = encoded.tokens.index("[SEP]")
    shares = joint_shares(encoded, np.linspace(-0.3, -0.1, len(encoded.tokens)))
    assert shares[spelt] == 0
    assert shares.sum() == pytest.approx(1)
    assert (np.delete(shares, spelt) > 0).all()
