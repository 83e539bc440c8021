"""Make an exported graph smaller and faster: int8 matrix products for the learner."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vat_explain.assemble import FloatArray
from vat_explain.errors import ModelError
from vat_export.calibrate import largest_sizes
from vat_export.samples import Batch

COMPRESSOR = "/model.compressor"
"""Part of the names of the modules, kept in the graph's metadata, that belong to the compressor."""

LARGEST_WEIGHT = 96
"""Weights become integers up to this. CPUs without VNNI cut off sums of two products with bytes at 16 bits: never up to
64; with 96 in 2 of a million sums, which moves no product by more than .3 % (root mean square, MiniLM on SST-2 and
TREC); with 127 in 6 of 100,000, by 5 %."""

SMOOTHING = 0.7
"""How much of the differences between the activations' channels the weights take over. At 1 they take all, and at 0 the
activations take over all differences between the weights' rows."""

MIDDLE = 128
"""Zero of activations that come out of a layer norm, in unsigned bytes."""

GELU_BOTTOM = -0.171
"""No output of a GELU, exact or approximated, lies below."""

_PREFIX = "int8/"
_MICROSOFT = "com.microsoft"


def quantize(path: Path, batches: Iterable[Batch]) -> None:
    """Turn the weights of a graph's matrix products into int8, one scale a column, and activations at run time.

    Activations that come out of a layer norm are of about the same size in all texts, so that their scale is found
    beforehand, in the batches; before, each channel is divided by a factor that the weights are multiplied with, which
    leaves wide channels to both (SmoothQuant, Xiao et al., ICML 2023). Other activations get a scale s and
    a zero z for each token, y = s (q W - z sum W). None depends on the batch: the dynamic quantisation of onnxruntime
    shares its scales among all texts, so that an explanation would move with the texts beside it, and a few large
    values would cost all tokens their precision. The compressor stays in float32, and so do heads (`Gemm`).

    Parameters
    ----------
    path : Path
        The graph, which is replaced.
    batches : iterable of Batch
        Inputs like those that it will get. Without any, all activations get scales for each token.

    Raises
    ------
    ModelError
        If the graph keeps its weights in another file, or holds no product to quantise.
    """
    model = onnx.load(path, load_external_data=False)
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ModelError("int8 is for models whose weights fit into one file of 2 GiB; export this one without it")
    quantizer = _Quantizer(model.graph)
    if not quantizer.run(largest_sizes(model, quantizer.normalized(), batches)):
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
        for node in graph.node:  # weights that are used twice are stored once, and turned where they are used
            if node.op_type == "Transpose" and len(self._dims(node.input[0])) == 2:
                turned = numpy_helper.to_array(self._weights[node.input[0]]).T
                self._weights[node.output[0]] = numpy_helper.from_array(np.ascontiguousarray(turned), node.output[0])
        self._nodes: list[Any] = []
        self._makers = {name: node.op_type for node in graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._factors: dict[str, FloatArray] = {}  # by which channels of activations with one scale are divided
        self._quantized: set[str] = set()  # activations with a scale for each token; several products may share them
        self._done: set[str] = set()  # values that were computed together with an earlier one

    def normalized(self) -> list[str]:
        """Names of the activations of products that come out of a layer norm."""
        sources = dict.fromkeys(node.input[0] for node in self._graph.node if self._suits(node))
        return [name for name in sources if self._makers.get(name) == "LayerNormalization"]

    def run(self, largest: dict[str, FloatArray]) -> int:
        """Replace the products that can be; return how many.

        `largest` has the sizes [width] of the activations that get one scale for all texts.
        """
        self._constant("last", np.array([-1], np.int64))
        self._constant("zero", np.float32(0))
        self._constant("one", np.float32(1))
        self._constant("levels", np.float32(255))
        self._constant("least", np.float32(1e-30))
        self._constant("middle", np.uint8(MIDDLE))
        self._constant("no_offset", np.uint8(0))
        self._constant("gelu_bottom", np.float32(GELU_BOTTOM))
        count = 0
        for node in self._graph.node:
            if self._suits(node):
                if (widest := largest.get(node.input[0])) is not None:
                    self._replace_normalized(node, str(count), widest)
                else:
                    self._replace(node, str(count))
                count += 1
            elif node.output[0] not in self._done:
                self._nodes.append(node)
        read = {name for node in self._nodes for name in node.input} | {output.name for output in self._graph.output}
        nodes = [node for node in self._nodes if read.intersection(node.output)]  # without the turning of weights
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        return count

    def _suits(self, node: Any) -> bool:
        if node.op_type != "MatMul" or len(self._dims(node.input[1])) != 2:
            return False
        return not any(entry.key == "namespace" and COMPRESSOR in entry.value for entry in node.metadata_props)

    def _dims(self, name: str) -> list[int]:
        """Shape of a constant, empty if it is none."""
        return list(self._weights[name].dims) if name in self._weights else []

    def _replace_normalized(self, node: Any, number: str, widest: FloatArray) -> None:
        """Replace a product and the bias that is added to it; `widest` are the sizes [width] of its activations."""
        source = node.input[0]
        if source not in self._factors:
            self._quantize_normalized(source, np.maximum(widest, 1e-6))
        weight = self._weight(node) * self._factors[source][:, None]
        rows, scale = f"{_PREFIX}{source}/rows", f"{_PREFIX}{source}/scale"
        matrix, columns, _ = self._integers(number, weight)
        operands, output = [rows, matrix, scale, columns, f"{_PREFIX}middle"], node.output[0]
        if (added := self._bias(output, weight.shape[1])) is not None:
            bias, output = added
            operands += ["", bias]
            self._done.add(output)
        self._nodes.append(
            helper.make_node("MatMulIntegerToFloat", operands, [output], name=f"{_PREFIX}{number}", domain=_MICROSOFT)
        )

    def _quantize_normalized(self, source: str, widest: FloatArray) -> None:
        """Turn activations [batch, tokens, width] into bytes of one scale, after each channel got its factor."""
        weights = [self._weight(node) for node in self._readers[source] if self._suits(node)]
        heaviest = np.maximum(np.max([np.abs(weight).max(1) for weight in weights], axis=0), 1e-6)
        factors = self._factors[source] = (widest**SMOOTHING / heaviest ** (1 - SMOOTHING)).astype(np.float32)
        smooth = self._add("Mul", [source, self._constant(f"{source}/factors", 1 / factors)], f"{source}/smooth")
        scale = self._constant(f"{source}/scale", np.float32((widest / factors).max() / (MIDDLE - 1)))
        self._add("QuantizeLinear", [smooth, scale, f"{_PREFIX}middle"], f"{source}/rows")

    def _bias(self, product: str, width: int) -> tuple[str, str] | None:
        """Names of the constant that is added to a product, if nothing else reads it, and of the sum."""
        match self._readers.get(product):
            case [node] if node.op_type == "Add" and product not in {output.name for output in self._graph.output}:
                [other] = [name for name in node.input if name != product]
                return (other, node.output[0]) if self._dims(other) == [width] else None
        return None

    def _replace(self, node: Any, number: str) -> None:
        """Replace a product whose activations get a scale and a zero for each token."""
        source, weight = node.input[0], self._weight(node)
        if source not in self._quantized:
            self._quantize_rows(source, weight.shape[0])
        row = f"{source}/"
        matrix, columns, sums = self._integers(number, weight)
        width = self._constant(f"{number}/width", np.array([weight.shape[1]], np.int64))
        operands = [f"{_PREFIX}{row}rows", matrix, f"{_PREFIX}one", columns, f"{_PREFIX}no_offset"]
        product = self._add("MatMulIntegerToFloat", operands, f"{number}/product", domain=_MICROSOFT)
        offset = self._add("Mul", [f"{_PREFIX}{row}zeros", self._constant(f"{number}/sums", sums)], f"{number}/offset")
        moved = self._add("Sub", [product, offset], f"{number}/moved")
        result = self._add("Mul", [moved, f"{_PREFIX}{row}scales"], f"{number}/result")
        shape = self._add("Concat", [f"{_PREFIX}{row}shape", width], f"{number}/shape", axis=0)
        self._nodes.append(helper.make_node("Reshape", [result, shape], list(node.output)))

    def _quantize_rows(self, source: str, width: int) -> None:
        """Turn activations [..., width] into rows of bytes, each row from its lowest to its highest value."""
        self._quantized.add(source)
        row, last = f"{source}/", f"{_PREFIX}last"
        flat_shape = self._constant(row + "flat_shape", np.array([-1, width], np.int64))
        flat = self._add("Reshape", [source, flat_shape], row + "flat")
        highest = self._add("ReduceMax", [flat, last], row + "highest", keepdims=0)
        if self._makers.get(source) == "Gelu":
            lowest = f"{_PREFIX}gelu_bottom"
        else:
            lowest = self._add("ReduceMin", [flat, last], row + "lowest", keepdims=0)
        top = self._add("Max", [highest, f"{_PREFIX}zero"], row + "top")
        bottom = self._add("Min", [lowest, f"{_PREFIX}zero"], row + "bottom")
        spread = self._add("Sub", [top, bottom], row + "spread")
        step = self._add("Div", [spread, f"{_PREFIX}levels"], row + "step")
        scale = self._add("Max", [step, f"{_PREFIX}least"], row + "scale")
        down = self._add("Div", [bottom, scale], row + "down")
        up = self._add("Neg", [down], row + "up")
        zero = self._add("Round", [up], row + "zero")
        offset = self._add("Cast", [zero], row + "offset", to=TensorProto.UINT8)
        self._add("QuantizeLinear", [flat, scale, offset], row + "rows", axis=0)
        self._add("Unsqueeze", [zero, last], row + "zeros")
        self._add("Unsqueeze", [scale, last], row + "scales")
        self._add("Shape", [source], row + "shape", start=0, end=-1)

    def _weight(self, node: Any) -> FloatArray:
        values: FloatArray = numpy_helper.to_array(self._weights[node.input[1]])
        return values

    def _integers(self, number: str, weight: FloatArray) -> tuple[str, str, FloatArray]:
        """Return names of a weight in integers and of the scales of its columns, and the sums of the columns."""
        scales = np.maximum(np.abs(weight).max(0) / LARGEST_WEIGHT, 1e-30).astype(np.float32)
        integers = np.round(weight / scales).astype(np.int8)
        matrix, columns = self._constant(f"{number}/matrix", integers), self._constant(f"{number}/scales", scales)
        return matrix, columns, integers.sum(0, dtype=np.int64).astype(np.float32) * scales

    def _add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node; return the name of its output."""
        self._nodes.append(helper.make_node(kind, inputs, [_PREFIX + name], name=_PREFIX + name, **attributes))
        return _PREFIX + name

    def _constant(self, name: str, values: NDArray[Any] | np.generic) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values), _PREFIX + name))
        return _PREFIX + name
