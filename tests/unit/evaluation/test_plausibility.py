from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from tests.unit.evaluation import linear
from vat_explain.evaluation import plausibility
from vat_explain.models import text_encoder


@pytest.fixture(scope="module")
def encoder():
    return linear.encoder(linear.classifier({}))


def test_words_sum_their_tokens(encoder):
    encoded = encoder.encode("good xyz film")
    assert encoded.tokens == ("good", "x", "##y", "##z", "film")
    assert plausibility.word_scores(encoded, [1, 2, 3, -1, 5]).tolist() == [1, 4, 5]


def test_a_span_marks_the_words_it_touches(encoder):
    text = "the film was good"
    encoded = encoder.encode(text)
    assert plausibility.marked_words(encoded, [(4, 8)]).tolist() == [False, True, False, False]
    assert plausibility.marked_words(encoded, [(6, 10)]).tolist() == [False, True, True, False]
    assert plausibility.marked_words(encoded, [(3, 4), (8, 9)]).tolist() == [False] * 4  # white space alone
    assert plausibility.marked_words(encoded, []).tolist() == [False] * 4


def test_spans_speak_about_the_first_text_of_a_pair(encoder):
    encoded = encoder.encode("good film", "bad plot")
    assert plausibility.marked_words(encoded, [(0, 4)]).tolist() == [True, False, False, False]


def test_f1_of_words_and_of_spans_by_hand():
    human = np.array([0, 1, 1, 1, 0, 0, 1, 0], dtype=bool)
    predicted = np.array([0, 1, 1, 0, 0, 1, 0, 1], dtype=bool)
    assert plausibility.token_f1(predicted, human) == pytest.approx(2 * 2 / (4 + 4))
    # Predicted spans 1-2, 5, 7; human 1-3, 6: one match of three (2/3 of the union), one found of two.
    assert plausibility.iou_f1(predicted, human) == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert plausibility.token_f1(human, human) == plausibility.iou_f1(human, human) == 1
    nothing = np.zeros(8, dtype=bool)
    assert plausibility.token_f1(nothing, human) == plausibility.iou_f1(nothing, human) == 0
    assert plausibility.iou_f1(~human, human) == 0


def test_half_of_the_union_matches():
    human = np.array([1, 1, 0, 0], dtype=bool)
    assert plausibility.iou_f1(np.array([1, 0, 0, 0], dtype=bool), human) == 1
    assert plausibility.iou_f1(np.array([0, 1, 1, 0], dtype=bool), human) == 0


def test_average_precision_by_hand():
    human = np.array([True, False, True, False])
    assert plausibility.average_precision(np.array([4.0, 3.0, 2.0, 1.0]), human) == pytest.approx((1 + 2 / 3) / 2)
    assert plausibility.average_precision(np.array([4.0, 1.0, 3.0, 2.0]), human) == 1
    assert plausibility.average_precision(np.zeros(4), human) == 0.5  # a constant gets the share that is marked
    assert np.isnan(plausibility.average_precision(np.zeros(4), np.zeros(4, dtype=bool)))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=10))
def test_average_precision_agrees_with_all_thresholds(pairs):
    scores = np.array([float(score) for score, _ in pairs])
    human = np.array([marked for _, marked in pairs])
    if not human.any():
        return
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        hit = (chosen & human).sum()
        area += (hit / human.sum() - recall) * hit / chosen.sum()
        recall = hit / human.sum()
    assert plausibility.average_precision(scores, human) == pytest.approx(area)


def test_plausibility_counts_words_and_takes_as_many_as_people_mark(encoder):
    text = "the film was xyz"
    encoded = encoder.encode(text)
    scores = [0.0, 0.5, 0.1, 0.3, 0.3, 0.3]  # "xyz" has 0.9 in three pieces of 0.3
    found = plausibility.plausibility(encoded, scores, [(13, 16)], 0.25)
    assert found == {"token_f1": 1, "iou_f1": 1, "auprc": 1}
    found = plausibility.plausibility(encoded, scores, [(13, 16)], 0.5)
    assert found["token_f1"] == pytest.approx(2 / 3)
    assert all(np.isnan(value) for value in plausibility.plausibility(encoded, scores, [], 0.5).values())


def test_words_of_a_second_text_do_not_count_against_an_explanation(encoder):
    pair = encoder.encode("good film", "bad slow plot")
    assert plausibility.plausibility(pair, [1.0, 0.0, 3.0, 2.0, 2.0], [(0, 4)], 0.5) == {
        "token_f1": 1,
        "iou_f1": 1,
        "auprc": 1,
    }
    assert plausibility.shortcut_metrics(pair, [1.0, 0.0, 3.0, 2.0, 2.0], [(0, 4)]) == {
        "shortcut_precision": 1,
        "shortcut_rank": 1,
    }


def test_shortcuts_found_first(encoder):
    encoded = encoder.encode("the zorbex film was good vel")
    spans = [(4, 10), (25, 28)]
    pieces = np.array([encoded.words == 1, encoded.words == 5]).any(0)
    oracle = plausibility.shortcut_metrics(encoded, pieces.astype(float), spans)
    assert oracle == {"shortcut_precision": 1, "shortcut_rank": 1.5}
    worst = plausibility.shortcut_metrics(encoded, -pieces.astype(float), spans)
    assert worst == {"shortcut_precision": 0, "shortcut_rank": 5.5}
    constant = plausibility.shortcut_metrics(encoded, np.zeros(len(pieces)), spans)
    assert constant["shortcut_precision"] == pytest.approx(2 / 6)
    assert constant["shortcut_rank"] == pytest.approx(3.5)
    assert np.isnan(plausibility.shortcut_metrics(encoded, pieces.astype(float), [])["shortcut_rank"])


def test_works_on_the_windows_of_a_long_text():
    model = tiny.classifier("bert")
    encoded = text_encoder(tiny.tokenizer(), model, max_length=8).encode("the film was good and the plot was bad")
    assert len(encoded.windows) > 1
    scores = np.zeros(len(encoded.tokens))
    scores[3] = 1
    assert plausibility.plausibility(encoded, scores, [(13, 17)], 0.1)["token_f1"] == 1
