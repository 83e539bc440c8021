"""Explain texts with ONNX Runtime; needs NumPy, onnxruntime and tokenizers, not torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vat_explain.assemble import FloatArray, Origin
from vat_explain.base import TextExplainer
from vat_explain.errors import BundleError, InputError, InputTypeError, ModelError
from vat_explain.manifest import REMEDY, Manifest, read_manifest
from vat_explain.text import TextEncoder
from vat_export.protobuf import check_graph
from vat_export.spec import FORMAT_VERSION, GRAPH, MANIFEST, OPTIONAL, REQUIRED, TOKENIZER, WEIGHTS, Spec

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""What runs the graph, best first; those that the installed onnxruntime lacks are left out."""

SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasGeluFusion")
"""Fusions that ONNX Runtime makes on the CPU although they take longer there than the operators they replace."""


class OnnxExplainer(TextExplainer):
    """An exported model: predictions and explanations from one pass, the same records as `VATExplainer`'s.

    Parameters
    ----------
    directory : str or path
        What `vat_export.export_onnx` wrote. Every file is checked before it is used.
    threads : int, optional
        Threads of one pass; all cores that this process may use when left out. One for each of several processes.
    providers : sequence of str, optional
        Execution providers of ONNX Runtime, best first; CUDA where it is installed, and the CPU, when left out.

    Attributes
    ----------
    spec : Spec
        What the manifest says.
    digest : str
        SHA-256 of the manifest, which lists the digests of all other files.

    Raises
    ------
    BundleError
        If the directory is incomplete, damaged, altered, of a newer format, holds links, or a graph that names other
        files or operators that ONNX Runtime does not bring itself.
    InputError
        If there are fewer threads than one.
    ModelError
        If the installed onnxruntime has no such execution provider.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; give at least 1")
        place = Path(directory)
        if not place.is_dir():
            raise BundleError(f"there is no exported model {place}; give the directory that was exported")
        manifest = read_manifest(place, MANIFEST, format_version=FORMAT_VERSION, required=REQUIRED, optional=OPTIONAL)
        for name in (MANIFEST, *manifest.files):
            if (place / name).lstat().st_nlink != 1:
                raise BundleError(f"{place / name} is a hard link, so that others can change it; {REMEDY}")
        self.spec = Spec.from_dict(manifest.content)
        self.digest = manifest.digest
        self.encoder = TextEncoder(
            _tokenizer(_read(place, TOKENIZER, manifest)), self.spec.special, self.spec.max_length, self.spec.overlap
        )
        self._session = _session(place, manifest, threads or _cores(), providers)
        self._check_session()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.spec.labels

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers in use, best first."""
        return tuple(self._session.get_providers())

    @property
    def origin(self) -> Origin:
        """What all explanations of this model share."""
        precision = "int8, approximate" if self.spec.precision == "int8" else self.spec.precision
        return Origin(
            labels=self.spec.labels,
            task=self.spec.task,
            method="vat",
            unit="share",
            reference=self.spec.reference,
            provenance={**self.spec.provenance, "runtime": "onnx", "precision": precision, "export": self.digest},
        )

    def run(self, batch: dict[str, NDArray[Any]]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Run the graph on collated windows; see `TextExplainer.run`."""
        logits, importance, parts = self.forward(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        return self.probabilities(logits), importance, parts

    def probabilities(self, logits: FloatArray) -> FloatArray:
        """Turn logits [batch, classes] into probabilities: softmax, or one sigmoid a class for multi-label models."""
        if self.spec.task == "multi_label":
            positive = 1 / (1 + np.exp(-np.abs(logits)))
            return np.where(logits >= 0, positive, 1 - positive)
        exponents = np.exp(logits - logits.max(-1, keepdims=True))
        shares: FloatArray = exponents / exponents.sum(-1, keepdims=True)
        return shares

    def forward(
        self, input_ids: NDArray[Any], attention_mask: NDArray[Any], token_type_ids: NDArray[Any] | None = None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Run the graph on ids and masks, after checking what ONNX Runtime would accept in silence.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : ndarray of integers, shape [batch, tokens]
            Padding lies on the right. Segments are all 0 when left out, and unused by models that read none.

        Returns
        -------
        tuple of ndarray of float32
            Logits [batch, classes], importance [batch, tokens], class importance [batch, tokens, classes].

        Raises
        ------
        InputError, InputTypeError
            If the shapes differ or are empty, a row is longer than the model takes, an id is not in the vocabulary, or
            a mask is anything but ones followed by zeros.
        ModelError
            If ONNX Runtime fails, for example for lack of memory.
        """
        if token_type_ids is None:
            token_type_ids = np.zeros_like(input_ids)
        feed = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        self._check(feed)
        inputs = {name: feed[name].astype(np.int64, copy=False) for name in self.spec.inputs}
        try:
            logits, importance, parts = self._session.run(list(self.spec.outputs), inputs)
        except Exception as error:  # onnxruntime has many kinds, which share no base
            raise ModelError(
                f"ONNX Runtime failed on a batch of {input_ids.shape[0]} rows of {input_ids.shape[1]} tokens: {error}; "
                "try smaller batches"
            ) from error
        return logits, importance, parts

    def _check(self, feed: Mapping[str, NDArray[Any]]) -> None:
        ids, mask, types = feed.values()
        for name, array in feed.items():
            if not np.issubdtype(array.dtype, np.integer):
                raise InputTypeError(f"{name} must hold integers, got {array.dtype}; convert it to int64")
            if array.ndim != 2 or array.shape != ids.shape:
                raise InputError(f"{name} has shape {array.shape}; all must be [batch, tokens], here {ids.shape}")
        if 0 in ids.shape or ids.shape[1] > self.spec.max_length:
            raise InputError(
                f"input_ids has shape {ids.shape}; give at least one row, and 1 to {self.spec.max_length} tokens"
            )
        if ids.min() < 0 or ids.max() >= self.spec.vocabulary_size:
            raise InputError(
                f"input_ids reach from {ids.min()} to {ids.max()}; the vocabulary has the ids 0 to "
                f"{self.spec.vocabulary_size - 1}"
            )
        if not np.isin(mask, (0, 1)).all() or (np.diff(mask.astype(np.int8)) > 0).any() or not mask[:, 0].all():
            raise InputError("attention_mask must be 1 at the tokens of each row, at least one, and 0 after them")
        if not np.isin(types, (0, 1)).all():
            raise InputError("token_type_ids must be 0 in the text and 1 in the second text of a pair")

    def _check_session(self) -> None:
        names = tuple(entry.name for entry in self._session.get_inputs())
        outputs = {entry.name: entry.shape for entry in self._session.get_outputs()}
        ranks = [len(shape) for shape in outputs.values()]
        same = names == self.spec.inputs and tuple(outputs) == self.spec.outputs and ranks == [2, 2, 3]
        if not same or {outputs["logits"][-1], outputs["class_importance"][-1]} != {len(self.labels)}:
            raise BundleError(
                f"the graph has inputs {names} and outputs {outputs}, and {MANIFEST} says {self.spec.inputs} and "
                f"{self.spec.outputs} for {len(self.labels)} classes; {REMEDY}"
            )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(directory: Path, name: str, manifest: Manifest) -> bytes:
    """Read a file once, and check the very bytes that will be used."""
    try:
        data = (directory / name).read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read {directory / name}: {error.strerror}; {REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != manifest.files[name]:
        raise BundleError(f"{directory / name} changed while it was read; read it again")
    return data


def _tokenizer(data: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # tokenizers raises bare exceptions
        raise BundleError(f"{TOKENIZER} cannot be read: {error}; {REMEDY}") from error


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return settings of a session that is quiet and leaves cores to others; 0 threads are one for each core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised too
    # Threads that wait in a loop slow down other processes, up to half on a small machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _session(
    directory: Path, manifest: Manifest, threads: int, providers: Sequence[str] | None
) -> onnxruntime.InferenceSession:
    available = onnxruntime.get_available_providers()
    if providers is None:
        providers = [name for name in PROVIDERS if name in available]
    unknown = sorted({*providers} - {*available})
    if unknown or not providers:
        raise ModelError(f"providers are {list(providers)}; this onnxruntime has {', '.join(available)}")
    external = WEIGHTS if WEIGHTS in manifest.files else None
    data = _read(directory, GRAPH, manifest)
    check_graph(data, external)
    options = session_options(threads)
    # The format that was checked: without this, some first bytes make it read another one, unchecked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if external is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(directory.resolve())
        )
    try:
        return onnxruntime.InferenceSession(
            data,
            options,
            providers=list(providers),
            disabled_optimizers=SLOW_FUSIONS if providers[0] == "CPUExecutionProvider" else None,
        )
    except Exception as error:  # onnxruntime has many kinds, which share no base
        raise BundleError(f"ONNX Runtime cannot load {directory / GRAPH}: {error}; {REMEDY}") from error
