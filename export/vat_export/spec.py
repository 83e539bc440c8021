"""The format of an exported model on disk: names, opset, and what its manifest says; docs/onnx.md specifies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vat_explain.errors import BundleError, InputError
from vat_explain.explanation import Task
from vat_explain.records import from_plain, to_plain
from vat_explain.text import SpecialTokens

FORMAT_VERSION = 1
"""Version of the format that is written, and the newest that is read."""

READABLE_FROM = "0.1.0"
"""First version of vat-explain that reads `FORMAT_VERSION`."""

OPSET = 20
"""Version of ONNX's operators; with 23, exports of ModernBERT fail at batches of more than one."""

MANIFEST, GRAPH, WEIGHTS, TOKENIZER = "manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"
REQUIRED = frozenset({GRAPH, TOKENIZER})
OPTIONAL = frozenset({WEIGHTS})

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs, int64 [batch, tokens]; models that read no segments lack the last."""

OUTPUTS = ("logits", "token_importance", "class_importance")
"""Outputs, float32: [batch, classes], [batch, tokens], [batch, tokens, classes]."""

WHAT = "model export"
"""What messages call such a directory."""

Precision = Literal["fp32", "int8"]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What the manifest of an exported model says.

    Attributes
    ----------
    task : {"single_label", "multi_label"}
    labels : tuple of str
        Names of the classes, in the order of the logits.
    max_length, overlap : int
        Longest window in tokens, special ones counted, and the tokens that neighbouring windows share.
    special : SpecialTokens
        Token ids that are never scored.
    vocabulary_size : int
        Token ids are below it.
    inputs, outputs : tuple of str
        Names in the graph.
    opset : int
    precision : {"fp32", "int8"}
        With int8, explanations are approximate.
    offset_unit : {"character"}
        What the tokenizer's offsets count.
    reference : tuple of float
        Prediction on fully masked text, one probability a class, to which class importances add up.
    provenance : dict of str to str
        Bundle and method that it was exported from.
    card : dict
        The bundle's card; plain JSON.
    report : dict
        What the check of the export found; plain JSON.
    versions : dict of str to str
        Packages that it was exported with.
    """

    task: Task
    labels: tuple[str, ...]
    max_length: int
    overlap: int
    special: SpecialTokens
    vocabulary_size: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    precision: Precision
    offset_unit: Literal["character"]
    reference: tuple[float, ...]
    provenance: dict[str, str]
    card: dict[str, Any]
    report: dict[str, Any]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as values that JSON knows."""
        record: dict[str, Any] = to_plain(self)
        return record

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Spec:
        """Read and check what `to_dict` returned.

        Raises
        ------
        BundleError
            If a field is missing, unknown, of another type or out of range; the message names it.
        """
        try:
            spec: Spec = from_plain(values, cls, MANIFEST)
        except InputError as error:
            raise BundleError(f"{error}; export the bundle anew") from error
        spec._check()
        return spec

    def _check(self) -> None:
        ids = {*self.special.fixed, self.special.pad, self.special.mask or 0}
        rules = {
            f"task must be one of {get_args(Task)}": self.task in get_args(Task),
            "labels must be distinct": len(set(self.labels)) == len(self.labels) >= 1,
            "max_length must be at least 4": self.max_length >= 4,
            "overlap must not be negative": self.overlap >= 0,
            "special must hold ids of the vocabulary": min(ids) >= 0 and max(ids) < self.vocabulary_size,
            f"inputs must be {list(INPUTS)}, the last one optional": self.inputs in (INPUTS, INPUTS[:2]),
            f"outputs must be {list(OUTPUTS)}": self.outputs == OUTPUTS,
            f"opset must be {OPSET}": self.opset == OPSET,
            f"precision must be one of {get_args(Precision)}": self.precision in get_args(Precision),
            "offset_unit must be 'character'": self.offset_unit == "character",
            "reference must hold one probability for each label": (
                len(self.reference) == len(self.labels) and all(0 <= p <= 1 for p in self.reference)
            ),
        }
        for rule, holds in rules.items():
            if not holds:
                value = getattr(self, rule.split(" ", 1)[0])
                raise BundleError(f"{MANIFEST}: {rule}, got {value!r}; export the bundle anew")
