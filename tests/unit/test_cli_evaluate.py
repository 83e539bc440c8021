"""`vat-explain evaluate` and `vat-explain demo`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.opinions import opinions
from vat_explain.cli import app
from vat_explain.explainer import VATExplainer


def evaluate(bundle: Path, folder: Path, *options: str) -> Result:
    data = folder / "texts.jsonl"
    if not data.exists():
        rows = [{**row, "spans": [[0, 3]]} for row in opinions(6)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fixed = ["evaluate", str(bundle), "--data", str(data), "--output", str(folder / "out"), "--quiet"]
    return CliRunner().invoke(app, [*fixed, *options])


def test_evaluate_prints_one_json_document_and_writes_a_report(tiny_bundle, tmp_path):
    options = ["--methods", "vat,random", "--operators", "mask", "--limit", "4", "--seed", "1"]
    result = evaluate(tiny_bundle, tmp_path, *options, "--rationale-column", "spans", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(document["methods"]) == ["vat", "random"]
    assert set(document["methods"]["vat"]["auprc"]) == {"mean", "low", "high"}
    assert document["provenance"]["texts"] == 4
    assert document["provenance"]["settings"]["seed"] == 1
    assert not any(name.endswith("_delete") for name in document["methods"]["vat"])
    assert (tmp_path / "out" / "report.html").exists()


def test_evaluate_prints_a_table(tiny_bundle, tmp_path):
    options = ["--methods", "vat,grad-l2", "--limit", "2", "--search-budget", "0"]
    result = evaluate(tiny_bundle, tmp_path, *options)
    assert result.exit_code == 0, result.output
    assert "grad-l2" in result.stdout
    assert "report.html" in result.stdout
    assert "normalised" not in (tmp_path / "out" / "results.csv").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "vat,magic"], ["'magic'", "random"]),
        (["--methods", "vat,vat"], ["once"]),
        (["--operators", "burn"], ["burn", "mask or delete"]),
        (["--rationale-column", "marks"], ["texts.jsonl", "'marks'", "row 1"]),
        (["--limit", "0"], ["--limit"]),
    ],
)
def test_evaluate_refuses_in_words(tiny_bundle, tmp_path, options, words):
    result = evaluate(tiny_bundle, tmp_path, *options)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert all(word in result.stderr for word in words)
    assert not (tmp_path / "out").exists()


def test_evaluate_names_file_and_row_of_a_text_without_tokens(tiny_bundle, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "fine"}\n{"text": "[PAD]"}\n')
    result = evaluate(tiny_bundle, tmp_path)
    assert result.exit_code == 2
    assert "texts.jsonl, row 2" in result.stderr
    assert not (tmp_path / "out").exists()


def test_evaluate_does_not_write_over_a_file(tiny_bundle, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "is a file" in evaluate(tiny_bundle, tmp_path).stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_demo_leaves_a_bundle_a_page_and_figures_and_can_be_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr("vat_explain.corpus.generator.SPLIT_SIZES", {"train": 60, "dev": 20, "test": 12})
    folder = tmp_path / "demo"
    shown, printed = (
        CliRunner().invoke(app, ["demo", "--output", str(folder), "--quiet", *options]) for options in ([], ["--json"])
    )
    assert shown.exit_code == printed.exit_code == 0, shown.output + printed.output
    assert "token AUPRC" in shown.stdout
    assert "known to decide:" in shown.stdout
    assert str(folder / "explanations.html") in shown.stdout
    page = (folder / "explanations.html").read_text()
    assert "<u>" in page
    assert page.count("<article") == 12
    figures = json.loads(printed.stdout)
    assert figures == json.loads((folder / "metrics.json").read_text())
    assert 0 <= figures["accuracy"] <= 1
    assert list(figures["methods"]) == ["vat", "ig", "random"]
    [one] = VATExplainer.from_pretrained(folder / "bundle").explain(["the soup was not lovely"])
    assert one.label in {"complaint", "praise", "recommendation", "request", "warning"}


def test_demo_does_not_write_over_what_is_not_its_own(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
