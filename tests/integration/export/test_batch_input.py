"""Input of large jobs: which files are read, what their rows may hold, and how much of them is in memory."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.integration.export import test_batch as batch
from vat_explain.errors import DataError
from vat_export.parts import CHUNK_TOKENS, Settings, chunks
from vat_export.runtime import OnnxExplainer
from vat_export.sources import Record, plan, read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "hold no rows"),
        ("a.csv", b"text\n", "hold no rows"),
        ("a.jsonl", b"\n\n", "hold no rows"),
        ("a.parquet", b"", "hold no rows"),
        ("a.parquet", b"PAR1 but not really", "cannot be read"),
        ("a.csv", b"words\na\n", "no column 'text'; its columns are words"),
        ("a.csv", b"text,text\na,b\n", "column 'text' more than once"),
        ("a.jsonl", b'{"words": "a"}\n', "none of the first rows has column 'text'"),
        ("a.csv", b'id,text\n1,"hello\n2,world\n3,more\n', "not valid CSV: .*begins in line 2"),
        ("a.csv", b'text\n"good film\n"bad" film\n', "not valid CSV: .*begins in line 2"),
        ("a.csv", b"text\na\nb\rc\n", "not valid CSV: new-line character .* line 3"),
        ("a.txt", b"a", "is none of .csv"),
        ("b.csv", b"text\na\n", "there is no file"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        batch.run(tmp_path / "a.*", tmp_path / "out")


def test_each_file_is_read_once_under_whatever_names(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    (folder / "a[1].csv").write_text("text\ngood\n")
    (folder / "loop").symlink_to(tmp_path / "in")
    assert batch.run(tmp_path / "in" / "**" / "**" / "*.csv", tmp_path / "out").rows == 1
    assert batch.run(folder / "a[1].csv", tmp_path / "literal").rows == 1


def test_names_and_ids_of_all_kinds(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xffme"))
    folder.mkdir()
    late = pyarrow.array([300_000_000_000_000], pyarrow.timestamp("ms"))
    for number, ids in enumerate((late, pyarrow.array([b"k\xff"]), pyarrow.array([3], pyarrow.duration("ns")))):
        batch.write_parquet(tmp_path / "plain", ["good"], key=ids)
        (tmp_path / "plain").rename(folder / f"{number}.parquet")
    (folder / "3.csv").write_text("text,key\ngood,x\n")
    summary = batch.run(folder / "*", folder / "out", settings=Settings(id_column="key"), workers=2)
    assert summary.explained == 4
    found = [
        pyarrow.parquet.read_table(pyarrow.BufferReader(path.read_bytes())).to_pylist()[0]
        for path in sorted(folder.glob("out/parts/*"))
    ]
    assert [row["id"] for row in found[1:]] == ["k\\xff", found[2]["id"], "x"]
    assert all("na\\udcffme" in row["source"] for row in found)
    assert batch.run(folder / "*", folder / "out", settings=Settings(id_column="key"), resume=True).resumed == 4


def test_a_job_does_not_read_its_own_output(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": 3}\n')
    for resume in (False, True):
        assert batch.run(tmp_path / "**" / "*.*", tmp_path / "out", resume=resume).rows == 2
    with pytest.raises(DataError, match="names nothing but what lies in the output"):
        batch.run(tmp_path / "out" / "parts" / "*", tmp_path / "out", resume=True)


def test_input_that_changes_while_a_job_runs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\ngood\nbad\n")
    ((source,), columns) = plan([str(path)], ["text"], 10), ["text"]
    assert [record.values for record in read(source.parts[0], columns)] == [{"text": "good"}, {"text": "bad"}]
    for content in ("", "text\nother\nwords\n"):
        path.write_text(content)
        with pytest.raises(DataError, match="changed since the job began"):
            list(read(source.parts[0], columns))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_memory_holds_few_long_rows_at_a_time(tmp_path: Path, kind: str) -> None:
    path, long = tmp_path / f"a.{kind}", "word " * 60_000
    count = 600
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * count, "key": [long] * count}), path)
    elif kind == "csv":
        path.write_text("text,key,unused\n" + f"a,{long},{long}\n" * count)
    else:
        path.write_text((json.dumps({"text": "a", "key": long, "unused": long}) + "\n") * count)
    (source,) = plan([str(path)], ["text", "key"], 1000)
    explainer, settings = OnnxExplainer(batch.model()), Settings(id_column="key")
    before = pyarrow.total_allocated_bytes()
    most = 0
    tracemalloc.start()
    sizes = []
    for good, _ in chunks(explainer, read(source.parts[0], settings.columns), settings):
        sizes.append(len(good))
        most = max(most, pyarrow.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == count
    assert max(sizes) < 10
    assert peak < (60_000_000 if kind == "parquet" else 12_000_000)  # of 180 MB and more
    if kind == "parquet":
        assert most < 30_000_000  # Arrow's own, of 180 MB laid out


def test_rows_of_many_windows_go_through_the_model_few_at_a_time() -> None:
    explainer = OnnxExplainer(batch.model())
    text = "a " * 3000
    windows = sum(map(len, explainer.encoder.encode(text).windows))
    records = (Record(number, {"text": text}) for number in range(400))
    sizes = [len(good) for good, bad in chunks(explainer, records, Settings()) if not bad]
    assert sum(sizes) == 400
    assert max(sizes) == -(-CHUNK_TOKENS // windows) < 200


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_no_file_is_not_left_out_in_silence(tmp_path: Path, workers: int) -> None:
    batch.write_parquet(tmp_path / "a.parquet", ["good"])
    (tmp_path / "b.parquet").mkdir()
    with pytest.raises(DataError, match=r"b\.parquet is a folder; name the files in it"):
        batch.run(tmp_path / "*.parquet", tmp_path / "out")
    batch.write_parquet(tmp_path / "b.parquet" / "part.parquet", ["bad"])
    assert batch.run(tmp_path / "**" / "*.parquet", tmp_path / "out", workers=workers).rows == 2
    (tmp_path / "c.parquet").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"c\.parquet is a link to a file that is not there"):
        batch.run(tmp_path / "**" / "*.parquet", tmp_path / "other")


def test_a_job_does_not_read_its_output_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"text": "good"}\n')
    (tmp_path / "in" / "out").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "in" / "out")
    for resume in (False, True):
        assert batch.run(tmp_path / "in" / "**" / "*.*", tmp_path / "out", resume=resume).rows == 1
    for resume in (False, True):  # a folder that is named like a file of texts
        assert batch.run(tmp_path / "in" / "*.jsonl", tmp_path / "in" / "b.jsonl", resume=resume).rows == 1


def test_an_empty_line_of_a_single_column_is_an_empty_field(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\ngood film\n\nbad plot\n")
    batch.run(tmp_path / "a.csv", tmp_path / "out", part_rows=2)
    assert [row["row"] for row in batch.rows(tmp_path / "out")] == [1, 3]
    assert [entry["row"] for entry in batch.rejected(tmp_path / "out")] == [2]


def test_row_groups_of_all_sizes(tmp_path: Path) -> None:
    given = batch.texts(50)
    table = pyarrow.table({"text": given})
    with pyarrow.parquet.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for start, end in ((0, 0), (0, 1), (1, 30), (30, 30), (30, 50)):
            writer.write_table(table[start:end])
    batch.run(tmp_path / "a.parquet", tmp_path / "out", part_rows=7)
    found = batch.rows(tmp_path / "out")
    assert [row["row"] for row in found] == list(range(1, 51))
    assert [row["tokens"] for row in found] == [text.split() for text in given]


def test_a_parquet_file_without_the_column(tmp_path: Path) -> None:
    batch.write_parquet(tmp_path / "a.parquet", ["a"])
    with pytest.raises(DataError, match="no column 'words'; its columns are text"):
        batch.run(tmp_path / "a.parquet", tmp_path / "out", settings=Settings(text_column="words"))


@pytest.mark.parametrize(
    ("column", "explained", "reason"),
    [
        (pyarrow.array([1, 2, None]), 0, "got int"),
        (pyarrow.array([1.5, 2.5, None]), 0, "got float"),
        (pyarrow.array([["a"], [], None]), 0, "got list"),
        (pyarrow.nulls(3), 0, "is null"),
        (pyarrow.array([b"good", b"\xff", None]), 0, "got bytes"),
        (pyarrow.array(["good", "bad", None]).dictionary_encode(), 2, "is null"),
        (pyarrow.array(["good", "bad", None], pyarrow.large_string()), 2, "is null"),
    ],
)
def test_parquet_columns_of_all_types(tmp_path: Path, column: Any, explained: int, reason: str) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    summary = batch.run(tmp_path / "a.parquet", tmp_path / "out")
    assert (summary.explained, summary.rejected) == (explained, 3 - explained)
    assert len(batch.rows(tmp_path / "out")) == explained
    assert reason in batch.rejected(tmp_path / "out")[0]["reason"]
