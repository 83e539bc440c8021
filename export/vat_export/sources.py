"""Input files of a large job: cut into parts that can be read alone, and read row by row whatever a row holds."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow
import pyarrow.parquet

from vat_explain.errors import DataError

MAX_LINE = 64_000_000
"""Longest line of a text file, and field of a CSV file, in bytes."""

_BATCH = 1024
_BATCH_BYTES = 32_000_000
_PIECE = 64
_BUFFER = 1 << 20
_FIRST = 100  # JSON Lines: a column that none of so many rows has is taken for a wrong name


@dataclass(frozen=True)
class Part:
    """A stretch of rows of one file.

    Attributes
    ----------
    number : int
        Counted over all files.
    path : str
        The file.
    first_row : int
        Number of its first row: in JSON Lines the line, in CSV the record after the header, in Parquet the row, from 1.
    rows : int
    offset : int
        Where it begins in bytes; 0 in Parquet.
    size, modified : int
        Of the file when it was cut: bytes, and the time of its last change in nanoseconds.
    """

    number: int
    path: str
    first_row: int
    rows: int
    offset: int
    size: int
    modified: int


@dataclass(frozen=True)
class Source:
    """An input file.

    Attributes
    ----------
    path : str
    sha256 : str
    parts : tuple of Part
    """

    path: str
    sha256: str
    parts: tuple[Part, ...]


class Record(NamedTuple):
    """A row: its number, and its values by column or what is wrong with it."""

    row: int
    values: dict[str, object]
    problem: str | None = None


def plan(
    paths: Sequence[str], columns: Sequence[str], part_rows: int, advance: Callable[[int], None] = lambda size: None
) -> list[Source]:
    """Read all files once, to find their parts and digests and to check that they have the columns.

    Parameters
    ----------
    paths : sequence of str
    columns : sequence of str
        Those that will be read.
    part_rows : int
        Most rows of a part.
    advance : callable
        Told the size, in bytes, of each file that is done.

    Raises
    ------
    DataError
        If a file cannot be read, lacks a column, or all of them together hold no row.
    """
    sources: list[Source] = []
    number = 0
    for path in paths:
        cut = {".csv": _cut_csv, ".jsonl": _cut_jsonl, ".parquet": _cut_parquet}[Path(path).suffix.lower()]
        digest = hashlib.sha256()
        with _reading(path):
            state = Path(path).stat()
            stretches = cut(path, columns, part_rows, digest)
        size, modified = state.st_size, state.st_mtime_ns
        parts = [Part(number + i, path, *stretch, size, modified) for i, stretch in enumerate(stretches)]
        number += len(parts)
        sources.append(Source(path, digest.hexdigest(), tuple(parts)))
        advance(size)
    if not number:
        raise DataError(f"{', '.join(paths[:3])} hold no rows; give files with texts")
    return sources


def read(part: Part, columns: Sequence[str]) -> Iterator[Record]:
    """Read the rows of a part; what is wrong with a row is said in its record.

    Raises
    ------
    DataError
        If the file cannot be read, or changed since it was planned.
    """
    reader = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}[Path(part.path).suffix.lower()]
    count = 0
    with _reading(part.path), closing(reader(part, columns)) as records:
        state = Path(part.path).stat()
        if (state.st_size, state.st_mtime_ns) != (part.size, part.modified):
            raise DataError(f"{part.path} changed since the job began; leave input files as they are")
        for record in records:
            yield record
            count += 1
            if count == part.rows:
                return
    raise DataError(f"{part.path} has fewer rows than when the job began; leave input files as they are")


# A stretch: number of its first row, rows, offset in bytes.
_Stretches = list[tuple[int, int, int]]


class _Lines:
    """The lines of a file as text, with the offset that reading has reached.

    Bytes that are not UTF-8 become lone surrogates, which no text may hold, so that only their rows are refused.
    """

    def __init__(self, handle: BinaryIO, path: str, digest: Any = None) -> None:
        self._handle, self._path, self._digest = handle, path, digest
        self.offset = handle.tell()

    def __iter__(self) -> Iterator[str]:
        while raw := self._handle.readline(MAX_LINE):
            if len(raw) == MAX_LINE and not raw.endswith(b"\n"):
                raise DataError(f"{self._path} has a line of more than {MAX_LINE:,} bytes; split it or use Parquet")
            if self._digest is not None:
                self._digest.update(raw)
            text = raw.removeprefix(codecs.BOM_UTF8) if self.offset == 0 else raw
            self.offset += len(raw)
            yield text.decode(errors="surrogateescape")


def _cut_csv(path: str, columns: Sequence[str], part_rows: int, digest: Any) -> _Stretches:
    stretches: _Stretches = []
    with open(path, "rb") as handle:
        lines = _Lines(handle, path, digest)
        records = _csv_records(lines)
        header = next(records, None)
        if header is None:
            return []
        _check_columns(path, header, columns)
        offset = lines.offset
        for count, _ in enumerate(_csv_rows(records, header)):
            if count % part_rows == 0:
                stretches.append((count + 1, 0, offset))
            first, rows, place = stretches[-1]
            stretches[-1] = (first, rows + 1, place)
            offset = lines.offset
    return stretches


def _read_csv(part: Part, columns: Sequence[str]) -> Generator[Record, None, None]:
    with open(part.path, "rb") as handle:
        header = next(_csv_records(_Lines(handle, part.path)))
    with open(part.path, "rb") as handle:
        handle.seek(part.offset)
        row = part.first_row
        for fields in _csv_rows(_csv_records(_Lines(handle, part.path)), header):
            if len(fields) == len(header):
                named = zip(header, fields, strict=True)
                yield Record(row, {name: field for name, field in named if name in columns})
            else:
                yield Record(
                    row, {}, f"the row has {len(fields)} fields, and the header {len(header)}; quote commas in fields"
                )
            row += 1


def _csv_records(lines: _Lines) -> Iterator[list[str]]:
    """Read records of long fields; the limit is the whole process's, so it is raised for one record at a time."""
    reader = csv.reader(lines, strict=True)  # otherwise a quote that is never closed swallows the rows behind it
    while True:
        before = csv.field_size_limit(MAX_LINE)
        begins = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise csv.Error(f"{str(error).partition(' - ')[0]}, in the record that begins in line {begins}") from None
        finally:
            csv.field_size_limit(before)
        if fields is None:
            return
        yield fields


def _csv_rows(records: Iterable[list[str]], header: Sequence[str]) -> Iterator[list[str]]:
    """Leave out empty lines, but for those of a single column, which are empty fields."""
    for fields in records:
        if fields or len(header) == 1:
            yield fields or [""]


def _cut_jsonl(path: str, columns: Sequence[str], part_rows: int, digest: Any) -> _Stretches:
    stretches: _Stretches = []
    missing = set(columns)
    with open(path, "rb") as handle:
        lines = _Lines(handle, path, digest)
        offset = count = 0
        for number, line in enumerate(lines, 1):
            if line.strip():
                if count < _FIRST and not isinstance(values := _parse(line), str):
                    missing -= values.keys()
                if count % part_rows == 0:
                    stretches.append((number, 0, offset))
                count += 1
                first, rows, place = stretches[-1]
                stretches[-1] = (first, rows + 1, place)
            offset = lines.offset
    if count and missing:
        raise DataError(f"{path}: none of the first rows has {_names(missing)}; check the names of the columns")
    return stretches


def _read_jsonl(part: Part, columns: Sequence[str]) -> Generator[Record, None, None]:
    with open(part.path, "rb") as handle:
        handle.seek(part.offset)
        for row, line in enumerate(_Lines(handle, part.path), part.first_row):
            if not line.strip():
                continue
            values = _parse(line)
            if isinstance(values, str):
                yield Record(row, {}, values)
            else:
                yield Record(row, {name: values[name] for name in columns if name in values})


def _parse(line: str) -> dict[str, object] | str:
    """Return the object of a line, or what is wrong with the line."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"the line is not valid JSON ({error})"
    return values if isinstance(values, dict) else f"the line is a JSON {type(values).__name__}, not an object"


def _cut_parquet(path: str, columns: Sequence[str], part_rows: int, digest: Any) -> _Stretches:
    with open(path, "rb") as handle:
        while block := handle.read(_BUFFER):
            digest.update(block)
        if handle.tell() == 0:
            return []
    with open(path, "rb") as handle, pyarrow.parquet.ParquetFile(handle) as file:
        _check_columns(path, file.schema_arrow.names, columns)
        rows = file.metadata.num_rows
    return [(first + 1, min(part_rows, rows - first), 0) for first in range(0, rows, part_rows)]


def _read_parquet(part: Part, columns: Sequence[str]) -> Generator[Record, None, None]:
    # An open file, as pyarrow takes no path that is not UTF-8.
    with open(part.path, "rb") as handle, pyarrow.parquet.ParquetFile(handle) as file:
        texts = [field.name for field in file.schema_arrow if field.name in columns and _is_text(field.type)]
    # Dictionaries, as a long text that many rows share would be laid out for each of them.
    shared = {"buffer_size": _BUFFER, "read_dictionary": texts}
    with open(part.path, "rb") as handle, pyarrow.parquet.ParquetFile(handle, **shared) as file:
        groups: list[int] = []
        skip, before = part.first_row - 1, 0
        at_once = _BATCH
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if rows == 0:
                continue
            if before + rows > part.first_row - 1 and before < part.first_row - 1 + part.rows:
                if not groups:
                    skip -= before
                groups.append(group)
                size = file.metadata.row_group(group).total_byte_size
                at_once = max(1, min(at_once, _BATCH_BYTES * rows // (size + 1)))
            before += rows
        row = part.first_row
        for batch in file.iter_batches(at_once, row_groups=groups, columns=list(dict.fromkeys(columns))):
            first = min(skip, len(batch))
            skip -= first
            # Piece by piece: what is long and often the same takes little room in Arrow and much in Python.
            for piece in (batch.slice(start, _PIECE) for start in range(first, len(batch), _PIECE)):
                for values in zip(*(_values(piece.column(name)) for name in columns), strict=True):
                    yield Record(row, dict(zip(columns, values, strict=True)))
                    row += 1


def _values(column: Any) -> list[object]:
    """Return the values of a column; text that is not UTF-8 gets lone surrogates, as in other files."""
    if isinstance(column, pyarrow.DictionaryArray):
        column = column.dictionary.take(column.indices)  # decoding would end the job where a text is not UTF-8
    if _is_text(column.type):
        kind = pyarrow.large_binary() if pyarrow.types.is_large_string(column.type) else pyarrow.binary()
        return [None if v is None else v.decode(errors="surrogateescape") for v in column.cast(kind).to_pylist()]
    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError):  # times that Python cannot hold
        values = column.cast(pyarrow.string()).to_pylist()
    return values


def _is_text(kind: Any) -> bool:
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _check_columns(path: str, present: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        raise DataError(f"{path} has no {_names(missing)}; its columns are {', '.join(present)}")
    twice = [name for name in wanted if list(present).count(name) > 1]
    if twice:
        raise DataError(f"{path} has {_names(twice)} more than once; rename or remove one")


def _names(columns: Sequence[str] | set[str]) -> str:
    return "column " + ", ".join(map(repr, sorted(columns)))


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pyarrow.ArrowException, OverflowError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; check its permissions, or write it again") from error
    except csv.Error as error:
        raise DataError(
            f"{path} is not valid CSV: {error}; check the quotes and line ends there, or use JSON Lines or Parquet"
        ) from error
