"""Exports that somebody altered on purpose, with digests that fit: nothing of them is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import exported
from vat_explain.errors import BundleError, InputError, ModelError
from vat_export.protobuf import DOMAINS, check_graph
from vat_export.runtime import OnnxExplainer


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return shutil.copytree(exported.export("bert").directory, tmp_path / "export")


def sign(directory: Path, **changes: Any) -> None:
    """Write a manifest with the digests of the files as they are now."""
    path = directory / "manifest.json"
    names = [name.name for name in directory.iterdir() if name != path and name.is_file()]
    files = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in sorted(names)}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": files} | changes))


def alter(directory: Path, change: Callable[[Any], object]) -> None:
    model = onnx.load(directory / "model.onnx", load_external_data=False)
    change(model)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    sign(directory)


def test_the_untouched_export_loads(export: Path) -> None:
    sign(export)
    OnnxExplainer(export)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "tokenizer.json"])
def test_symbolic_and_hard_links_are_refused(export: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (export / name).rename(elsewhere)
    os.link(elsewhere, export / name)
    with pytest.raises(BundleError, match="is a hard link"):
        OnnxExplainer(export)
    (export / name).unlink()
    (export / name).symlink_to(elsewhere)
    with pytest.raises(BundleError, match="is a link or device"):
        OnnxExplainer(export)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_altered_and_missing_files_are_refused(export: Path, name: str) -> None:
    data = (export / name).read_bytes()
    (export / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match="damaged or was altered"):
        OnnxExplainer(export)
    (export / name).unlink()
    with pytest.raises(BundleError, match="lacks"):
        OnnxExplainer(export)


def test_other_files_and_paths_outside_are_refused(export: Path) -> None:
    (export / "evil.so").write_bytes(b"")
    with pytest.raises(BundleError, match=r"evil\.so"):
        OnnxExplainer(export)
    for name in ("../evil.so", "/etc/passwd", "evil.so"):
        sign(export, files={"model.onnx": "0" * 64, "tokenizer.json": "0" * 64, name: "0" * 64})
        with pytest.raises(BundleError, match="no part of this format"):
            OnnxExplainer(export)


LOCATIONS = ["../elsewhere", "/etc/passwd", "elsewhere", "*/_ORT_MEM_ADDR_/*", "./model.onnx.data", "tokenizer.json"]


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("allowed", [False, True])
def test_weights_elsewhere_are_refused(export: Path, location: str, allowed: bool) -> None:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="model.onnx.data")
        tensor.external_data.add(key="location", value=location)

    if allowed:
        (export / "model.onnx.data").write_bytes(b"0" * 10_000_000)
    alter(export, change)
    with pytest.raises(BundleError, match="keeps weights in"):
        OnnxExplainer(export)


def subgraph_with(node: Any) -> Any:
    """A node of a graph inside a graph."""
    inner = onnx.helper.make_graph([node], "inner", [], [])
    return onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)


FOREIGN = onnx.helper.make_node("Op", [], ["y"], domain="evil.corp")
CONTEXT = onnx.helper.make_node("EPContext", [], ["y"], domain="com.microsoft")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.opset_import.add(domain="evil.corp", version=1), "domain 'evil.corp'"),
        (lambda m: m.graph.node.append(FOREIGN), "domain 'evil.corp'"),
        (lambda m: m.graph.node.append(subgraph_with(FOREIGN)), "domain 'evil.corp'"),
        (lambda m: m.graph.node.append(CONTEXT), "EPContext"),
        (lambda m: m.functions.add(name="f", domain="evil.corp"), "defines functions"),
    ],
)
def test_operators_of_others_are_refused(export: Path, change: Callable[[Any], object], message: str) -> None:
    alter(export, change)
    with pytest.raises(BundleError, match=message):
        OnnxExplainer(export)


@pytest.mark.parametrize("name", ["logits", "token_importance", "class_importance"])
def test_outputs_of_other_shapes_are_refused(export: Path, name: str) -> None:
    def make_scalar(model: Any) -> None:
        (node,) = [node for node in model.graph.node if name in node.output]
        node.output[list(node.output).index(name)] = "before"
        for other in model.graph.node:
            other.input[:] = ["before" if taken == name else taken for taken in other.input]
        model.graph.node.append(onnx.helper.make_node("ReduceMean", ["before"], [name], keepdims=0))
        (output,) = [output for output in model.graph.output if output.name == name]
        output.type.tensor_type.ClearField("shape")

    alter(export, make_scalar)
    with pytest.raises(BundleError, match="the graph has inputs"):
        OnnxExplainer(export)


def test_a_second_graph_in_the_same_file_is_seen(export: Path) -> None:
    extra = onnx.ModelProto()
    extra.graph.node.append(FOREIGN)
    with (export / "model.onnx").open("ab") as stream:  # protobuf merges messages that follow each other
        stream.write(extra.SerializeToString())
    sign(export)
    with pytest.raises(BundleError, match=r"evil\.corp"):
        OnnxExplainer(export)


def test_a_tag_that_runtimes_read_as_another_is_refused(export: Path) -> None:
    extra = onnx.GraphProto()
    extra.node.append(FOREIGN)
    content = extra.SerializeToString()
    with (export / "model.onnx").open("ab") as stream:  # the field 7, graph, after the lower 32 bits are taken
        stream.write(onnx_varint((7 << 3 | 2) | 1 << 32) + onnx_varint(len(content)) + content)
    sign(export)
    with pytest.raises(BundleError, match="field key"):
        OnnxExplainer(export)


def test_a_graph_in_another_format_is_refused(export: Path) -> None:
    (export / "model.onnx").write_bytes(b"\x12\x04aaORTM" + bytes(64))  # ONNX Runtime tells its own by these letters
    check_graph(b"\x12\x06aaORTM")
    sign(export)
    with pytest.raises(BundleError):
        OnnxExplainer(export)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version 2"),
        ({"labels": ["a", "b", "c"]}, "reference must hold"),
        ({"labels": ["a", "b", "c"], "reference": [0.1, 0.2, 0.7]}, "for 3 classes"),
        ({"inputs": ["input_ids", "attention_mask"]}, "the graph has inputs"),
        ({"inputs": ["../x"]}, "inputs must be"),
        ({"opset": 23}, "opset must be"),
        ({"precision": "int4"}, "precision must be"),
        ({"max_length": 0}, "max_length must be"),
        ({"vocabulary_size": 2}, "special must hold"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"overlap": "64"}, "overlap must be of type int"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(export: Path, changes: dict[str, Any], message: str) -> None:
    sign(export, **changes)
    with pytest.raises(BundleError, match=message):
        OnnxExplainer(export)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_arbitrary_bytes_pass_or_are_refused(data: bytes) -> None:
    try:
        check_graph(data)
    except BundleError:
        return
    model = onnx.ModelProto()
    with suppress(DecodeError):  # whether it is a graph, the runtime says
        model.ParseFromString(data)
    assert {entry.domain for entry in model.opset_import} | {node.domain for node in model.graph.node} <= DOMAINS
    assert not model.functions


@pytest.mark.parametrize("content", [b"", b"\x0a", b"not a graph", b"\x38" * 100, b"\x3a\xff\xff\xff\xff\x7f"])
def test_what_is_no_graph_is_refused(export: Path, content: bytes) -> None:
    (export / "model.onnx").write_bytes(content)
    sign(export)
    with pytest.raises(BundleError, match=r"no ONNX file|cannot load|the graph has inputs"):
        OnnxExplainer(export)


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(100):  # graph -> node -> attribute -> graph
        for field in (6, 5, 1):
            data = bytes([field << 3 | 2]) + onnx_varint(len(data)) + data
    with pytest.raises(BundleError, match="levels deep"):
        check_graph(b"\x3a" + onnx_varint(len(data)) + data)


def onnx_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


IDS = np.array([[2, 10, 11, 3]])
ONES = np.ones_like(IDS)


@pytest.mark.parametrize(
    ("ids", "mask", "types", "message"),
    [
        (IDS - 3, ONES, None, "reach from -1"),
        (IDS + 10_000, ONES, None, "the vocabulary has the ids"),
        (IDS, ONES * 2, None, "attention_mask must be 1"),
        (IDS, ONES * 0, None, "attention_mask must be 1"),
        (IDS, np.array([[1, 0, 1, 1]]), None, "attention_mask must be 1"),
        (IDS, ONES[:, :3], None, "attention_mask has shape"),
        (IDS, ONES, ONES * 5, "token_type_ids must be"),
        (IDS[:0], ONES[:0], None, "at least one row"),
        (IDS[:, :0], ONES[:, :0], None, "at least one row"),
        (np.tile(IDS, 200), np.tile(ONES, 200), None, "1 to 512 tokens"),
        (IDS[0], ONES[0], None, r"must be \[batch, tokens\]"),
        (IDS.astype(float), ONES, None, "must hold integers"),
    ],
)
def test_ids_and_masks_that_make_no_sense_are_refused(ids: Any, mask: Any, types: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        OnnxExplainer(exported.export("bert").directory).forward(ids, mask, types)


def test_unknown_providers_and_threads_are_refused() -> None:
    directory = exported.export("bert").directory
    with pytest.raises(ModelError, match="providers are"):
        OnnxExplainer(directory, providers=["EvilProvider"])
    with pytest.raises(InputError, match="threads is 0"):
        OnnxExplainer(directory, threads=0)
    assert OnnxExplainer(directory).providers[-1] == "CPUExecutionProvider"
