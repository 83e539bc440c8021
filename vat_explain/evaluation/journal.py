"""Results text by text, appended to a file as they come, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vat_explain.errors import DataError

Record = dict[str, Any]


class Journal:
    """A JSON Lines file of records, each under a name and the number of a text; only their places are in memory.

    Parameters
    ----------
    path : Path
        Created when missing. A line that an interruption left unfinished is cut off.

    Raises
    ------
    DataError
        If the file cannot be opened, or holds a line that is no record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[tuple[str, int], int] = {}
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}; check that its folder is writable") from error
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
                self._places[record["name"], record["text"]] = end
            except (ValueError, KeyError, TypeError):
                self._file.close()
                raise DataError(f"{path}, line {number} is no record of an evaluation; delete the file") from None
            end += len(line)
        self._file.truncate(end)

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._places

    def append(self, records: Sequence[Record]) -> None:
        """Write records, each with ``name`` and ``text``, in one go and to the disk.

        Raises
        ------
        DataError
            If the disk is full or the file cannot be written.
        """
        lines = [json.dumps(record, allow_nan=False).encode() + b"\n" for record in records]
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DataError(f"cannot write {self._path}: {error.strerror}; make room and run it again") from error
        for record, line in zip(records, lines, strict=True):
            self._places[record["name"], record["text"]] = place
            place += len(line)

    def read(self, name: str, text: int) -> Record:
        """Return the latest record of a name and text."""
        self._file.seek(self._places[name, text])
        record: Record = json.loads(self._file.readline())
        return record

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # what could not be written has been reported by `append`
            self._file.close()
