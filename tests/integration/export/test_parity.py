"""Exports compute what their bundles compute."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import bundles, exported
from vat_explain.errors import BundleError, InputError, ModelError
from vat_explain.explainer import VATExplainer
from vat_explain.explanation import Explanation
from vat_export import spec as format_
from vat_export.onnx import export_onnx
from vat_export.optimize import quantize
from vat_export.runtime import OnnxExplainer
from vat_export.samples import random_batches

LIMIT = 1e-4
TEXTS = [
    "a good film",
    ("the plot was not bad", "but the actors were terrible, and it was slow"),
    "An awful, DULL movie — naïve café 😀 never again! [SEP] really",
    "the room was lovely and the food good " * 90,  # several windows
    ("i we you they " * 100, "boring brilliant " * 120),
]


@pytest.mark.parametrize("architecture", exported.CASES)
def test_records_are_those_of_the_bundle(architecture: str) -> None:
    onnx = OnnxExplainer(exported.export(architecture).directory, threads=1)
    torch_side = VATExplainer.from_pretrained(exported.bundle(architecture))
    for target in (None, 0):
        for ours, theirs in zip(onnx.explain(TEXTS, target), torch_side.explain(TEXTS, target), strict=True):
            assert_same(ours, theirs)


def assert_same(ours: Explanation, theirs: Explanation) -> None:
    one, other = ours.to_dict(), theirs.to_dict()
    assert one.pop("provenance").items() >= other.pop("provenance").items()
    assert_close(one, other)


def assert_close(one: object, other: object) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_close(left, right)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=LIMIT)
    else:
        assert one == other


@pytest.mark.parametrize("architecture", exported.CASES)
def test_every_shape_agrees(architecture: str) -> None:
    onnx = OnnxExplainer(exported.export(architecture).directory, threads=1)
    model = VATExplainer.from_pretrained(exported.bundle(architecture)).model
    shapes = [(rows, tokens) for rows in (1, 3, 8) for tokens in (4, 5, 31, 128, 512)]
    for batch in random_batches(onnx.spec, shapes):
        feed = [batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")]
        with torch.no_grad():
            output = model(*map(torch.from_numpy, feed))
        theirs = (output.logits, output.importance, output.class_importance)
        for ours, tensor in zip(onnx.forward(*feed), theirs, strict=True):
            assert ours.shape == tuple(tensor.shape)
            assert np.abs(ours - tensor.numpy()).max() <= LIMIT
        unscored = ~batch["scorable"]
        _, importance, parts = onnx.forward(*feed)
        assert not importance[unscored].any()
        assert not parts[unscored].any()
        np.testing.assert_allclose(importance.sum(1), 1, atol=1e-5)


def test_segments_matter_where_the_model_reads_them() -> None:
    assert exported.export("bert").spec.inputs == format_.INPUTS
    assert exported.export("roberta").spec.inputs == format_.INPUTS[:2]
    onnx = OnnxExplainer(exported.export("bert").directory, threads=1)
    ids = np.array([[2, 10, 3, 11, 3]])
    first = onnx.forward(ids, np.ones_like(ids))
    second = onnx.forward(ids, np.ones_like(ids), np.array([[0, 0, 0, 1, 1]]))
    assert np.abs(first[0] - second[0]).max() > 1e-3


def test_the_report_says_how_close_and_that_batches_do_not_matter() -> None:
    report = exported.export("bert").spec.report
    assert report["checked"]
    assert max(report["largest_difference"].values()) < LIMIT
    assert report["batch_mates"] == {
        "largest_difference": 0.0,
        "median_relative_difference": 0.0,
        "lowest_spearman": pytest.approx(1),
    }


@pytest.mark.parametrize("architecture", exported.CASES)
def test_int8_is_close_and_unmoved_by_the_batch(architecture: str) -> None:
    made = exported.export(architecture, int8=True)
    report = made.spec.report["int8"]
    assert made.spec.precision == "int8"
    assert report["label_agreement"] > 0.9
    assert report["spearman_mean"] > 0.98
    assert report["batch_mates"]["largest_difference"] < 1e-6
    exact = OnnxExplainer(exported.export(architecture).directory).explain(TEXTS)
    for near, far in zip(OnnxExplainer(made.directory).explain(TEXTS), exact, strict=True):
        assert near.scores == pytest.approx(far.scores, abs=0.02)
    small, large = ((e.directory / "model.onnx").stat().st_size for e in (made, exported.export(architecture)))
    assert small < large
    explanation = OnnxExplainer(made.directory).explain(["a good film"])[0]
    assert explanation.provenance["precision"] == "int8, approximate"


def test_the_compressor_stays_in_float32() -> None:
    import onnx

    graph = onnx.load(exported.export("bert", int8=True).directory / "model.onnx").graph
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kept = [name for name in weights if "compressor" in name and name.endswith("weight")]
    assert kept
    assert {weights[name] for name in kept} == {onnx.TensorProto.FLOAT}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    by_token = [node for node in products if node.input[2] == "int8/one"]
    assert [len(products), len(by_token)] == [12, 4]  # of two layers, in which two products follow no layer norm


def test_an_export_that_fails_its_check_is_not_put_in_place(tmp_path: Path) -> None:
    bundles.save(tmp_path / "bundle", bundles.vat_model("bert", seed=1), max_length=exported.MAX_LENGTH)
    message = r"differ by .* in logits .*nothing was written"
    with exported.same_graph("bert"), pytest.raises(ModelError, match=message):  # the graph of other weights
        export_onnx(tmp_path / "bundle", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vat_export.onnx.EMBED_LIMIT", 1000)
    made = export_onnx(exported.bundle("bert"), tmp_path / "out")
    names = sorted(path.name for path in made.directory.iterdir())
    assert names == ["manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"]
    ours = OnnxExplainer(made.directory).explain(TEXTS)
    embedded = OnnxExplainer(exported.export("bert").directory).explain(TEXTS)
    for one, other in zip(ours, embedded, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)
    with pytest.raises(ModelError, match="2 GiB"):
        quantize(made.directory / "model.onnx", [])
    (made.directory / "model.onnx.data").unlink()
    with pytest.raises(BundleError, match=r"lacks 'model\.onnx\.data'"):
        OnnxExplainer(made.directory)


def test_what_the_directory_holds() -> None:
    made = exported.export("bert")
    assert sorted(path.name for path in made.directory.iterdir()) == ["manifest.json", "model.onnx", "tokenizer.json"]
    manifest = json.loads((made.directory / "manifest.json").read_text())
    assert list(manifest)[:3] == ["format_version", "readable_from", "files"]
    assert manifest["files"].keys() == {"model.onnx", "tokenizer.json"}
    assert manifest["card"]["labels"] == manifest["labels"] == list(made.spec.labels)


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="not part of a model export"):
        export_onnx(exported.bundle("bert"), tmp_path / "out")
    bundles.save(tmp_path / "bundle")
    with pytest.raises(BundleError, match="not part of"):
        export_onnx(exported.bundle("bert"), tmp_path / "bundle")


def test_a_text_that_cannot_be_explained_is_named_before_the_export(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="text 1: "):
        export_onnx(exported.bundle("bert"), tmp_path / "export", texts=["good", ""])
    assert not (tmp_path / "export").exists()


def test_an_export_without_check_says_so(tmp_path: Path) -> None:
    with exported.same_graph("bert"):
        made = export_onnx(exported.bundle("bert"), tmp_path / "export", check=False)
    assert made.spec.report == {"checked": False}
    assert OnnxExplainer(tmp_path / "export").spec.report == {"checked": False}


def test_what_the_exporter_cannot_do_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: 1 / 0)
    with pytest.raises(ModelError, match="BertForSequenceClassification cannot be exported to ONNX: division by zero"):
        export_onnx(exported.bundle("bert"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_adds_tokens_unknown_to_the_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = VATExplainer.from_pretrained

    def altered(directory: Path) -> VATExplainer:
        explainer = load(directory)
        special = explainer.learner.special
        explainer.learner.special = dataclasses.replace(special, fixed=special.fixed - {3})
        return explainer

    monkeypatch.setattr(VATExplainer, "from_pretrained", altered)
    with pytest.raises(ModelError, match=r"adds the token '\[SEP\]'"):
        export_onnx(exported.bundle("bert"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
