"""Interim results: killed runs go on, and what belongs to another run is not taken."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.unit.evaluation.runs import examples, run, without_times
from vat_explain.attribution.standard import standard_method
from vat_explain.data import Example
from vat_explain.errors import DataError
from vat_explain.evaluation import Settings, benchmark
from vat_explain.evaluation.journal import Journal
from vat_explain.evaluation.texts import Bench
from vat_explain.models import text_encoder


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stop_at", [1, 2, 4, 6])
def test_a_killed_run_resumes_to_the_same_result(bert, tmp_path, monkeypatch, stop_at):
    monkeypatch.setattr(benchmark, "BATCH_TEXTS", 3)
    texts = examples(8)
    whole = run(bert, texts, output=tmp_path / "whole")
    written = 0
    append = Journal.append

    def dying(self, records):
        nonlocal written
        written += 1
        if written == stop_at:
            # What a kill in the middle of a write leaves behind: whole lines, and the beginning of another.
            append(self, records[:1])
            self._file.write(b'{"name": "random", "te')
            self._file.flush()
            raise Killed
        append(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", dying)
        with pytest.raises(Killed):
            run(bert, texts, output=tmp_path / "killed")
    assert not (tmp_path / "killed" / "results.json").exists()
    resumed = run(bert, texts, output=tmp_path / "killed")
    assert without_times(resumed) == without_times(whole)


def test_a_second_call_computes_nothing_and_gives_the_same_bytes(bert, tmp_path, monkeypatch):
    texts = examples(4)
    run(bert, texts, output=tmp_path)
    first = {name: (tmp_path / name).read_bytes() for name in ("results.json", "results.csv", "report.html")}
    monkeypatch.setattr(Bench, "describe", None)
    monkeypatch.setattr(Bench, "measure", None)
    run(bert, texts, output=tmp_path)
    assert first == {name: (tmp_path / name).read_bytes() for name in first}


def test_other_models_data_and_settings_do_not_share_results(bert, tmp_path):
    texts = examples(3)
    run(bert, texts, output=tmp_path)
    other = tiny.classifier("bert", 2, seed=5)
    run((other, text_encoder(tiny.tokenizer(), other)), texts, output=tmp_path)
    run(bert, examples(3, seed=1), output=tmp_path)
    run(bert, texts, output=tmp_path, settings=Settings(operators=("mask",), search_budget=61, soft_samples=1))
    assert len(list(tmp_path.glob("interim-*.jsonl"))) == 4
    run(bert, texts, methods=["grad-x-input"], output=tmp_path)  # a further method goes into the same file
    assert len(list(tmp_path.glob("interim-*.jsonl"))) == 4


def test_other_windows_and_options_do_not_share_results(bert, tmp_path):
    texts = [Example("the film was good and the plot was bad and slow", None, None, 1)]
    model, _ = bert
    for length, steps in ((12, 2), (8, 2), (8, 4)):
        encoder = text_encoder(tiny.tokenizer(), model, max_length=length)
        methods = [standard_method("ig", model, steps=steps)]
        resumed = run((model, encoder), texts, methods=methods, output=tmp_path).methods
        fresh = run((model, encoder), texts, methods=methods).methods
        for found in (resumed["ig"], fresh["ig"]):
            del found["seconds_per_text"]
        assert resumed == fresh
        assert resumed["ig"]["forwards_per_text"] == pytest.approx(2 * steps, rel=0.3)


def test_a_damaged_journal_is_refused(tmp_path):
    path = tmp_path / "interim.jsonl"
    path.write_text('{"name": "random", "text": 1}\nrubbish\n')
    with pytest.raises(DataError, match="line 2"):
        Journal(path)
