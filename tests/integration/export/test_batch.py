"""Large jobs: what is read, what is written, and that every row comes out once whatever happens."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests import exported, tiny
from tests.unit.test_bundle_interrupted import small_disk
from vat_explain.errors import BundleError, DataError
from vat_export.batch import Summary, _opened, _record, explain_files
from vat_export.local import run_local
from vat_export.onnx import export_onnx
from vat_export.parts import Done, Settings
from vat_export.runtime import OnnxExplainer
from vat_export.sources import plan

RUN = """
import sys
from vat_export.batch import explain_files
explain_files(sys.argv[1], sys.argv[2], sys.argv[3], engine=sys.argv[4], workers=int(sys.argv[5]), part_rows=40,
              resume=True)
assert "torch" not in sys.modules
"""


def model() -> Path:
    return exported.export("bert").directory


def texts(count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(tiny.WORDS, k=chance.randint(1, 30))) for _ in range(count)]


def write_parquet(path: Path, rows: list[Any], **columns: list[Any]) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": rows, **columns}), path, row_group_size=30)


def run(pattern: Path | str, output: Path, **options: Any) -> Summary:
    return explain_files(model(), str(pattern), output, options.pop("settings", None), **options)


def rows(output: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pyarrow.parquet.read_table(output / "parts").to_pylist()
    return found


def rejected(output: Path) -> list[dict[str, Any]]:
    files = sorted((output / "rejected").iterdir())
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_rows_hold_what_the_explainer_says(tmp_path: Path) -> None:
    given = [*texts(70), "good plot " * 600]
    write_parquet(tmp_path / "a.parquet", given, key=list(range(71)))
    summary = run(tmp_path / "a.parquet", tmp_path / "out", part_rows=25, settings=Settings(id_column="key"))
    assert (summary.rows, summary.explained, summary.rejected, summary.parts) == (71, 71, 0, 3)
    explainer = OnnxExplainer(model())
    for number, (row, explanation) in enumerate(zip(rows(tmp_path / "out"), explainer.explain(given), strict=True)):
        assert (row["row"], row["id"], row["source"]) == (number + 1, str(number), str(tmp_path / "a.parquet"))
        assert row["label"] == explanation.label
        assert row["predicted"] == list(explanation.predicted)
        assert row["score"] == pytest.approx(explanation.scores[row["label"]], abs=1e-6)
        assert row["probabilities"] == pytest.approx(list(explanation.scores.values()), abs=1e-6)
        assert row["tokens"] == [token.text for token in explanation.tokens]
        assert row["starts"] == [token.start for token in explanation.tokens]
        assert row["ends"] == [token.end for token in explanation.tokens]
        assert row["importances"] == pytest.approx([token.score for token in explanation.tokens], abs=1e-6)
        assert explanation.class_scores is not None
        assert row["contributions"] == pytest.approx(explanation.class_scores[row["label"]], abs=1e-6)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["export"] == explainer.digest
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "parts", "rejected"]


def test_all_formats_give_the_same_rows(tmp_path: Path) -> None:
    given = [*texts(30), 'with "quotes", a comma\nand a line', "naïve 😀"]
    write_parquet(tmp_path / "a.parquet", given)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in given))
    quoted = ('"' + text.replace('"', '""') + '"' for text in given)
    (tmp_path / "a.csv").write_text("\ufefftext,other\n" + "\n\n".join(text + ",1" for text in quoted) + "\n")
    found = []
    for kind in ("parquet", "jsonl", "csv"):
        run(tmp_path / f"a.{kind}", tmp_path / kind, part_rows=7)
        found.append([{k: v for k, v in row.items() if k != "source"} for row in rows(tmp_path / kind)])
    assert len(found[0]) == len(given)
    assert found[0] == found[1] == found[2]


def test_pairs_and_the_most_important_tokens(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ["the plot was good"], other=["the food was awful"])
    run(tmp_path / "a.parquet", tmp_path / "all", settings=Settings(pair_column="other"))
    run(tmp_path / "a.parquet", tmp_path / "top", settings=Settings(pair_column="other", top_k=3))
    (everything,), (top,) = rows(tmp_path / "all"), rows(tmp_path / "top")
    assert everything["segments"] == [0] * 4 + [1] * 4
    best = sorted(zip(everything["importances"], everything["tokens"], strict=True), reverse=True)[:3]
    assert list(zip(top["importances"], top["tokens"], strict=True)) == best


def test_rows_that_cannot_be_explained_are_listed_with_number_and_reason(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": "a good film", "key": "x"}),
        json.dumps({"text": None}),
        json.dumps({"text": 3, "key": 1}),
        json.dumps({"nope": 1}),
        "[1]",
        "",
        "{bad",
        json.dumps({"text": " "}),
        json.dumps({"text": "\ud800 a"}),
        json.dumps({"text": ["a"]}),
        json.dumps({"text": "x" * 1_000_001}),
        json.dumps({"text": "a dull film " * 8_334}),
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.csv").write_bytes(b"text,key\na good film,1\nbad\xff byte,2\nthree,fields,here\n,4\nlast,5")
    (tmp_path / "empty.csv").write_bytes(b"")
    summary = run(tmp_path / "*", tmp_path / "out", settings=Settings(id_column="key"))
    assert summary.explained == 4
    assert summary.rows == summary.explained + summary.rejected == 16
    assert [(row["row"], row["id"]) for row in rows(tmp_path / "out")] == [(1, "x"), (12, None), (1, "1"), (5, "5")]
    found = [(Path(entry["source"]).name, entry["row"], entry["reason"]) for entry in rejected(tmp_path / "out")]
    expected = [
        ("a.jsonl", 2, "is null"),
        ("a.jsonl", 3, "got int"),
        ("a.jsonl", 4, "is missing"),
        ("a.jsonl", 5, "a JSON list"),
        ("a.jsonl", 7, "not valid JSON"),
        ("a.jsonl", 8, "only white space"),
        ("a.jsonl", 9, "lone surrogate"),
        ("a.jsonl", 10, "got list"),
        ("a.jsonl", 11, "1,000,001 characters"),
        ("b.csv", 2, "lone surrogate"),
        ("b.csv", 3, "3 fields"),
        ("b.csv", 4, "only white space"),
    ]
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    for (_, _, reason), (_, _, part) in zip(found, expected, strict=True):
        assert part in reason


@pytest.mark.parametrize("damage", ["cut", "removed", "emptied", "unlisted"])
def test_what_is_damaged_or_lost_of_a_finished_job_is_made_again(tmp_path: Path, damage: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": 3}\n{"text": "bad"}\n')
    run(tmp_path / "a.jsonl", tmp_path / "out", part_rows=2)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    part = tmp_path / "out" / "parts" / "part-000000.parquet"
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:100])
    elif damage == "removed":
        part.unlink()
    elif damage == "emptied":
        (tmp_path / "out" / "rejected" / "part-000000.jsonl").write_text("")
    else:
        (tmp_path / "out" / "rejected" / "part-000000.jsonl").unlink()
    assert run(tmp_path / "a.jsonl", tmp_path / "out", part_rows=2, resume=True).resumed == 1
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["/proc/out", "a.parquet/out"])  # not even root may make these
def test_output_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    write_parquet(tmp_path / "a.parquet", texts(3))
    with pytest.raises(DataError, match=r"cannot write to .*name another directory"):
        run(tmp_path / "a.parquet", tmp_path / name)


def test_output_of_another_run_or_of_others_is_left_alone(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", texts(10))
    write_parquet(tmp_path / "b.parquet", texts(10, seed=1))
    run(tmp_path / "a.parquet", tmp_path / "out")
    before = rows(tmp_path / "out")
    with pytest.raises(DataError, match="pass --resume"):
        run(tmp_path / "a.parquet", tmp_path / "out")
    for options, message in (
        ({"settings": Settings(top_k=2)}, "other settings"),
        ({"part_rows": 3}, "other part_rows"),
    ):
        with pytest.raises(DataError, match=message):
            run(tmp_path / "a.parquet", tmp_path / "out", resume=True, **options)
    with pytest.raises(DataError, match="other inputs"):
        run(tmp_path / "b.parquet", tmp_path / "out", resume=True)
    with pytest.raises(DataError, match="other export"):
        explain_files(exported.export("roberta").directory, str(tmp_path / "a.parquet"), tmp_path / "out", resume=True)
    assert run(tmp_path / "a.parquet", tmp_path / "out", resume=True).resumed == 1
    assert rows(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"notes\.txt"):
        run(tmp_path / "a.parquet", tmp_path / "mine", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write to"):
        run(tmp_path / "a.parquet", tmp_path / "file")


def test_a_tampered_model_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", texts(3))
    altered = tmp_path / "model"
    altered.mkdir()
    for path in model().iterdir():
        (altered / path.name).write_bytes(path.read_bytes() + (b" " if path.name == "tokenizer.json" else b""))
    with pytest.raises(BundleError, match=r"tokenizer\.json is damaged or was altered"):
        explain_files(altered, str(tmp_path / "a.parquet"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", texts(200))
    run(tmp_path / "a.parquet", tmp_path / "undisturbed", part_rows=40)
    with small_disk(tmp_path / "disk", 100_000) as disk:
        (disk / "other").write_bytes(b"0" * 56_000)
        with pytest.raises(DataError, match=r"cannot write .*has room"):
            run(tmp_path / "a.parquet", disk / "out", part_rows=40)
        assert not list((disk / "out").rglob("*.tmp"))
        (disk / "other").unlink()
        run(tmp_path / "a.parquet", disk / "out", part_rows=40, resume=True)
        assert rows(disk / "out") == rows(tmp_path / "undisturbed")


def test_a_disk_that_fills_at_the_journal_is_named() -> None:
    with pytest.raises(DataError, match=r"cannot write /dev/full: No space left"), _opened(Path("/dev/full")) as full:
        _record(full, Done(0, 1, 0, "", ""))
    with pytest.raises(DataError, match=r"cannot write /proc/journal"), _opened(Path("/proc/journal")):
        pass


def test_neither_model_nor_bundle_holds_the_output(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", texts(3))
    export = shutil.copytree(model(), tmp_path / "model")
    with pytest.raises(DataError, match="lies in the model"):
        explain_files(export, str(tmp_path / "a.parquet"), export / "out")
    with pytest.raises(BundleError, match="lies in the bundle"):
        export_onnx(tmp_path / "bundle", tmp_path / "bundle" / "onnx")
    OnnxExplainer(export)


@pytest.mark.parametrize("change", ["swapped", "damaged"])
def test_workers_use_the_model_that_the_job_began_with(tmp_path: Path, change: str) -> None:
    write_parquet(tmp_path / "a.parquet", texts(30))
    export = shutil.copytree(model(), tmp_path / "model")
    explainer = OnnxExplainer(export)
    shutil.rmtree(export)
    shutil.copytree(exported.export("roberta").directory, export)
    if change == "damaged":
        (export / "tokenizer.json").write_text("{}")
    (source,) = plan([str(tmp_path / "a.parquet")], ["text"], 10)
    message = "is not the model that the job began with" if change == "swapped" else "is damaged or was altered"
    with pytest.raises(BundleError, match=message):
        list(run_local(explainer, export, source.parts, Settings(), tmp_path / "out", 2, lambda rows: None))


def test_an_interrupted_job_ends_at_once(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", texts(20_000))
    # A process that was started in the background of a shell ignores interrupts, and so would its children.
    script = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + RUN
    command = [sys.executable, "-c", script, str(model()), str(tmp_path / "a.parquet"), str(tmp_path / "out")]
    command += ["local", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not (tmp_path / "out" / "parts").exists() or not written(tmp_path / "out"):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
        before = written(tmp_path / "out")
        time.sleep(0.5)
        assert written(tmp_path / "out") == before
        assert len(before) < 250  # of 500
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no engine 'spark'"):
        run(tmp_path / "a.parquet", tmp_path / "out", engine="spark")
    assert not (tmp_path / "out").exists()


def test_several_processes_give_the_same_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", texts(120))
    run(tmp_path / "a.parquet", tmp_path / "one", part_rows=40)
    subprocess.run(
        [sys.executable, "-c", RUN, model(), tmp_path / "a.parquet", tmp_path / "two", "local", "2"],
        check=True,
        timeout=300,
    )
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def written(output: Path) -> set[Path]:
    return set((output / "parts").glob("*"))


def kill_until_done(tmp_path: Path, engine: str, workers: int, kills: int, environment: dict[str, str]) -> None:
    """Kill runs at random moments, so many that were at work, and compare what comes out with an undisturbed run."""
    write_parquet(tmp_path / "a.parquet", [*texts(390), *[""] * 10])
    run(tmp_path / "a.parquet", tmp_path / "undisturbed", part_rows=40)
    command = [sys.executable, "-c", RUN, str(model()), str(tmp_path / "a.parquet"), str(tmp_path / "killed")]
    command += [engine, str(workers)]
    chance = random.Random(1)
    runs = hits = 0
    while hits < kills and runs < 3 * kills:
        before = written(tmp_path / "killed")
        process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and written(tmp_path / "killed") <= before:
            time.sleep(0.002)
        with suppress(subprocess.TimeoutExpired):  # at work now: somewhere in the next parts
            process.wait(chance.uniform(0, 0.2))
        runs += 1
        hits += process.poll() is None
        process.kill()
        process.wait()
        whole = sorted((tmp_path / "killed" / "parts").glob("*.parquet"))
        for path in chance.sample(whole, max(0, len(whole) - 5)):
            path.unlink()  # so that there is something left to do
    assert hits == kills
    subprocess.run(command, check=True, env=os.environ | environment, timeout=300)
    assert rows(tmp_path / "killed") == rows(tmp_path / "undisturbed")
    assert rejected(tmp_path / "killed") == rejected(tmp_path / "undisturbed")
    assert len(rejected(tmp_path / "killed")) == 10


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path, workers: int) -> None:
    kill_until_done(tmp_path, "local", workers, kills=20, environment={"OMP_NUM_THREADS": "1"})
