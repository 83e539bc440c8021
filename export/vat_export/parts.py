"""Explain a part of a large job and write it as one Parquet file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from vat_explain.assemble import WindowScores, merge_shares, merge_windows
from vat_explain.errors import InputError
from vat_explain.files import write_atomically, writing_file
from vat_explain.text import Encoded
from vat_export.runtime import OnnxExplainer
from vat_export.sources import Part, Record, read

CHUNK_ROWS = 1024
"""Rows that are explained together, those of similar length in one batch."""

CHUNK_CHARACTERS = 2_000_000
"""Characters after which a chunk ends earlier, so that long texts do not fill the memory."""

BATCH_TOKENS = 512
"""Most tokens, padding counted, in one pass; on a CPU, four times as many are an eighth slower."""

PARTS, REJECTED = "parts", "rejected"


@dataclass(frozen=True)
class Settings:
    """What to read and what to write.

    Attributes
    ----------
    text_column : str
    pair_column, id_column : str, optional
    top_k : int, optional
        Write so many tokens of a text, the most important first; all, in the order of the text, when left out.
    """

    text_column: str = "text"
    pair_column: str | None = None
    id_column: str | None = None
    top_k: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to read."""
        names = (self.text_column, self.pair_column, self.id_column)
        return tuple(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class Done:
    """A finished part.

    Attributes
    ----------
    part : int
        Its number.
    rows, rejected : int
        Rows explained, and rows that could not be.
    sha256 : str
        Digest of its Parquet file.
    """

    part: int
    rows: int
    rejected: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return the record as values that JSON knows."""
        return asdict(self)


def part_file(output: Path, number: int) -> Path:
    """Return where the Parquet file of a part lies."""
    return output / PARTS / f"part-{number:06d}.parquet"


def rejected_file(output: Path, number: int) -> Path:
    """Return where the rows of a part that could not be explained are listed."""
    return output / REJECTED / f"part-{number:06d}.jsonl"


def explain_part(
    explainer: OnnxExplainer,
    part: Part,
    settings: Settings,
    output: Path,
    advance: Callable[[int], None] = lambda rows: None,
) -> Done:
    """Explain the rows of a part and write them; the Parquet file comes last and as a whole.

    Parameters
    ----------
    explainer : OnnxExplainer
    part : Part
    settings : Settings
    output : Path
        Directory with the folders `PARTS` and `REJECTED`.
    advance : callable
        Told how many rows have been done.

    Raises
    ------
    DataError
        If the input cannot be read or the output not be written.
    """
    target = part_file(output, part.number)
    schema = _schema(explainer, settings)
    rejected: list[dict[str, Any]] = []
    rows = 0
    with writing_file(target) as temporary:
        # An open file, as pyarrow takes no path that is not UTF-8.
        with (
            temporary.open("wb") as stream,
            pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd") as writer,
        ):
            for chunk in chunks(read(part, settings.columns)):
                good, bad = _encode(explainer, chunk, settings, part.path)
                rejected += bad
                if good:
                    scores = explainer.score([text for _, text in good], batch_tokens=BATCH_TOKENS)
                    writer.write_table(_table(explainer, good, scores, settings, part.path, schema))
                rows += len(good)
                advance(len(chunk))
        digest = file_digest(temporary)
        if rejected:
            lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in rejected)
            content = "".join(lines).encode(errors="backslashreplace")
            write_atomically(rejected_file(output, part.number), content)
    return Done(part.number, rows, len(rejected), digest)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Cut rows into chunks of at most `CHUNK_ROWS` rows that end after `CHUNK_CHARACTERS` characters."""
    chunk: list[Record] = []
    characters = 0
    for record in records:
        characters += sum(len(value) for value in record.values.values() if isinstance(value, str))
        chunk.append(record)
        if len(chunk) == CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _encode(
    explainer: OnnxExplainer, chunk: Sequence[Record], settings: Settings, path: str
) -> tuple[list[tuple[Record, Encoded]], list[dict[str, Any]]]:
    """Tokenise a chunk; return the rows that can be explained, and why the others cannot."""
    good: list[tuple[Record, Encoded]] = []
    bad: list[dict[str, Any]] = []
    for record in chunk:
        try:
            good.append((record, explainer.encoder.encode(*_texts(record, settings))))
        except InputError as error:
            entry = {"source": path, "row": record.row, "id": _id(record, settings), "reason": str(error)}
            bad.append(entry)
    return good, bad


def _texts(record: Record, settings: Settings) -> tuple[Any, ...]:
    if record.problem is not None:
        raise InputError(record.problem)
    columns = [settings.text_column] + ([settings.pair_column] if settings.pair_column else [])
    for column in columns:
        if record.values.get(column) is None:
            missing = "is null" if column in record.values else "is missing"
            raise InputError(f"the column {column!r} {missing}; give a text")
    return tuple(record.values[column] for column in columns)


def _id(record: Record, settings: Settings) -> str | None:
    value = record.values.get(settings.id_column) if settings.id_column else None
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return None if value is None else printable(str(value))


def printable(text: str) -> str:
    """Return a text with escapes in place of lone surrogates, such as those of file names that are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _schema(explainer: OnnxExplainer, settings: Settings) -> Any:
    text, number, real = pyarrow.string(), pyarrow.int32(), pyarrow.float32()
    fields = [
        ("source", text),
        ("row", pyarrow.int64()),
        *([("id", text)] if settings.id_column else []),
        ("label", text),
        ("predicted", pyarrow.list_(text)),
        ("score", real),
        ("probabilities", pyarrow.list_(real)),
        ("tokens", pyarrow.list_(text)),
        *([("segments", pyarrow.list_(number))] if settings.pair_column else []),
        ("starts", pyarrow.list_(number)),
        ("ends", pyarrow.list_(number)),
        ("importances", pyarrow.list_(real)),
        ("contributions", pyarrow.list_(real)),
    ]
    labels = json.dumps(list(explainer.labels), ensure_ascii=False)
    return pyarrow.schema(fields, {"vat_explain.labels": labels, "vat_explain.export": explainer.digest})


def _table(
    explainer: OnnxExplainer,
    rows: Sequence[tuple[Record, Encoded]],
    scores: Sequence[Sequence[WindowScores]],
    settings: Settings,
    path: str,
    schema: Any,
) -> Any:
    """Lay out the explanations of a chunk as an Arrow table."""
    labels = np.array(explainer.labels, dtype=object)
    probabilities = np.array([np.mean([w.probabilities for w in windows], axis=0) for windows in scores])
    best = probabilities.argmax(1)
    multi = explainer.spec.task == "multi_label"
    predicted = [labels[p >= 0.5] if multi else labels[[i]] for p, i in zip(probabilities, best, strict=True)]
    shown = [
        _tokens(text, windows, i, settings.top_k) for (_, text), windows, i in zip(rows, scores, best, strict=True)
    ]
    offsets = np.cumsum([0, *(len(order) for order, _, _ in shown)])
    encoded = [text for _, text in rows]

    def flat(pieces: Sequence[NDArray[Any]], kind: Any) -> Any:
        return _lists(offsets, pyarrow.array(np.concatenate(pieces), kind))

    def tokenwise(arrays: Sequence[NDArray[Any]]) -> Any:
        return flat([array[order] for array, (order, _, _) in zip(arrays, shown, strict=True)], pyarrow.int32())

    tokens = [text.tokens[i] for text, (order, _, _) in zip(encoded, shown, strict=True) for i in order.tolist()]
    ends = np.cumsum([0, *map(len, predicted)])
    columns: dict[str, Any] = {
        "source": pyarrow.array([printable(path)] * len(rows)),
        "row": pyarrow.array([record.row for record, _ in rows], pyarrow.int64()),
        "id": pyarrow.array([_id(record, settings) for record, _ in rows], pyarrow.string()),
        "label": pyarrow.array(labels[best], pyarrow.string()),
        "predicted": _lists(ends, pyarrow.array(np.concatenate(predicted), pyarrow.string())),
        "score": pyarrow.array(probabilities[np.arange(len(rows)), best], pyarrow.float32()),
        "probabilities": _lists(
            np.arange(len(rows) + 1) * len(labels), pyarrow.array(probabilities.ravel(), pyarrow.float32())
        ),
        "tokens": _lists(offsets, pyarrow.array(tokens, pyarrow.string())),
        "segments": tokenwise([text.segments for text in encoded]),
        "starts": tokenwise([text.spans[:, 0] for text in encoded]),
        "ends": tokenwise([text.spans[:, 1] for text in encoded]),
        "importances": flat([importances for _, importances, _ in shown], pyarrow.float32()),
        "contributions": flat([contributions for _, _, contributions in shown], pyarrow.float32()),
    }
    return pyarrow.table([columns[name] for name in schema.names], schema=schema)


def _lists(offsets: NDArray[Any], values: Any) -> Any:
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), values)


def _tokens(
    text: Encoded, windows: Sequence[WindowScores], best: int, top_k: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return which tokens to write, their shares, and their parts of the predicted label's probability."""
    parts = [w.class_importance[:, best] for w in windows if w.class_importance is not None]
    contributions = merge_windows(text, parts, "probability")
    importances = merge_shares(text, windows, contributions)
    if top_k is None:
        return np.arange(len(importances)), importances, contributions
    order = np.argsort(-importances, kind="stable")[:top_k]
    return order, importances[order], contributions[order]
