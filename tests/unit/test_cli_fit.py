"""`vat-explain fit`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner, Result

from tests import tiny
from tests.opinions import opinions, write_csv
from vat_explain.cli import app
from vat_explain.data import load_examples
from vat_explain.errors import ModelError
from vat_explain.explainer import VATExplainer
from vat_explain.fitting import FitConfig, _Plan
from vat_explain.fitting import fit as run
from vat_explain.loading import load_classifier
from vat_explain.models import SINGLE_LABEL, Classifier
from vat_explain.text import SpecialTokens
from vat_explain.vat.batches import TrainingSet
from vat_explain.vat.trainer import LoopConfig

FEW_STEPS = ["--epochs", "1", "--learner-epochs", "1", "--rounds", "1", "--max-length", "32", "--quiet"]


def fit(folder: Path, model: Path, *options: str) -> Result:
    place = ["--output", str(folder / "out"), "--mixed-precision", "no"]  # one for the life of the process
    return CliRunner().invoke(app, ["fit", "--model", str(model), *place, *options])


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


def test_an_output_that_cannot_be_is_refused_before_the_training(tmp_path, tiny_encoder):
    train = write_csv(tmp_path / "train.csv", opinions(20))
    (tmp_path / "file").write_text("")
    for place in ("/proc/out", str(tmp_path / "file" / "out")):  # not even root may make these
        result = CliRunner().invoke(
            app, ["fit", "--model", str(tiny_encoder), "--train", str(train), "--output", place, "--epochs", "9999"]
        )
        assert_refused(result, tmp_path, "cannot write", "name another")


@pytest.mark.parametrize("change", ["code", "tokens", "cut", "head", "one number"])
def test_a_model_that_cannot_be_bundled_is_refused_before_the_training(tmp_path, tiny_classifier, change):
    model = shutil.copytree(tiny_classifier, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    if change == "code":
        config["auto_map"] = {"AutoModel": "mine.Model"}
    elif change == "head":
        config["id2label"] = {"0": "bad", "1": "fair", "2": "good"}
    elif change == "one number":
        config |= {"id2label": {"0": "LABEL_0"}, "problem_type": None}
    elif change == "tokens":
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.add_tokens(["wow"])
        tokenizer.save_pretrained(model)
    else:
        weights = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (model / "config.json").write_text(json.dumps(config))
    labels = ["bad", "fair", "good"] if change == "head" else ["bad", "good"]
    rows = [{"text": f"the film was {label}", "label": label} for label in labels * 5]
    train = write_csv(tmp_path / "train.csv", rows)
    result = fit(tmp_path, model, "--train", str(train), "--freeze-learner", "--epochs", "9999")
    words = {
        "code": ["the configuration of the model sets ['auto_map']", "Remove"],
        "tokens": ["resize_token_embeddings"],
        "cut": ["no classifier could be loaded"],
        "head": ["no classifier could be loaded"],
        "one number": ["gives one number"],
    }
    assert_refused(result, tmp_path, *words[change])


def test_a_classifier_in_half_precision_is_fitted_in_full(tmp_path, tiny_classifier):
    model = tmp_path / "half"
    AutoModelForSequenceClassification.from_pretrained(tiny_classifier, dtype=torch.bfloat16).save_pretrained(model)
    AutoTokenizer.from_pretrained(tiny_classifier).save_pretrained(model)
    train = write_csv(tmp_path / "train.csv", opinions(20))
    result = fit(tmp_path, model, "--train", str(train), "--freeze-learner", "--epochs", "1", "--quiet")
    assert result.exit_code == 0, result.output
    assert VATExplainer.from_pretrained(tmp_path / "out").learner.model.dtype == torch.float32
    explainer = VATExplainer.from_pretrained(tmp_path / "out")
    whole = explainer.explain(["the film was great"])[0]
    explainer.learner.bfloat16()
    half = explainer.explain(["the film was great"])[0]
    assert [token.score for token in half.tokens] == pytest.approx([token.score for token in whole.tokens], abs=0.1)


def test_models_in_memory_that_cannot_be_fitted_are_refused(tmp_path):
    data = load_examples(write_csv(tmp_path / "train.csv", opinions(20)))
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    with pytest.raises(ModelError, match="BertModel is no sequence classifier"):
        run(tiny.model("bert", 2, **names).base_model, data, tokenizer=tiny.tokenizer())
    with pytest.raises(ModelError, match=r"torch.bfloat16.*call .float()"):
        run(tiny.model("bert", 2, **names).bfloat16(), data, tokenizer=tiny.tokenizer())


def test_a_model_in_memory_can_be_trained_further(tmp_path):
    data = load_examples(write_csv(tmp_path / "train.csv", opinions(20)))
    model = tiny.model("bert", 2, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    model.base_model.embeddings.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    config = FitConfig(freeze_learner=True, epochs=1, loop=LoopConfig(quiet=True))
    run(model, data, tokenizer=tiny.tokenizer(), config=config)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before


def test_a_new_head_learns_at_the_rate_of_heads(tiny_encoder, tiny_classifier, tmp_path):
    data = load_examples(write_csv(tmp_path / "train.csv", opinions(20)))
    config = FitConfig(learner_epochs=1, epochs=1, encoder_rate=0.0, loop=LoopConfig(quiet=True))
    torch.manual_seed(0)
    plain = load_classifier(tiny_encoder, SpecialTokens.from_tokenizer(tiny.tokenizer()), ("bad", "good"), SINGLE_LABEL)
    fitted = run(tiny_encoder, data, config=config).learner
    assert torch.equal(fitted.embedding_layer.weight, plain.embedding_layer.weight)
    assert not torch.equal(fitted.model.classifier.bias, plain.model.classifier.bias)
    classifier = AutoModelForSequenceClassification.from_pretrained(tiny_classifier)
    fitted = run(tiny_classifier, data, config=config).learner
    assert torch.equal(fitted.model.classifier.bias, classifier.classifier.bias)


@pytest.mark.parametrize(("new", "given", "epochs"), [(True, None, 20), (True, 2, 2), (False, None, 3)])
def test_a_new_head_gets_more_epochs_where_texts_are_few(new, given, epochs, tiny_encoder, tiny_classifier, tmp_path):
    data = load_examples(write_csv(tmp_path / "train.csv", opinions(20)))
    config = FitConfig(learner_epochs=given, epochs=1, loop=LoopConfig(quiet=True))
    history = run(tiny_encoder if new else tiny_classifier, data, config=config).card.training["history"]
    assert sum("learner" in entry["phase"] for entry in history) == epochs


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("new_head", [True, False])
def test_a_learner_is_trained_as_a_whole(mask, new_head):
    special = SpecialTokens.from_tokenizer(tiny.tokenizer())
    learner = Classifier(tiny.model("bert", 2), special if mask else dataclasses.replace(special, mask=None))
    data = TrainingSet([], torch.zeros(0), 0)
    plan = _Plan(learner, data, data, FitConfig(learner_epochs=1), new_head=new_head)
    trained = [id(parameter) for module, _ in plan.phases()[0].learning_rates for parameter in module.parameters()]
    assert sorted(trained) == sorted(id(parameter) for parameter in learner.parameters())
