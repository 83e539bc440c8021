"""Examples from files and datasets, and what bad ones get."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vat_explain.data import Example, LabelSet, duplicates_across, load_examples
from vat_explain.errors import DataError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda text: text.strip())
NAMES = st.text("abcXYZ é中", min_size=1, max_size=8).map(str.strip).filter(bool)
TWO = LabelSet(("bad", "good"))
MANY = LabelSet(("a", "b", "c"), multi_label=True)


def jsonl(folder: Path, *records: object, name: str = "some.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def raw(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def written(folder: Path, records: list[dict[str, object]]) -> list[Path]:
    """Write the same records in each format."""
    table = folder / "some.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    pq.write_table(pa.Table.from_pylist(records), folder / "some.parquet")
    return [jsonl(folder, *records), table, folder / "some.parquet"]


def refusal(source: Path | str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load_examples(source, **options)  # type: ignore[arg-type]
    return str(caught.value)


# What is read


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS, NAMES), min_size=1, max_size=8))
def test_what_was_written_is_read_from_every_format(tmp_path, rows):
    records = [{"text": a, "other": b, "label": name} for a, b, name in rows] + [
        {"text": "one", "other": "more", "label": "first"},
        {"text": "two", "other": "more", "label": "second"},
    ]
    read = [load_examples(path, pair_column="other") for path in written(tmp_path, records)]
    for data in read:
        assert data.labels is not None
        assert [(one.text, one.text_pair, data.labels.names[one.label[0]]) for one in data.examples if one.label] == [
            (record["text"], record["other"], record["label"]) for record in records
        ]
        assert [one.row for one in data.examples] == list(range(1, len(records) + 1))
    assert len({data.digest for data in read}) == 1
    assert len({data.labels for data in read}) == 1


def test_digest_changes_with_text_label_pair_and_rationale(tmp_path):
    base = {"text": "fine day", "label": "a", "pair": "p", "why": [[0, 4]]}
    last = {"text": "x", "label": "b", "pair": "p", "why": []}
    digests = {
        load_examples(jsonl(tmp_path, base | change, last), pair_column="pair", rationale_column="why").digest
        for change in ({}, {"text": "fine Day"}, {"label": "c"}, {"pair": "q"}, {"why": [[0, 5]]}, {"unused": 1})
    }
    assert len(digests) == 5


def test_rows_of_csv_survive_mark_line_ends_and_quoted_newlines(tmp_path):
    path = raw(tmp_path, "a.csv", b'\xef\xbb\xbftext,label\r\n"one,\r\ntwo ""x""",a\r\n\r\nthree,b\r\n')
    assert load_examples(path).examples == (
        Example('one,\r\ntwo "x"', None, (0,), 1),
        Example("three", None, (1,), 2),
    )


def test_jsonl_may_have_mark_crlf_blank_lines_and_line_separators_in_strings(tmp_path):
    content = '\ufeff{"text": "a\u2028b", "label": 1}\r\n\r\n{"text": "c", "label": 0}'.encode()
    assert [(one.text, one.row) for one in load_examples(raw(tmp_path, "a.jsonl", content)).examples] == [
        ("a\u2028b", 1),
        ("c", 3),
    ]


def test_unlabelled_texts_need_no_label_column(tmp_path):
    data = load_examples(jsonl(tmp_path, {"text": "a"}, {"text": "a"}), label_column=None)
    assert data.labels is None
    assert [one.label for one in data.examples] == [None, None]


def test_limit_reads_no_further(tmp_path):
    path = raw(tmp_path, "a.jsonl", b'{"text": "a"}\n{"text": "b"}\nnonsense')
    assert len(load_examples(path, label_column=None, limit=2).examples) == 2
    assert "line 3" in refusal(path, label_column=None, limit=3)
    assert "at least 1" in refusal(path, limit=0)


@pytest.mark.parametrize(
    ("values", "names", "ids", "several"),
    [
        (["pos", "neg", "pos"], ("neg", "pos"), [(1,), (0,), (1,)], False),
        ([10, 9, 2], ("2", "9", "10"), [(2,), (1,), (0,)], False),
        (["10", "9", "-2"], ("-2", "9", "10"), [(2,), (1,), (0,)], False),
        (["1.0", " 0.00"], ("0", "1"), [(1,), (0,)], False),
        ([1.0, 0.0], ("0", "1"), [(1,), (0,)], False),
        ([True, False], ("false", "true"), [(1,), (0,)], False),
        ([" a ", "b"], ("a", "b"), [(0,), (1,)], False),
        ([["b", "a"], [], ["c", "c"]], ("a", "b", "c"), [(0, 1), (), (2,)], True),
        (["a", "c|b", ""], ("a", "b", "c"), [(0,), (1, 2), ()], True),
        ([[3, 20], [3]], ("3", "20"), [(0, 1), (0,)], True),
    ],
)
def test_labels_are_inferred(tmp_path, values, names, ids, several):
    data = load_examples(jsonl(tmp_path, *({"text": "t", "label": value} for value in values)))
    assert data.labels == LabelSet(names, several)
    assert [one.label for one in data.examples] == ids


def test_truth_values_are_classes_without_names(tmp_path):
    path = jsonl(tmp_path, {"text": "t", "label": True}, {"text": "u", "label": False})
    data = load_examples(path, labels=LabelSet(("LABEL_0", "LABEL_1")))
    assert [one.label for one in data.examples] == [(1,), (0,)]
    assert "unknown label 'true'" in refusal(path, labels=LabelSet(("positive", "negative")))


def test_scores_are_no_classes(tmp_path):
    path = jsonl(tmp_path, *({"text": "t", "label": value} for value in ("0.37", "0.9", "-1.25")))
    assert "scores are and classes are not" in refusal(path)
    named = LabelSet(("1.0", "2.0"))
    assert load_examples(jsonl(tmp_path, {"text": "t", "label": "2.0"}), labels=named).examples[0].label == (1,)


@pytest.mark.parametrize(
    ("labels", "values", "ids"),
    [
        (TWO, ["good", 0, "1", "BAD", ["good"]], [(1,), (0,), (1,), (0,), (1,)]),
        (LabelSet(("1", "2", "5")), [1, 5, "2"], [(0,), (2,), (1,)]),
        (LabelSet(("a|b", "c")), ["a|b", "c"], [(0,), (1,)]),
        (MANY, [["c", "a"], "b|a", "b", "", [], 2], [(0, 2), (0, 1), (1,), (), (), (2,)]),
    ],
)
def test_given_labels_are_found_by_name_or_id(tmp_path, labels, values, ids):
    data = load_examples(jsonl(tmp_path, *({"text": "t", "label": value} for value in values)), labels=labels)
    assert data.labels is labels
    assert [one.label for one in data.examples] == ids


def test_names_that_differ_only_in_case_are_kept_apart():
    labels = LabelSet(("It", "it"))
    assert [labels.find(name) for name in ("It", "it", "IT", "2", -1)] == [0, 1, None, None, None]
    with pytest.raises(DataError, match="'a' occur twice"):
        LabelSet(("a", "b", "a"))


def test_rationales_are_spans_or_their_json(tmp_path):
    records = [
        {"text": "abc", "label": str(n), "why": why} for n, why in enumerate([[[0, 1], [2, 3]], "[[1, 3]]", None])
    ]
    data = load_examples(jsonl(tmp_path, *records), rationale_column="why")
    assert [one.rationale for one in data.examples] == [((0, 1), (2, 3)), ((1, 3),), ()]


@pytest.mark.parametrize("why", [[[0, 4]], [[1, 1]], [[-1, 2]], [[1]], [["0", 1]], "[[0, 4]]", "0 to 4", 3])
def test_rationales_that_do_not_fit_are_refused(tmp_path, why):
    path = jsonl(tmp_path, {"text": "abc", "label": 0, "why": why})
    assert "row 1, column 'why'" in refusal(path, rationale_column="why")


def test_duplicates_count_texts_that_are_in_both(tmp_path):
    def examples(*texts):
        return [Example(text, pair, None, 1) for text, pair in texts]

    a = examples(("x", None), ("x", None), ("y", "p"), ("z", None))
    assert duplicates_across(a, examples(("x", None), ("y", "q"), ("y", "p"), ("w", None))) == 2


# What is refused


def test_sources_that_cannot_be_opened(tmp_path):
    assert "no file" in refusal(tmp_path / "none.csv")
    assert "not a file" in refusal(tmp_path)
    assert "'.txt'" in refusal(raw(tmp_path, "a.txt", b"a"))
    assert "(none)" in refusal(raw(tmp_path, "a", b"a"))


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_empty_jsonl(tmp_path, content):
    assert "holds no rows" in refusal(raw(tmp_path, "a.jsonl", content))


def test_empty_tables(tmp_path):
    pq.write_table(
        pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), tmp_path / "a.parquet"
    )
    assert "holds no rows" in refusal(tmp_path / "a.parquet")
    assert "holds no rows" in refusal(raw(tmp_path, "a.csv", b"text,label\n"))
    assert "no column 'label'; there are 'text'" in refusal(raw(tmp_path, "a.csv", b"text\n"))
    assert "there are none" in refusal(raw(tmp_path, "a.csv", b""))


def test_missing_columns_are_named_with_what_there_is(tmp_path):
    for path in written(tmp_path, [{"txt": "a", "label": 1}, {"txt": "b", "label": 2}]):
        message = refusal(path)
        assert "no column 'text'; there are 'txt', 'label'. Did you mean 'txt'?" in message
        assert str(path) in message
    uneven = jsonl(tmp_path, {"text": "a", "label": 1}, {"text": "b"})
    assert "row 2: no column 'label'; there are 'text'. Name the column" in refusal(uneven)


def test_unknown_labels_are_named_with_row_and_known_ones(tmp_path):
    for path in written(tmp_path, [{"text": "a", "label": "bad"}, {"text": "b", "label": "ugly"}]):
        message = refusal(path, labels=TWO)
        assert str(path) in message
        assert "row 2" in message
        assert "unknown label 'ugly'; the known labels are 'bad', 'good'" in message


@pytest.mark.parametrize(
    ("label", "labels", "expected"),
    [
        (2, TWO, "unknown label '2'"),
        (-1, TWO, "unknown label '-1'"),
        (None, None, "the label is null"),
        (float("nan"), None, "the label is null"),
        ("", TWO, "the label is empty"),
        (" ", None, "the label is empty"),
        ([""], None, "the label is empty"),
        (0.5, None, "the label 0.5 is a float"),
        ({"a": 1}, None, "is a dict"),
        (["good", "bad"], TWO, "2 labels, but the task has exactly one"),
        ("good|bad", TWO, "2 labels, but the task has exactly one"),
        ([], TWO, "0 labels, but the task has exactly one"),
        (["d"], MANY, "unknown label 'd'"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, label, labels, expected):
    path = jsonl(tmp_path, {"text": "t", "label": 1}, {"text": "t", "label": label}, {"text": "t", "label": 0})
    message = refusal(path, labels=labels)
    assert expected in message
    assert "row 2, column 'label'" in message


def test_one_class_is_not_enough_to_train(tmp_path):
    path = jsonl(tmp_path, {"text": "a", "label": "x"}, {"text": "b", "label": "x"}, {"text": "b", "label": "y"})
    message = refusal(path, limit=2)
    assert "only 'x' occurs among the first 2 rows" in message
    assert load_examples(path).labels == LabelSet(("x", "y"))
    assert len(load_examples(path, limit=2, labels=LabelSet(("x", "y"))).examples) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "null"),
        ("", "empty"),
        (" \t\u3000", "empty"),
        (5, "of type int"),
        (["a"], "of type list"),
        ("ab\ud83d", "U+D83D) at character 2"),
    ],
)
@pytest.mark.parametrize("column", ["text", "pair"])
def test_texts_that_cannot_be_used(tmp_path, text, expected, column):
    fine = {"text": "t", "pair": "p", "label": 0}
    message = refusal(jsonl(tmp_path, fine, fine | {column: text}), pair_column="pair")
    assert f"row 2, column '{column}'" in message
    assert expected in message
    assert message.endswith(".")


def test_null_texts_in_parquet_have_their_row(tmp_path):
    pq.write_table(pa.table({"text": ["a"] * 2000 + [None], "label": [0, 1] * 1000 + [0]}), tmp_path / "a.parquet")
    assert "row 2001, column 'text': the text is null" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text,label\nfine,a\ncaf\xe9,b\n", "line 3: the byte 0xe9 at offset 21"),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "\xff"}\n', "line 1: the byte 0xff at offset 13"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "line 1: the byte 0xff at offset 0"),
    ],
)
def test_files_that_are_not_utf8(tmp_path, name, content, expected):
    path = raw(tmp_path, name, content)
    assert refusal(path).startswith(f"{path}, {expected} of the file is not UTF-8. Save the file as UTF-8")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"text": "a", ', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"9" * 10_000, "not valid JSON"),
        (b'["a", 1]', "a JSON list, not an object"),
        (b"null", "a JSON NoneType, not an object"),
    ],
)
def test_lines_that_are_not_json_objects(tmp_path, line, expected):
    path = raw(tmp_path, "a.jsonl", b'{"text": "a", "label": 1}\n\n' + line + b"\n")
    assert f"line 3: {expected}" in refusal(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'text,label\n"a\nb",x\nc\n', "row 2 (line 4): 1 fields, but the header has 2"),
        (b"text,label\na,x\nb, and c,y\n", "row 2 (line 3): 3 fields, but the header has 2"),
        (b'text,label\na,x\n"b,y\n', "line 3: not valid CSV"),
        (b'text,label\n"a" b,x\n', "line 2: not valid CSV"),
        (b"text,label\n" + b"a" * 200_000 + b",x\n", "need JSON Lines or Parquet"),
        (b"text,label,text\na,x,b\n", "the header names 'text' twice"),
    ],
)
def test_csv_that_is_not_well_formed(tmp_path, content, expected):
    assert expected in refusal(raw(tmp_path, "a.csv", content))


def test_parquet_that_is_damaged(tmp_path):
    assert "not a readable Parquet file" in refusal(raw(tmp_path, "a.parquet", b"PAR1 nothing more PAR1"))
    whole = tmp_path / "b.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(5000)], "label": [0, 1] * 2500}), whole)
    content = bytearray(whole.read_bytes())
    assert "not a readable Parquet file" in refusal(raw(tmp_path, "c.parquet", bytes(content[:-20])))
    content[4:2000] = b"\xff" * 1996
    assert "not a readable Parquet file" in refusal(raw(tmp_path, "d.parquet", bytes(content)))
