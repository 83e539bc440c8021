"""`vat-explain fit`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.opinions import opinions, write_csv
from vat_explain.cli import app

FEW_STEPS = ["--epochs", "1", "--learner-epochs", "1", "--rounds", "1", "--max-length", "32", "--quiet"]


def fit(folder: Path, model: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["fit", "--model", str(model), "--output", str(folder / "out"), *options])


def assert_refused(result: Result, folder: Path, *words: str) -> None:
    """Exit code 2, a message with all the words, no traceback, and nothing left behind."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert not [path.name for path in folder.iterdir() if "out" in path.name]


def test_fit_prints_one_json_document_and_writes_a_bundle(tmp_path, tiny_encoder):
    rows = opinions(40)
    train, dev = write_csv(tmp_path / "train.csv", rows[:30]), write_csv(tmp_path / "dev.csv", rows[28:])
    result = fit(tmp_path, tiny_encoder, "--train", str(train), "--dev", str(dev), "--json", *FEW_STEPS)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["labels"] == ["bad", "good"]
    assert document["texts"] == 30
    assert document["dev_texts"] == 12
    assert document["texts_in_both"] == 2
    assert "2 texts are both in" in result.stderr
    assert set(document["metrics"]) >= {"accuracy", "comprehensiveness", "sufficiency"}
    assert len(document["digest"]) == 64
    assert json.loads((tmp_path / "out" / "card.json").read_text())["labels"] == ["bad", "good"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.csv", "out", "train.csv"]


def test_fit_of_a_frozen_classifier_passes_its_settings_on(tmp_path, tiny_classifier):
    train = write_csv(tmp_path / "train.csv", opinions(40))
    options = ["--freeze-learner", "--objective", "paper", "--backbone", "copy", "--epochs", "1", "--seed", "3"]
    result = fit(tmp_path, tiny_classifier, "--train", str(train), "--limit", "20", "--quiet", *options)
    assert result.exit_code == 0, result.output
    assert "18 texts, classes bad, good" in result.stdout
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["compressor"]["objective"], card["compressor"]["backbone"]) == ("paper", "copy")
    assert card["training"]["freeze_learner"] is True
    assert card["training"]["loop"]["seed"] == 3


def test_fit_replaces_a_bundle_but_nothing_else(tmp_path, tiny_encoder):
    train = write_csv(tmp_path / "train.csv", opinions(20))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    result = fit(tmp_path, tiny_encoder, "--train", str(train), *FEW_STEPS)
    assert result.exit_code == 2
    assert "holds files that are not part of a bundle" in result.stderr
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "out" / "thesis.txt").unlink()
    digests = [
        json.loads(fit(tmp_path, tiny_encoder, "--train", str(train), "--json", "--seed", seed, *FEW_STEPS).stdout)
        for seed in ("0", "1")
    ]
    assert digests[0]["digest"] != digests[1]["digest"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"review,label\nfine,good\n", ["a.csv", "no column 'text'", "'review'"]),
        ("a.csv", b"text,label\ngreat,good\nok,neutral\n", ["a.csv", "row 2", "'label'", "'neutral'", "Correct"]),
        ("a.csv", b"text,label\ngreat,good\n,bad\n", ["a.csv", "row 2", "'text'", "empty", "remove"]),
        ("a.jsonl", b'{"text": "x", "label": "good"}\n{"text": null, "label": "bad"}\n', ["row 2", "null"]),
        ("a.csv", "text,label\ngreat,good\nträge,bad\n".encode("latin-1"), ["a.csv", "line 3", "UTF-8", "Save"]),
        ("a.jsonl", b'{"text": "x", "label": "good"}\n{"text": \n', ["a.jsonl", "line 2", "JSON", "correct"]),
        ("a.csv", b"text,label\n", ["a.csv", "no rows"]),
        ("a.txt", b"great\n", ["a.txt", ".txt", ".csv"]),
    ],
    ids=["column", "label", "empty", "null", "encoding", "jsonl", "no rows", "extension"],
)
@pytest.mark.parametrize("part", ["--train", "--dev"])
def test_bad_data_is_refused_in_words(tmp_path, tiny_classifier, name, content, words, part):
    good = write_csv(tmp_path / "fine.csv", opinions(20))
    bad = tmp_path / name
    bad.write_bytes(content)
    files = {"--train": str(good), "--dev": str(good), part: str(bad)}
    result = fit(tmp_path, tiny_classifier, *(word for item in files.items() for word in item), *FEW_STEPS)
    assert_refused(result, tmp_path, *words)


def test_one_class_is_refused(tmp_path, tiny_encoder):
    train = write_csv(tmp_path / "train.csv", [row for row in opinions(20) if row["label"] == "good"])
    assert_refused(
        fit(tmp_path, tiny_encoder, "--train", str(train)), tmp_path, "train.csv", "'label'", "two classes", "add"
    )


def test_a_text_without_a_token_is_refused_with_its_row(tmp_path, tiny_encoder):
    rows = [*opinions(10), {"text": "[PAD] [SEP]", "label": "good"}]
    train = write_csv(tmp_path / "train.csv", rows)
    assert_refused(fit(tmp_path, tiny_encoder, "--train", str(train), *FEW_STEPS), tmp_path, "train.csv", "row 11")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--freeze-learner"], ["plain encoder"]),
        (["--max-length", "100000"], ["max_length"]),
        (["--freeze-learner", "--rounds", "2"], ["--rounds"]),
        (["--objective", "best"], ["faithful", "paper"]),
        (["--limit", "0"], ["--limit"]),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, tiny_encoder, options, words):
    train = write_csv(tmp_path / "train.csv", opinions(20))
    assert_refused(fit(tmp_path, tiny_encoder, "--train", str(train), *options), tmp_path, *words)


def test_a_model_that_is_not_there_is_refused(tmp_path):
    train = write_csv(tmp_path / "train.csv", opinions(20))
    assert_refused(fit(tmp_path, tmp_path / "nothing", "--train", str(train)), tmp_path, "nothing")
