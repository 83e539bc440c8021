"""Which files a path or pattern means."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from vat_explain.errors import DataError

SUFFIXES = (".csv", ".jsonl", ".parquet")


def find_files(pattern: str, apart_from: Path | None = None) -> list[str]:
    """Return the absolute paths of the files that a path or pattern (``*``, ``?``, ``**``) names, sorted, each once.

    A file that is there under the very name of the pattern is meant literally. What lies in the directory `apart_from`
    is left out, and so are folders, unless they are named like a file of texts and none of their files is found too.

    Raises
    ------
    DataError
        If there are none, one is of an unknown kind, or a link points nowhere.
    """
    literal = os.path.lexists(pattern) or not glob.has_magic(pattern)
    found = [pattern] if literal else sorted(glob.glob(pattern, recursive=True))
    by_file: dict[str, str] = {}  # links, and loops of them, may give one file several names
    for path in found:
        if Path(path).is_file():
            by_file.setdefault(os.path.realpath(path), os.path.abspath(path))
    output = None if apart_from is None else os.path.realpath(apart_from)
    for path in found:
        if output is None or not Path(os.path.realpath(path)).is_relative_to(output):
            _check_no_file(path, by_file)
    files = list(by_file.values())
    if not files:
        raise DataError(
            f"there is no file {pattern!r}; check the path, and quote patterns so that the shell keeps them"
        )
    if output is not None:
        files = [path for real, path in by_file.items() if not Path(real).is_relative_to(output)]
        if not files:
            raise DataError(
                f"{pattern!r} names nothing but what lies in the output {apart_from}; name the files with texts"
            )
    for path in files:
        if Path(path).suffix.lower() not in SUFFIXES:
            raise DataError(f"{path} is none of {', '.join(SUFFIXES)}; convert or rename it, or narrow the pattern")
    return files


def _check_no_file(path: str, found: Iterable[str]) -> None:
    """Refuse what a pattern names that is no file, where its texts would be missed without a word."""
    if Path(path).is_dir() and Path(path).suffix.lower() in SUFFIXES:
        inside = Path(os.path.realpath(path))
        if not any(Path(file).is_relative_to(inside) for file in found):
            raise DataError(f"{path} is a folder; name the files in it, such as {Path(path) / '*'}")
    elif os.path.lexists(path) and not os.path.exists(path):
        raise DataError(f"{path} is a link to a file that is not there; restore the file, or narrow the pattern")
