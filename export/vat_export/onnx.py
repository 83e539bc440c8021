"""Turn a bundle into a directory that ONNX Runtime explains with, and check it against torch."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.export import Dim

from vat_explain.base import Text
from vat_explain.card import package_versions
from vat_explain.errors import BundleError, ModelError
from vat_explain.explainer import VATExplainer
from vat_explain.files import writing_directory
from vat_explain.manifest import holds_only_listed, write_manifest
from vat_explain.progress import Bar, progress_bar
from vat_export.graph import ExportedGraph, plain_attention
from vat_export.optimize import quantize
from vat_export.runtime import OnnxExplainer
from vat_export.samples import random_batches, sample_texts, text_batches
from vat_export.spec import (
    FORMAT_VERSION,
    GRAPH,
    INPUTS,
    MANIFEST,
    OPSET,
    OUTPUTS,
    READABLE_FROM,
    TOKENIZER,
    WHAT,
    Spec,
)
from vat_export.verify import compare_precisions, verify

EMBED_LIMIT = 2**31 - 2**24
"""Most bytes of weights inside the graph: a protobuf message holds 2 GiB, less room for the graph itself."""

MAX_BATCH = 4096
_STEPS = ("tracing the model", "checking against torch", "quantising", "measuring int8")


@dataclass(frozen=True)
class Exported:
    """What `export_onnx` wrote.

    Attributes
    ----------
    directory : Path
    digest : str
        SHA-256 of its manifest.
    spec : Spec
    """

    directory: Path
    digest: str
    spec: Spec


def export_onnx(
    bundle: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    int8: bool = False,
    check: bool = True,
    texts: Sequence[Text] = (),
    quiet: bool = True,
) -> Exported:
    """Export a bundle, and check the export before it is put in place.

    Parameters
    ----------
    bundle : str or path
    directory : str or path
        Missing, empty, or an older export, which is replaced as a whole.
    int8 : bool
        Quantise the learner's matrix products. The explanations are then approximate; the report says how close.
    check : bool
        Compare ONNX Runtime with torch.
    texts : sequence of str or (str, str)
        Texts to compare on beside random tokens and a few of our own. The scales of int8 are fitted to half of all
        these texts, and the figures for int8 are those of the other half.
    quiet : bool
        Show no progress.

    Returns
    -------
    Exported

    Raises
    ------
    BundleError
        If the bundle cannot be read or the directory not be written.
    InputError
        If one of the texts cannot be explained.
    ModelError
        If the model cannot be exported, or the export computes something else than torch. Nothing is written then.
    """
    if Path(directory).resolve().is_relative_to(Path(bundle).resolve()):
        raise BundleError(f"{directory} lies in the bundle {bundle}, which would be damaged; name another directory")
    explainer = VATExplainer.from_pretrained(bundle)
    explainer.model.float()
    _check_special(explainer)
    samples = sample_texts(explainer, texts)
    spec = _spec(explainer)
    with (
        progress_bar("exporting", len(_STEPS) if int8 else 2, quiet=quiet) as bar,
        writing_directory(directory, what=WHAT, replaceable=_is_export, error=BundleError) as temporary,
    ):
        _step(bar, 0)
        (temporary / TOKENIZER).write_text(_tokenizer(explainer), encoding="utf-8")
        _write_graph(explainer, spec, temporary)
        if check:
            _step(bar, 1)
            with _opened(temporary, spec) as runtime:
                report = verify(explainer, runtime, samples)
                spec = replace(spec, report=report)
                exact = runtime
        if int8:
            _step(bar, 2)
            spec = replace(spec, precision="int8")
            quantize(temporary / GRAPH, [*random_batches(spec), *text_batches(spec, samples[::2])])
            if check:
                _step(bar, 3)
                with _opened(temporary, spec) as runtime:
                    spec = replace(spec, report=report | {"int8": compare_precisions(exact, runtime, samples[1::2])})
        digest = _write_manifest(temporary, spec)
    return Exported(Path(directory), digest, spec)


def _step(bar: Bar, number: int) -> None:
    bar.restart(_STEPS[number], None)


def _spec(explainer: VATExplainer) -> Spec:
    card, learner, origin = explainer.card, explainer.learner, explainer.origin
    assert origin.reference is not None
    packages = ("onnx", "onnxruntime", "onnxscript")
    return Spec(
        task=origin.task,
        labels=origin.labels,
        max_length=card.max_length,
        overlap=card.overlap,
        special=learner.special,
        vocabulary_size=learner.embedding_layer.num_embeddings,
        inputs=INPUTS if learner.reads_segments else INPUTS[:2],
        outputs=OUTPUTS,
        opset=OPSET,
        precision="fp32",
        offset_unit="character",
        reference=origin.reference,
        provenance=dict(origin.provenance),
        card=card.to_dict(),
        report={"checked": False},
        versions=package_versions() | {name: importlib.metadata.version(name) for name in packages},
    )


def _check_special(explainer: VATExplainer) -> None:
    """Refuse a tokenizer that adds tokens which the graph could not tell from those of the text."""
    for pair in (None, "a"):
        encoding = explainer.tokenizer.backend_tokenizer.encode("a", pair)
        for number, segment in zip(encoding.ids, encoding.sequence_ids, strict=True):
            if segment is None and number not in explainer.learner.special.fixed:
                raise ModelError(
                    f"the tokenizer adds the token {explainer.tokenizer.convert_ids_to_tokens(number)!r} to each "
                    "text, which is none of its cls, sep, bos and eos tokens, so that the graph would score it; "
                    "declare it as one of them and fit again"
                )


def _tokenizer(explainer: VATExplainer) -> str:
    text: str = explainer.tokenizer.backend_tokenizer.to_str()
    return text


def _write_graph(explainer: VATExplainer, spec: Spec, directory: Path) -> None:
    graph = ExportedGraph(explainer.model).eval()
    weights = sum(t.numel() * t.element_size() for t in (*graph.parameters(), *graph.buffers()))
    ids = torch.full((2, 8), explainer.learner.special.pad)
    example = [ids, torch.ones_like(ids), torch.zeros_like(ids)][: len(spec.inputs)]
    batch, tokens = Dim("batch", min=1, max=MAX_BATCH), Dim("tokens", min=1, max=spec.max_length)
    try:
        with _quiet(), torch.no_grad(), plain_attention(explainer.model):
            program = torch.onnx.export(
                graph,
                tuple(example),
                dynamo=True,
                opset_version=spec.opset,
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                dynamic_shapes=tuple({0: batch, 1: tokens} for _ in spec.inputs),
                verbose=False,
            )
            assert program is not None
            program.save(directory / GRAPH, external_data=weights > EMBED_LIMIT)
    except OSError:  # a full disk, which `writing_directory` reports
        raise
    except Exception as error:  # the exporter has many kinds
        name, reason = type(explainer.learner.model).__name__, str(error.__cause__ or error).strip().splitlines()[0]
        raise ModelError(
            f"{name} cannot be exported to ONNX: {reason}; explain with the bundle itself, or fit one of another "
            "architecture"
        ) from error


@contextmanager
def _opened(directory: Path, spec: Spec) -> Iterator[OnnxExplainer]:
    """Load an unfinished export as its users will."""
    _write_manifest(directory, spec)
    try:
        yield OnnxExplainer(directory)
    finally:
        (directory / MANIFEST).unlink()


def _write_manifest(directory: Path, spec: Spec) -> str:
    return write_manifest(
        directory,
        MANIFEST,
        format_version=FORMAT_VERSION,
        readable_from=READABLE_FROM,
        content=Spec.from_dict(spec.to_dict()).to_dict(),
    )


def _is_export(directory: Path) -> bool:
    return (directory / GRAPH).exists() and holds_only_listed(directory, MANIFEST)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about its own insides from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
