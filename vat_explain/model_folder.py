"""A HuggingFace model and its tokenizer as a folder of safetensors and JSON, in which nothing is code."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from vat_explain.errors import BundleError
from vat_explain.manifest import REMEDY, read_json

MODEL_FILES = ("config.json", "model.safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
# Names in HuggingFace's files that make it import code or fetch some from elsewhere.
_FORBIDDEN = {
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
}
# Names in tokenizer_config.json that say where a tokenizer was read from.
_SOURCES = {"is_local", "local_files_only", "name_or_path"}
_ATTENTION = ("eager", "sdpa")


def save_model(folder: Path, model: PreTrainedModel) -> None:
    """Write `MODEL_FILES`.

    Raises
    ------
    BundleError
        If the model needs other files, or code, mixes dtypes, which loading would make one, or cannot be written.
    """
    _check_dtypes(model, folder.name)
    with writing(folder):
        model.save_pretrained(folder, max_shard_size="1000TB")  # one file, whatever its size
    strangers = sorted({path.name for path in folder.iterdir()} - {*MODEL_FILES, *TOKENIZER_FILES})
    if strangers:
        raise BundleError(
            f"the {folder.name} saves {strangers} beside its weights, which bundles do not hold; "
            "merge adapters into the model and use one of transformers' own classes"
        )
    _refuse_code(folder / "config.json")


def check_savable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise the error with which `save_model` or `save_tokenizer` would refuse a model, as far as that is soon told."""
    _check_dtypes(model, "model")
    _refuse_names(json.loads(model.config.to_json_string()), "the configuration of the model")
    with tempfile.TemporaryDirectory() as scratch:
        save_tokenizer(Path(scratch, "tokenizer"), tokenizer)


def load_model(folder: Path, attention: str | None) -> PreTrainedModel:
    """Read `MODEL_FILES`.

    Parameters
    ----------
    folder : Path
    attention : str, optional
        Implementation of attention; that which transformers prefers, unless it is "eager" or "sdpa".

    Raises
    ------
    BundleError
        If they cannot be read, name code, or do not fit each other.
    """
    _refuse_code(folder / "config.json")
    with reading(folder):
        model: PreTrainedModel
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            attn_implementation=attention if attention in _ATTENTION else None,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        problems = {kind: sorted(map(str, names)) for kind, names in report.items() if names}
        if problems:
            raise BundleError(f"configuration and weights do not fit: {problems}")
    return model


def save_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write `TOKENIZER_FILES` into a new folder.

    They name the class that takes tokenizer.json as it is, since others rebuild the tokenizer as their own code says.

    Raises
    ------
    BundleError
        If the tokenizer is not backed by the ``tokenizers`` library, needs code, or cannot be written.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise BundleError(f"{type(tokenizer).__name__} is no fast tokenizer; save one that has a tokenizer.json")
    with writing(folder):
        tokenizer.save_pretrained(folder)
    for path in folder.iterdir():  # vocabularies that tokenizer.json holds too
        if path.name not in TOKENIZER_FILES:
            path.unlink()
    plain = Tokenizer.from_str(backend.to_str())  # without the truncation and padding of the last call
    plain.no_truncation()
    plain.no_padding()
    (folder / "tokenizer.json").write_text(plain.to_str(pretty=True), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    _refuse_code(path)
    settings = {name: value for name, value in read_json(path)[0].items() if name not in _SOURCES}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": tokenizer.model_input_names}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read `TOKENIZER_FILES`.

    Raises
    ------
    BundleError
        If they cannot be read, or name code.
    """
    _refuse_code(folder / "tokenizer_config.json")
    with reading(folder):
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return tokenizer


def _check_dtypes(model: PreTrainedModel, what: str) -> None:
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) > 1:
        raise BundleError(f"the {what} mixes {sorted(map(str, dtypes))}; convert it to one with .to(dtype)")


def _refuse_code(path: Path) -> None:
    """Raise an error if a configuration names code to import or anything to fetch."""
    _refuse_names(read_json(path)[0], str(path))


def _refuse_names(settings: Mapping[str, Any], where: str) -> None:
    found = sorted(_FORBIDDEN & settings.keys())
    if found:
        raise BundleError(
            f"{where} sets {found}, which can make code run; bundles hold transformers' own models only. "
            "Remove these settings, or use one of its classes"
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one way what goes wrong in the many ways of the libraries that write."""
    try:
        with _quiet():
            yield
    except (OSError, BundleError):  # `writing_directory` reports the first
        raise
    except Exception as error:  # tokenizers and safetensors report a full disk by bare exceptions of their own
        raise BundleError(f"cannot write {path.name}: {error}; what was there before is unchanged") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in one way what goes wrong in the many ways of the libraries that read."""
    try:
        with _quiet():
            yield
    except Exception as error:  # anything can come of a malformed file
        raise BundleError(f"{path} cannot be read: {error}; {REMEDY}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from showing bars and reports of its own."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
