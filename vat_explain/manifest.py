"""A directory whose every file is listed, with its digest, in a JSON file that also says what the directory is.

The digest of that one file therefore stands for the whole directory. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vat_explain.errors import BundleError
from vat_explain.files import file_digest

MAX_JSON_BYTES = 64_000_000
"""Largest JSON file that is read."""

_HEADER = ("format_version", "readable_from", "files")
REMEDY = "copy the directory again from where it was made, or write it anew"


@dataclass(frozen=True)
class Manifest:
    """What the JSON file of a directory says, after every file has been checked.

    Attributes
    ----------
    content : dict
        All of it but the header.
    files : dict of str to str
        SHA-256 of each file, in hexadecimal, by its path with ``/`` between folders.
    digest : str
        SHA-256 of the JSON file itself.
    """

    content: dict[str, Any]
    files: dict[str, str]
    digest: str


def write_manifest(
    directory: Path, name: str, *, format_version: int, readable_from: str, content: Mapping[str, Any]
) -> str:
    """List the files of a directory in a JSON file.

    Parameters
    ----------
    directory : Path
        Complete but for the file to write.
    name : str
        Name of that file.
    format_version : int
        Version of the format of the directory.
    readable_from : str
        First version of vat-explain that reads it, which older ones name in their error.
    content : mapping
        What else to write; plain JSON.

    Returns
    -------
    str
        The digest, as `Manifest.digest`.

    Raises
    ------
    BundleError
        If the content is not plain JSON, or the directory holds links.
    """
    files = {path: _digest(directory / path) for path in sorted(list_files(directory))}
    record = dict(zip(_HEADER, (format_version, readable_from, files), strict=True)) | dict(content)
    for field, value in record.items():
        try:
            plain = json.loads(json.dumps(value, allow_nan=False, ensure_ascii=False).encode()) == value
        except (TypeError, ValueError, RecursionError):
            plain = False
        if not plain:
            raise BundleError(
                f"{name}: {field} is not plain JSON; use only dicts with string keys, lists, strings, finite numbers, "
                "booleans and None in it"
            )
    data = (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
    (directory / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def read_manifest(
    directory: Path,
    name: str,
    *,
    format_version: int,
    required: Collection[str],
    optional: Collection[str] = (),
) -> Manifest:
    """Read the JSON file of a directory and check the directory against it.

    Parameters
    ----------
    directory : Path
    name : str
        Name of the JSON file.
    format_version : int
        Newest version of the format that the caller reads.
    required, optional : collection of str
        Files that must and that may be there; any other is refused.

    Raises
    ------
    BundleError
        If the JSON file is missing, malformed or of a newer format; if a file is missing, unknown, a link, or not what
        it was when it was listed.
    """
    found = list_files(directory)
    if name not in found:
        raise BundleError(f"{directory} has no {name}, so it is of another kind; give the directory that was written")
    path = directory / name
    record, digest = read_json(path)
    _check_version(path, record, format_version)
    files = record.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{path}: files must be an object of paths and digests; {REMEDY}")
    for entry, value in files.items():
        if entry not in required and entry not in optional:
            raise BundleError(f"{path}: files lists {entry!r}, which is no part of this format; {REMEDY}")
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
            raise BundleError(f"{path}: the digest of {entry!r} is no SHA-256 in lower-case hexadecimal; {REMEDY}")
    for entry in sorted(found - files.keys() - {name}):
        raise BundleError(f"{directory} holds {entry!r}, which {name} does not list; remove it if you put it there")
    for entry in sorted(files.keys() - found):
        raise BundleError(f"{directory} lacks {entry!r}, which {name} lists; {REMEDY}")
    for entry in sorted(set(required) - files.keys()):
        raise BundleError(f"{path}: files does not list {entry!r}, which this format needs; {REMEDY}")
    for entry, value in files.items():
        if _digest(directory / entry) != value:
            raise BundleError(f"{directory / entry} is damaged or was altered: its SHA-256 differs; {REMEDY}")
    content = {field: value for field, value in record.items() if field not in _HEADER}
    return Manifest(content, files, digest)


def holds_only_listed(directory: Path, name: str) -> bool:
    """Tell whether the JSON file of a directory lists every other file in it, so that all of it was written by us."""
    try:
        listed = read_json(directory / name)[0].get("files")
        return isinstance(listed, dict) and list_files(directory) <= {name, *listed}
    except BundleError:
        return False


def list_files(directory: Path) -> set[str]:
    """Return the paths of all files in a directory and its folders, relative, with ``/`` between folders.

    Raises
    ------
    BundleError
        If it cannot be read, or holds a link or anything else that is neither file nor folder.
    """
    files: set[str] = set()
    folders = [directory]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if stat.S_ISDIR(mode):
                        folders.append(Path(entry.path))
                    elif stat.S_ISREG(mode):
                        files.add(Path(entry.path).relative_to(directory).as_posix())
                    else:
                        raise BundleError(f"{entry.path!r} is a link or device, which has no place here; {REMEDY}")
    except OSError as error:
        raise BundleError(f"cannot read {directory}: {error.strerror}; check the path and its permissions") from error
    return files


def read_json(path: Path) -> tuple[dict[str, Any], str]:
    """Read a JSON object strictly; return it and the SHA-256 of the file.

    Raises
    ------
    BundleError
        If the file cannot be read, is too large, or is not one JSON object in UTF-8 with each name once.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BundleError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes, which no such file is; {REMEDY}")
        data = path.read_bytes()
        record = json.loads(data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_once)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; {REMEDY}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path} is not valid JSON in UTF-8 ({error}); {REMEDY}") from error
    if not isinstance(record, dict):
        raise BundleError(f"{path} holds no JSON object but a {type(record).__name__}; {REMEDY}")
    return record, hashlib.sha256(data).hexdigest()


def _check_version(path: Path, record: Mapping[str, Any], newest: int) -> None:
    version = record.get("format_version")
    if type(version) is not int or version < 1:
        raise BundleError(f"{path}: format_version must be a whole number from 1 on, got {version!r}; {REMEDY}")
    if version > newest:
        needed = record.get("readable_from")
        raise BundleError(
            f"{path} has format_version {version}, and this vat-explain reads up to {newest}; upgrade vat-explain"
            + (f" to {needed} or newer" if isinstance(needed, str) else "")
        )


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; check its permissions") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a name occurs twice in one object")
    return record
