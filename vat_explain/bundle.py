"""A trained explainer on disk: learner, compressor, tokenizer and card in one directory.

The files are safetensors and JSON; nothing in a bundle is ever run. docs/bundle-format.md specifies the format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vat_explain import model_folder
from vat_explain.card import FORMAT_VERSION, Card
from vat_explain.errors import BundleError
from vat_explain.files import check_replaceable, set_aside, writing_directory
from vat_explain.loading import own_memory
from vat_explain.manifest import Manifest, holds_only_listed, read_json, read_manifest, write_manifest
from vat_explain.model_folder import (
    MODEL_FILES,
    TOKENIZER_FILES,
    load_model,
    load_tokenizer,
    reading,
    save_model,
    save_tokenizer,
    writing,
)
from vat_explain.models import Classifier
from vat_explain.vat.compressor import Compressor
from vat_explain.vat.model import VATModel

__all__ = [
    "FORMAT_VERSION",
    "Bundle",
    "Card",
    "check_target",
    "has_judge",
    "load_bundle",
    "load_judge",
    "save_bundle",
]

READABLE_FROM = "0.1.0"
"""First version of vat-explain that reads bundles of `FORMAT_VERSION`."""

CARD, LEARNER, JUDGE, COMPRESSOR = "card.json", "learner", "judge", "compressor.safetensors"
_REQUIRED = frozenset({COMPRESSOR, *(f"{LEARNER}/{name}" for name in (*MODEL_FILES, *TOKENIZER_FILES))})
_OPTIONAL = frozenset(f"{JUDGE}/{name}" for name in MODEL_FILES)


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes
    ----------
    model : VATModel
        In evaluation mode.
    tokenizer : PreTrainedTokenizerBase
    card : Card
    digest : str
        SHA-256 of card.json, which lists the digests of all other files.
    directory : Path
    """

    model: VATModel
    tokenizer: PreTrainedTokenizerBase
    card: Card
    digest: str
    directory: Path


def save_bundle(
    directory: str | os.PathLike[str],
    model: VATModel,
    tokenizer: PreTrainedTokenizerBase,
    card: Card,
    judge: Classifier | None = None,
) -> str:
    """Write a bundle; one that was there before stays until the new one is complete.

    Parameters
    ----------
    directory : str or path
        Missing, empty, or an older bundle.
    model : VATModel
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer, that of the learner.
    card : Card
    judge : Classifier, optional
        The judge of masked inputs, which evaluation can use.

    Returns
    -------
    str
        The digest, as `Bundle.digest`.

    Raises
    ------
    BundleError
        If the directory holds other files, the card does not fit the model, or something cannot be written.
    """
    card = Card.from_dict(card.to_dict())
    judges = {} if judge is None else {JUDGE: judge}
    for classifier in (model.learner, *judges.values()):
        _check_fit(card, classifier)
        _check_vocabulary(tokenizer, classifier)
    if model.compressor.config != card.compressor:
        raise BundleError(f"card.compressor is {card.compressor}, but the compressor's is {model.compressor.config}")
    with writing_directory(directory, what="bundle", replaceable=_is_bundle, error=BundleError) as temporary:
        save_tokenizer(temporary / LEARNER, tokenizer)
        tensors = model.compressor.state_dict() | _unsaved(model.compressor)
        parts = {LEARNER: model.learner} | judges
        for part, classifier in parts.items():
            save_model(temporary / part, classifier.model)
            tensors |= {f"{part}.{name}": tensor for name, tensor in _unsaved(classifier).items()}
        with writing(temporary / COMPRESSOR):
            # Copies, as safetensors takes no tensors that share memory.
            copies = {name: t.cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
            save_file(copies, temporary / COMPRESSOR)
        attention = {part: classifier.model.config._attn_implementation for part, classifier in parts.items()}
        return write_manifest(
            temporary,
            CARD,
            format_version=FORMAT_VERSION,
            readable_from=READABLE_FROM,
            content=card.to_dict() | {"attention": attention},
        )


def check_target(directory: str | os.PathLike[str]) -> None:
    """Raise the error with which `save_bundle` would refuse a directory; worth calling before a long training.

    Raises
    ------
    BundleError
        If there are files in it that are not part of a bundle.
    """
    check_replaceable(directory, what="bundle", replaceable=_is_bundle, error=BundleError)


def check_savable(learner: Classifier, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise the error with which `save_bundle` would refuse a model, as far as that can be told before a training.

    Raises
    ------
    BundleError
        If model and tokenizer do not fit each other, or name code.
    """
    model_folder.check_savable(learner.model, tokenizer)
    _check_vocabulary(tokenizer, learner)


def load_bundle(directory: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Bundle:
    """Read a bundle after checking every file of it.

    Parameters
    ----------
    directory : str or path
    device : str or torch.device, default "cpu"
        Where the model goes.

    Raises
    ------
    BundleError
        If it is missing, incomplete, damaged, altered, of a newer format, or its parts do not fit each other.
    """
    place = Path(directory)
    manifest, card, attention = _open(place)
    learner, tensors = _load_classifier(place, LEARNER, card, attention)
    tokenizer = load_tokenizer(place / LEARNER)
    _check_vocabulary(tokenizer, learner)
    with reading(place / COMPRESSOR):
        with torch.device("meta"):  # allocates and draws nothing
            compressor = Compressor(learner, card.compressor)
        _restore(compressor, tensors)
        judged = f"{JUDGE}." if _OPTIONAL & manifest.files.keys() else ()
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(judged)}
        compressor.load_state_dict(own, assign=True)
        own_memory(compressor)
    _check_same(place, manifest)
    return Bundle(VATModel(learner, compressor).to(device).eval(), tokenizer, card, manifest.digest, place)


def has_judge(directory: str | os.PathLike[str]) -> bool:
    """Tell whether a bundle holds a judge."""
    return Path(directory, JUDGE).is_dir()


def load_judge(directory: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> Classifier:
    """Read the judge of a bundle, in evaluation mode; parameters as for `load_bundle`.

    Raises
    ------
    BundleError
        As for `load_bundle`, and if the bundle has no judge.
    """
    place = Path(directory)
    manifest, card, attention = _open(place)
    if not has_judge(place):
        raise BundleError(f"{place} has no judge; train one with the explainer to compare with it")
    judge, _ = _load_classifier(place, JUDGE, card, attention)
    _check_same(place, manifest)
    return judge.to(device).eval()


def _is_bundle(directory: Path) -> bool:
    return holds_only_listed(directory, CARD)


def _check_fit(card: Card, classifier: Classifier) -> None:
    """Raise an error if a card and a classifier do not belong together."""
    pairs = {
        "task": (card.task, classifier.task),
        "labels": (card.labels, classifier.labels),
        "special": (card.special, classifier.special),
    }
    for field, (stated, actual) in pairs.items():
        if stated != actual:
            raise BundleError(f"card.{field} is {stated!r}, but the model has {actual!r}; make both the same")
    if card.max_length > classifier.max_length:
        raise BundleError(f"card.max_length is {card.max_length}, but the model takes {classifier.max_length} tokens")


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, classifier: Classifier) -> None:
    special, rows = classifier.special, classifier.embedding_layer.num_embeddings
    if max(len(tokenizer) - 1, *special.fixed, special.mask or 0) >= rows:
        raise BundleError(
            f"the tokenizer has {len(tokenizer)} tokens, but the model has {rows} word embeddings; "
            "call resize_token_embeddings before training"
        )


def _check_same(directory: Path, manifest: Manifest) -> None:
    if read_json(directory / CARD)[1] != manifest.digest:
        raise BundleError(f"{directory} was replaced while it was read; read it again")


def _open(directory: Path) -> tuple[Manifest, Card, dict[str, str | None]]:
    """Check the files of a bundle; return manifest, card and the attention implementation of each model."""
    if not directory.is_dir():
        aside = set_aside(directory)
        raise BundleError(
            f"there is no bundle {directory}; "
            + (f"saving was interrupted: rename {aside} to it" if aside else "give the directory that was saved")
        )
    manifest = read_manifest(directory, CARD, format_version=FORMAT_VERSION, required=_REQUIRED, optional=_OPTIONAL)
    content = dict(manifest.content)
    attention = content.pop("attention", None)
    if not isinstance(attention, dict):
        raise BundleError(f"{directory / CARD}: attention must be an object; save the bundle anew")
    try:
        return manifest, Card.from_dict(content), attention
    except BundleError as error:
        raise BundleError(f"{directory / CARD}: {error}") from error


def _load_classifier(
    directory: Path, part: str, card: Card, attention: Mapping[str, str | None]
) -> tuple[Classifier, dict[str, Tensor]]:
    """Return the classifier in a folder, and the tensors beside it that are not its own."""
    folder = directory / part
    model = load_model(folder, attention.get(part))
    with reading(folder):
        classifier = Classifier(model, card.special)
        _check_fit(card, classifier)
    with reading(directory / COMPRESSOR):
        tensors = load_file(directory / COMPRESSOR)
        _restore(classifier, tensors, f"{part}.")
        own_memory(classifier)
    return classifier, tensors


def _unsaved(module: nn.Module) -> dict[str, Tensor]:
    """Return what the files of a model leave out: the placeholder, and buffers that follow from the configuration.

    The latter have to be kept because ``module.to(dtype)`` rounds them.
    """
    saved = module.state_dict().keys()
    buffers = {name: b for name, b in module.named_buffers() if name not in saved and b.is_floating_point()}
    placeholder = getattr(module, "placeholder", None)
    return buffers if placeholder is None else buffers | {"placeholder": placeholder.detach()}


def _restore(module: nn.Module, tensors: dict[str, Tensor], prefix: str = "") -> None:
    """Take what `_unsaved` returned out of the tensors, and put it into the module."""
    for name, before in _unsaved(module).items():
        if prefix + name not in tensors:
            raise BundleError(f"the tensor {prefix + name} is missing")
        tensor = tensors.pop(prefix + name)
        if tensor.shape != before.shape or not tensor.is_floating_point():
            raise BundleError(f"{prefix + name} is {tensor.dtype} {tuple(tensor.shape)}, not {tuple(before.shape)}")
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, nn.Parameter(tensor) if leaf == "placeholder" else tensor)
