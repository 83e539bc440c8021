"""How large the activations of a graph are: what a scale for all texts is found with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from vat_explain.assemble import FloatArray
from vat_explain.errors import ModelError
from vat_export.runtime import session_options
from vat_export.samples import Batch


def largest_sizes(model: Any, names: Sequence[str], batches: Iterable[Batch]) -> dict[str, FloatArray]:
    """Run a graph and measure some of its activations.

    Parameters
    ----------
    model : onnx.ModelProto
    names : sequence of str
        Of the activations.
    batches : iterable of Batch

    Returns
    -------
    dict of str to ndarray, shape [width]
        The largest size that each channel has in a token, padding left out. Activations of another layout than
        [batch, tokens, width] are missing.

    Raises
    ------
    ModelError
        If ONNX Runtime cannot run the graph, or something that it computes is not finite.
    """
    if not names:
        return {}
    largest: dict[str, FloatArray] = {}
    try:
        session = _session(model, names)
        inputs = [entry.name for entry in session.get_inputs()]
        for batch in batches:
            tokens = batch["attention_mask"] == 1
            for name, values in zip(names, session.run(names, {key: batch[key] for key in inputs}), strict=True):
                if values.shape[:-1] == tokens.shape:
                    highest = np.abs(values[tokens]).max(0)
                    largest[name] = np.maximum(largest.get(name, highest), highest)
    except Exception as error:  # onnxruntime has many kinds, which share no base
        raise ModelError(f"int8 scales cannot be found: {error}; export without int8") from error
    if not all(np.isfinite(sizes).all() for sizes in largest.values()):
        raise ModelError(
            "int8 scales cannot be found: the model computes values that are not finite; check its weights"
        )
    return largest


def _session(model: Any, names: Sequence[str]) -> onnxruntime.InferenceSession:
    """Load a graph with other outputs, and without a second copy of its weights."""
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    data = model.SerializeToString()
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return onnxruntime.InferenceSession(data, session_options(0), providers=["CPUExecutionProvider"])
