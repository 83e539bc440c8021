"""Explain a part of a large job and write it as one Parquet file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from vat_explain.assemble import WindowScores, merge_shares, merge_windows
from vat_explain.errors import BundleError, InputError
from vat_explain.files import file_digest, write_atomically, writing_file
from vat_explain.text import Encoded
from vat_export.runtime import OnnxExplainer
from vat_export.sources import Part, Record, read

CHUNK_ROWS = 1024
"""Rows that are explained together, those of similar length in one batch."""

CHUNK_CHARACTERS, CHUNK_TOKENS = 2_000_000, 500_000
"""Characters, and tokens of all windows, after which a chunk ends earlier: long texts must not fill the memory."""

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
    sha256, rejected_sha256 : str
        Digests of its Parquet file, and of the list of rejected rows; empty where none was rejected.
    """

    part: int
    rows: int
    rejected: int
    sha256: str
    rejected_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return the record as values that JSON knows."""
        return asdict(self)


class Row(NamedTuple):
    """A row that can be explained: its number, the input's id, and its tokens."""

    number: int
    id: str | None
    text: Encoded


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
    rows, listed = 0, b""
    with writing_file(target) as temporary:
        # An open file, as pyarrow takes no path that is not UTF-8.
        with (
            temporary.open("wb") as stream,
            pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd") as writer,
        ):
            for good, bad in chunks(explainer, read(part, settings.columns), settings):
                rejected += [{"source": part.path, **entry} for entry in bad]
                if good:
                    scores = explainer.score([row.text for row in good], batch_tokens=BATCH_TOKENS)
                    writer.write_table(_table(explainer, good, scores, settings, part.path, schema))
                rows += len(good)
                advance(len(good) + len(bad))
        digest = file_digest(temporary)
        if rejected:
            lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in rejected)
            listed = "".join(lines).encode(errors="backslashreplace")
            write_atomically(rejected_file(output, part.number), listed)
    return Done(part.number, rows, len(rejected), digest, hashlib.sha256(listed).hexdigest() if rejected else "")


def chunks(
    explainer: OnnxExplainer, records: Iterable[Record], settings: Settings
) -> Iterator[tuple[list[Row], list[dict[str, Any]]]]:
    """Tokenise rows; yield some at a time, those that can be explained and why the others cannot.

    At most `CHUNK_ROWS` rows, fewer where they reach `CHUNK_CHARACTERS` or `CHUNK_TOKENS`.
    """
    good: list[Row] = []
    bad: list[dict[str, Any]] = []
    characters = tokens = 0
    for record in records:
        name = _id(record, settings)
        characters += len(name or "")
        try:
            texts = _texts(record, settings)
            encoded = explainer.encoder.encode(*texts)
        except InputError as error:
            bad.append({"row": record.row, "id": name, "reason": str(error)})
        else:
            good.append(Row(record.row, name, encoded))
            characters += sum(map(len, texts))
            tokens += sum(map(len, encoded.windows))
        if len(good) + len(bad) == CHUNK_ROWS or characters >= CHUNK_CHARACTERS or tokens >= CHUNK_TOKENS:
            yield good, bad
            good, bad = [], []
            characters = tokens = 0
    if good or bad:
        yield good, bad


def load_same(model: Path, digest: str) -> OnnxExplainer:
    """Load the model of a job with one thread.

    Raises
    ------
    BundleError
        If it is not the model that the job began with.
    """
    explainer = OnnxExplainer(model, threads=1)
    if explainer.digest != digest:
        raise BundleError(f"{model} is not the model that the job began with; put that back and go on with --resume")
    return explainer


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
    rows: Sequence[Row],
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
    shown = [_tokens(row.text, windows, i, settings.top_k) for row, windows, i in zip(rows, scores, best, strict=True)]
    offsets = np.cumsum([0, *(len(order) for order, _, _ in shown)])
    encoded = [row.text for row in rows]

    def flat(pieces: Sequence[NDArray[Any]], kind: Any) -> Any:
        return _lists(offsets, pyarrow.array(np.concatenate(pieces), kind))

    def tokenwise(arrays: Sequence[NDArray[Any]]) -> Any:
        return flat([array[order] for array, (order, _, _) in zip(arrays, shown, strict=True)], pyarrow.int32())

    tokens = [text.tokens[i] for text, (order, _, _) in zip(encoded, shown, strict=True) for i in order.tolist()]
    ends = np.cumsum([0, *map(len, predicted)])
    columns: dict[str, Any] = {
        "source": pyarrow.array([printable(path)] * len(rows)),
        "row": pyarrow.array([row.number for row in rows], pyarrow.int64()),
        "id": pyarrow.array([row.id for row in rows], pyarrow.string()),
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
