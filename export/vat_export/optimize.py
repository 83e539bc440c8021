"""Make an exported graph smaller and faster: int8 matrix products for the learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vat_explain.errors import ModelError

COMPRESSOR = "/model.compressor"
"""Part of the names of the modules, kept in the graph's metadata, that belong to the compressor."""

LARGEST_WEIGHT = 64
"""Weights become integers up to this: with 127, CPUs without VNNI would cut off the sums of two products at 16 bits."""

_MIDDLE = 128
_PREFIX = "int8/"
_MICROSOFT = "com.microsoft"


def quantize(path: Path) -> None:
    """Turn the weights of a graph's matrix products into int8, one scale a column; activations follow at run time.

    Each token's activations get a scale and a zero point of their own, y = scale (q W - zero · sum W). Those of
    onnxruntime's dynamic quantisation are shared by the batch, so that an explanation would move with the texts beside
    it, and a few large values would cost all tokens their precision. Where they come out of a layer norm, zero is in
    the middle for all tokens, which loses little and saves two walks over the product. The compressor stays in
    float32, and so do products that are computed once a text.

    Parameters
    ----------
    path : Path
        The graph, which is replaced.

    Raises
    ------
    ModelError
        If the graph keeps its weights in another file, or holds no product to quantise.
    """
    model = onnx.load(path, load_external_data=False)
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ModelError("int8 is for models whose weights fit into one file of 2 GiB; export this one without it")
    if not _Quantizer(model.graph).run():
        raise ModelError("the graph holds no matrix product that could be quantised; export it without int8")
    del model.graph.value_info[:]  # shapes of values that are gone
    if all(entry.domain != _MICROSOFT for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    path.write_bytes(model.SerializeToString())


class _Quantizer:
    """Rewrites a graph node by node."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes: list[Any] = []
        self._centred = {name for node in graph.node if node.op_type == "LayerNormalization" for name in node.output}
        self._quantized: set[str] = set()  # activations, which several products may share

    def run(self) -> int:
        """Replace the products that can be; return how many."""
        self._constant("last", np.array([-1], np.int64))
        self._constant("zero", np.float32(0))
        self._constant("one", np.float32(1))
        self._constant("levels", np.float32(255))
        self._constant("least", np.float32(1e-30))
        self._constant("half_levels", np.float32(127))
        self._constant("middle", np.uint8(_MIDDLE))
        self._constant("no_offset", np.uint8(0))
        count = 0
        for node in self._graph.node:
            if self._suits(node):
                self._replace(node, str(count))
                count += 1
            else:
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        return count

    def _suits(self, node: Any) -> bool:
        weight = self._weights.get(node.input[1]) if node.op_type == "MatMul" else None
        in_compressor = any(entry.key == "namespace" and COMPRESSOR in entry.value for entry in node.metadata_props)
        return weight is not None and len(weight.dims) == 2 and not in_compressor

    def _replace(self, node: Any, number: str) -> None:
        source, weight = node.input[0], numpy_helper.to_array(self._weights[node.input[1]])
        scales = np.maximum(np.abs(weight).max(0) / LARGEST_WEIGHT, 1e-30).astype(np.float32)
        integers = np.round(weight / scales).astype(np.int8)
        centred = source in self._centred
        if source not in self._quantized:
            self._quantize_rows(source, weight.shape[0], centred=centred)
        row = f"{source}/"
        matrix = self._constant(f"{number}/matrix", integers)
        columns = self._constant(f"{number}/scales", scales)
        width = self._constant(f"{number}/width", np.array([weight.shape[1]], np.int64))
        zero = f"{_PREFIX}{'middle' if centred else 'no_offset'}"
        operands = [f"{_PREFIX}{row}rows", matrix, f"{_PREFIX}one", columns, zero]
        product = self._add("MatMulIntegerToFloat", operands, f"{number}/product", domain=_MICROSOFT)
        if not centred:
            sums = integers.sum(0, dtype=np.int64).astype(np.float32) * scales
            offset = self._add(
                "Mul", [f"{_PREFIX}{row}zeros", self._constant(f"{number}/sums", sums)], f"{number}/offset"
            )
            product = self._add("Sub", [product, offset], f"{number}/moved")
        result = self._add("Mul", [product, f"{_PREFIX}{row}scales"], f"{number}/result")
        shape = self._add("Concat", [f"{_PREFIX}{row}shape", width], f"{number}/shape", axis=0)
        self._nodes.append(helper.make_node("Reshape", [result, shape], list(node.output)))

    def _quantize_rows(self, source: str, width: int, *, centred: bool) -> None:
        """Turn activations [..., width] into rows of bytes, each row with its scale and, unless centred, its zero."""
        self._quantized.add(source)
        row, last = f"{source}/", f"{_PREFIX}last"
        flat_shape = self._constant(row + "flat_shape", np.array([-1, width], np.int64))
        flat = self._add("Reshape", [source, flat_shape], row + "flat")
        highest = self._add("ReduceMax", [flat, last], row + "highest", keepdims=0)
        lowest = self._add("ReduceMin", [flat, last], row + "lowest", keepdims=0)
        fitted = self._centred_scale if centred else self._free_scale
        scale, offset = fitted(row, lowest, highest)
        self._add("QuantizeLinear", [flat, scale, offset], row + "rows", axis=0)
        self._add("Unsqueeze", [scale, last], row + "scales")
        self._add("Shape", [source], row + "shape", start=0, end=-1)

    def _centred_scale(self, row: str, lowest: str, highest: str) -> tuple[str, str]:
        """Scales and zeros [rows] that are the middle of the bytes."""
        depth = self._add("Neg", [lowest], row + "depth")
        largest = self._add("Max", [highest, depth], row + "largest")
        step = self._add("Div", [largest, f"{_PREFIX}half_levels"], row + "step")
        scale = self._add("Max", [step, f"{_PREFIX}least"], row + "scale")
        count = self._add("Shape", [scale], row + "count")
        value = numpy_helper.from_array(np.array([_MIDDLE], np.uint8))
        return scale, self._add("ConstantOfShape", [count], row + "offset", value=value)

    def _free_scale(self, row: str, lowest: str, highest: str) -> tuple[str, str]:
        """Scales and zeros [rows] that spread the bytes from the lowest to the highest value."""
        top = self._add("Max", [highest, f"{_PREFIX}zero"], row + "top")
        bottom = self._add("Min", [lowest, f"{_PREFIX}zero"], row + "bottom")
        spread = self._add("Sub", [top, bottom], row + "spread")
        step = self._add("Div", [spread, f"{_PREFIX}levels"], row + "step")
        scale = self._add("Max", [step, f"{_PREFIX}least"], row + "scale")
        down = self._add("Div", [bottom, scale], row + "down")
        up = self._add("Neg", [down], row + "up")
        zero = self._add("Round", [up], row + "zero")
        self._add("Unsqueeze", [zero, f"{_PREFIX}last"], row + "zeros")
        return scale, self._add("Cast", [zero], row + "offset", to=TensorProto.UINT8)

    def _add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node; return the name of its output."""
        self._nodes.append(helper.make_node(kind, inputs, [_PREFIX + name], name=_PREFIX + name, **attributes))
        return _PREFIX + name

    def _constant(self, name: str, values: NDArray[Any] | np.generic) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values), _PREFIX + name))
        return _PREFIX + name
