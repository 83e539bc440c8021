"""From a model to an archive that TorchServe can load."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from pathlib import Path

from vat_explain.errors import BundleError
from vat_serve.archive import SETTINGS, SUFFIX, read_settings, write_archive
from vat_serve.backends import BUNDLE, ONNX
from vat_serve.service import Request, Service

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_TRIAL = "A short text to try the archive with."


def package(model: Path, store: Path, name: str | None = None, backend: str | None = None) -> Path:
    """Make an archive, load it, let it answer one request, and then move it into the store.

    Parameters
    ----------
    model : Path
        A bundle, or a folder that `vat_export.export_onnx` has written.
    store : Path
        Folder for archives, made where missing. An archive of the same name there is replaced.
    name : str, optional
        What the model is called in addresses; by default the name of its folder.
    backend : {"torch", "onnx"}, optional
        What should run the model; by default what fits the folder.

    Returns
    -------
    Path
        The archive.

    Raises
    ------
    BundleError
        If the folder holds no such model, the name cannot be used, or the archive cannot be written, loaded or used.
    """
    kind = _kind(model, backend)
    chosen = name if name is not None else model.resolve().name
    if not _NAME.fullmatch(chosen):
        raise BundleError(
            f"{chosen!r} cannot be the name of a model: use up to 128 letters, digits, '_', '.' and '-', "
            "a letter or digit first; pass another --name"
        )
    if store.resolve().is_relative_to(model.resolve()):
        raise BundleError(f"{store} lies in {model}, and the archive would hold itself; name another folder for it")
    place = store / f"{chosen}{SUFFIX}"
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{chosen}.", dir=store) as folder:
            archive = Path(folder) / place.name
            write_archive(archive, chosen, model, kind)
            _try(archive, Path(folder) / "unpacked", chosen)
            archive.replace(place)
    except OSError as error:
        raise BundleError(
            f"cannot write {place}: {error.strerror or error}; check that the folder is writable and has room"
        ) from error
    return place


def _kind(model: Path, backend: str | None) -> str:
    """Return the folder of the archive that a model goes to."""
    if (model / "card.json").is_file():
        kind, fits = BUNDLE, "torch"
    elif (model / "manifest.json").is_file():
        kind, fits = ONNX, "onnx"
    else:
        raise BundleError(f"{model} holds no model; give a folder written by vat-explain fit or vat-explain export")
    if backend not in (None, fits):
        raise BundleError(
            f"{model} is for the {fits} backend; for {backend}, give what vat-explain "
            f"{'fit' if backend == 'torch' else 'export'} has written"
        )
    return kind


def _try(archive: Path, folder: Path, name: str) -> None:
    """Do what TorchServe will do: unpack, load, answer."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    service = Service.load(folder, read_settings(archive).get("vat"), name=name)
    answer = service.answer([Request({"text": _TRIAL}, explains=True)])[0]
    if answer.status != 200:
        reason = json.loads(answer.body)["error"]
        raise BundleError(f"the archive loads, but does not answer a text ({reason}); check {SETTINGS} and the model")
