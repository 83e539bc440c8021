"""Int8 products compute about what they replace, in graphs made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from vat_explain.errors import ModelError
from vat_export.optimize import GELU_BOTTOM, quantize

VOCABULARY, WIDTH, WIDE = 50, 16, 32
STATIC, BY_TOKEN = "one scale for all texts", "a scale for each token"


def batches(count: int = 4, seed: int = 0) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    mask = np.ones((3, 7), np.int64)
    mask[1, 4:] = 0
    return [{"input_ids": generator.integers(0, VOCABULARY, (3, 7)), "attention_mask": mask} for _ in range(count)]


def graph(
    *,
    gamma: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    turned: bool = False,
    shared: bool = False,
    order: tuple[int, int, int] | None = None,
    outputs: tuple[str, ...] = (),
) -> Any:
    """Embeddings, layer norm, product and bias, GELU, another product: what a feed-forward layer of an encoder is."""
    generator = np.random.default_rng(0)
    weights = {
        "table": generator.normal(size=(VOCABULARY, WIDTH)),
        "gamma": np.ones(WIDTH) if gamma is None else gamma,
        "beta": generator.normal(size=WIDTH) * 0.1,
        "up": generator.normal(size=(WIDE, WIDTH) if turned else (WIDTH, WIDE)),
        "bias": generator.normal(size=WIDE) if bias is None else bias,
        "down": generator.normal(size=(WIDE, WIDTH)),
    }
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["embedded"])]
    if order:
        nodes.append(helper.make_node("Transpose", ["embedded"], ["moved"], perm=order))
    source = "moved" if order else "embedded"
    nodes.append(helper.make_node("LayerNormalization", [source, "gamma", "beta"], ["normal"]))
    if turned:
        nodes.append(helper.make_node("Transpose", ["up"], ["up_turned"], perm=[1, 0]))
    nodes += [
        helper.make_node("MatMul", ["normal", "up_turned" if turned else "up"], ["product"]),
        helper.make_node("Add", ["bias", "product"], ["hidden"]),
        *([helper.make_node("Mul", ["product", "product"], ["squares"])] if shared else []),
        helper.make_node("Gelu", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "down"], ["out"]),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, None)
    names = ["out", *outputs, *(["squares"] if shared else [])]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    constants = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    made = helper.make_graph(nodes, "layer", [ids], results, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: Any, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, {"input_ids": feed["input_ids"]})
    return outputs


def quantized(model: Any, folder: Path, fitted: list[dict[str, np.ndarray]] | None = None) -> Any:
    onnx.save(model, folder / "model.onnx")
    quantize(folder / "model.onnx", batches() if fitted is None else fitted)
    return onnx.load(folder / "model.onnx")


def kinds(model: Any) -> list[str]:
    found = []
    for node in model.graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            found.append(BY_TOKEN if node.input[2] == "int8/one" else STATIC)
    return found


def assert_close(model: Any, other: Any, feed: dict[str, np.ndarray], limit: float = 0.02) -> None:
    for exact, near in zip(run(model, feed), run(other, feed), strict=True):
        assert np.sqrt(np.mean((exact - near) ** 2)) < limit * exact.std()


WIDE_CHANNEL = np.where(np.arange(WIDTH) == 3, 100.0, 1.0)
NO_CHANNEL = np.where(np.arange(WIDTH) == 3, 0.0, 1.0)


@pytest.mark.parametrize(
    "options",
    [{}, {"gamma": WIDE_CHANNEL}, {"gamma": NO_CHANNEL}, {"bias": np.ones(1)}, {"turned": True}, {"shared": True}],
    ids=["plain", "wide channel", "empty channel", "short bias", "turned weight", "product read twice"],
)
def test_a_layer_is_close_on_unseen_tokens(tmp_path: Path, options: dict[str, Any]) -> None:
    model = graph(**options)
    made = quantized(model, tmp_path)
    assert kinds(made) == [STATIC, BY_TOKEN]
    assert {tensor.name for tensor in made.graph.initializer}.isdisjoint({"up", "down"})
    assert_close(model, made, batches(1, seed=7)[0])


def test_the_bias_joins_the_product_unless_the_product_is_an_output(tmp_path: Path) -> None:
    assert "Add" not in {node.op_type for node in quantized(graph(), tmp_path).graph.node}
    kept = graph(outputs=("product",))
    made = quantized(kept, tmp_path)
    assert "Add" in {node.op_type for node in made.graph.node}
    assert_close(kept, made, batches(1)[0])


@pytest.mark.parametrize("case", ["other layout", "no batches"])
def test_scales_are_those_of_each_token_where_none_can_be_found(tmp_path: Path, case: str) -> None:
    model = graph(order=(1, 0, 2) if case == "other layout" else None)
    made = quantized(model, tmp_path, [] if case == "no batches" else None)
    assert kinds(made) == [BY_TOKEN, BY_TOKEN]
    assert_close(model, made, batches(1)[0])


def test_values_beyond_those_seen_are_held_and_do_not_wrap(tmp_path: Path) -> None:
    model = graph()
    few = [{"input_ids": np.zeros((1, 1), np.int64), "attention_mask": np.ones((1, 1), np.int64)}]
    feed = batches(1)[0]
    exact, near = run(model, feed)[0], run(quantized(model, tmp_path, few), feed)[0]
    assert np.corrcoef(exact.ravel(), near.ravel())[0, 1] > 0.8


def test_explanations_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    made = quantized(graph(gamma=WIDE_CHANNEL), tmp_path)
    feed = batches(1)[0]
    alone = run(made, {name: array[:1] for name, array in feed.items()})[0]
    np.testing.assert_array_equal(alone[0], run(made, feed)[0][0])


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not finite"):
        quantized(graph(gamma=np.full(WIDTH, np.inf)), tmp_path)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_no_gelu_lies_below_its_bottom(approximate: str) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph([helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)], "gelu", [x], [y])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [values] = session.run(None, {"x": np.linspace(-6, 6, 100_001, dtype=np.float32)})
    assert GELU_BOTTOM < values.min() < GELU_BOTTOM + 0.002
