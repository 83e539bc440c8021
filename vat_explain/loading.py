"""Classifiers and tokenizers from the folders and names that users give: safetensors only, and no code of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from vat_explain.errors import ModelError
from vat_explain.models import MULTI_LABEL, PROBLEM_TYPES, SINGLE_LABEL, Classifier, is_multi_label, label_names
from vat_explain.text import SpecialTokens


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder or name.

    Raises
    ------
    ModelError
        If there is none that can be read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"no tokenizer could be loaded from {source}: {_first_line(error)}") from error
    return tokenizer


def load_classifier(
    source: str | Path,
    special: SpecialTokens,
    labels: Sequence[str] | None = None,
    task: str = SINGLE_LABEL,
) -> Classifier:
    """Load a finished classifier, or a plain encoder with a new classification head.

    Parameters
    ----------
    source : str or Path
        Folder or name of a HuggingFace model; weights are read from safetensors only.
    special : SpecialTokens
        Ids of its tokenizer.
    labels : sequence of str, optional
        Class names for the new head of a plain encoder; a finished classifier keeps its own.
    task : {"single_label", "multi_label"}
        What the new head is trained for.

    Raises
    ------
    ModelError
        If the model cannot be loaded from safetensors, or a plain encoder comes without labels.
    """
    try:
        keywords: dict[str, Any] = {}
        if finished_labels(source) is None:
            if labels is None:
                raise ModelError(f"{source} is a plain encoder; name the classes that its new head should tell apart")
            keywords = {
                "num_labels": len(labels),
                "id2label": dict(enumerate(labels)),
                "label2id": {label: i for i, label in enumerate(labels)},
                "problem_type": PROBLEM_TYPES[task],
            }
        model = AutoModelForSequenceClassification.from_pretrained(
            # Checkpoints in half precision are trained, and explained, in full: rounding would hide small effects.
            str(source),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            **keywords,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"no classifier could be loaded from {source} (safetensors only): {_first_line(error)}"
        ) from error
    own_memory(model)
    return Classifier(model, special)


def own_memory(module: nn.Module) -> None:
    """Move weights out of the file that they are mapped from, so that equal weights give equal bits.

    In a mapped file tensors begin anywhere, and matrix products round differently with where their inputs begin.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()


def finished_labels(source: str | Path) -> tuple[tuple[str, ...], str] | None:
    """Return class names and task of a model that was trained as a sequence classifier, None for a plain encoder.

    Raises
    ------
    ModelError
        If there is no readable configuration.
    """
    try:
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"no model could be found at {source}: {_first_line(error)}") from error
    if not any("ForSequenceClassification" in name for name in config.architectures or ()):
        return None
    return label_names(config), MULTI_LABEL if is_multi_label(config) else SINGLE_LABEL


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
