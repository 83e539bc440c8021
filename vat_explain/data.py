"""Labelled and unlabelled texts from CSV, JSON Lines, Parquet and `datasets`, checked row by row."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from vat_explain.errors import DataError
from vat_explain.readers import Row, Table, open_table

_SEPARATOR = "|"


@dataclass(frozen=True)
class Example:
    """One text, or pair of texts, with what is known about it.

    Attributes
    ----------
    text, text_pair
        The text, and the second text of a pair.
    label
        Class ids, ascending: one for single-label data, any number for multi-label data; None when unlabelled.
    row
        1-based number of the record in its source (for JSON Lines the line).
    rationale
        Character spans ``(start, end)`` over ``text`` that a person marked as deciding.
    """

    text: str
    text_pair: str | None
    label: tuple[int, ...] | None
    row: int
    rationale: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class LabelSet:
    """The classes of a task; a class's id is its place in ``names``.

    Attributes
    ----------
    names
        Distinct class names.
    multi_label
        Whether an example can have any number of them.
    """

    names: tuple[str, ...]
    multi_label: bool = False

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise DataError(f"The class names {', '.join(map(repr, twice))} occur twice. Give each class its own name.")

    def find(self, label: str | int) -> int | None:
        """Return the id of a class given by name (case matters only where needed) or by id; None if there is none.

        Names come first, so that with the names ``("1", "2")`` the label 1 is the class ``"1"``, whose id is 0.
        """
        written = str(label)
        if written in self.names:
            return self.names.index(written)
        alike = [i for i, name in enumerate(self.names) if name.casefold() == written.casefold()]
        if len(alike) == 1:
            return alike[0]
        return int(written) if re.fullmatch("[0-9]{1,9}", written) and int(written) < len(self.names) else None


@dataclass(frozen=True)
class Dataset:
    """What `load_examples` returns.

    Attributes
    ----------
    examples
        At least one example, in the order of the source.
    labels
        The classes, None when unlabelled.
    source
        Where the examples came from.
    digest
        SHA-256 (hex) of texts, label names and rationales; the same content gives the same digest in any format.
    """

    examples: tuple[Example, ...]
    labels: LabelSet | None
    source: str
    digest: str


def load_examples(
    source: str | Path,
    *,
    text_column: str = "text",
    pair_column: str | None = None,
    label_column: str | None = "label",
    rationale_column: str | None = None,
    labels: LabelSet | None = None,
    limit: int | None = None,
) -> Dataset:
    """Read and check examples.

    Parameters
    ----------
    source
        A ``.csv``, ``.jsonl`` or ``.parquet`` file, or ``hf:dataset[/config][:split]``.
    text_column, pair_column
        The columns with the text and, for pairs, the second text.
    label_column
        The column with the label: a name, an integer, or for multi-label data a list of them (in CSV: ``a|b``).
        None reads the texts only.
    rationale_column
        The column with character spans over the text: ``[[start, end], ...]``, in CSV the same as JSON.
    labels
        The classes that are allowed. Without it the classes are those that occur, sorted (integers by value, named by
        their digits), or those that the dataset itself declares; at least two must occur.
    limit
        Read at most this many examples from the start.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        With the file, the row, the column and what to do, for a source or row that cannot be used.
    """
    if limit is not None and limit < 1:
        raise DataError(f"The limit is {limit}. Give a limit of at least 1, or none.")
    wanted = [name for name in (text_column, pair_column, label_column, rationale_column) if name is not None]
    table = open_table(source, wanted)
    drafts: list[tuple[Example, list[str] | None]] = []
    reader = _LabelReader(table, label_column, labels) if label_column is not None else None
    with closing(table.rows) as rows:
        for row in islice(rows, limit):
            for name in wanted:
                _check_column(table, row, name)
            text = _text(table, row, text_column)
            pair = _text(table, row, pair_column) if pair_column is not None else None
            spans = _spans(table, row, rationale_column, text) if rationale_column is not None else ()
            drafts.append((Example(text, pair, None, row.number, spans), reader.names(row) if reader else None))
    if not drafts:
        for name in wanted if table.columns is not None else ():
            _check_column(table, Row(0, "header", dict.fromkeys(table.columns or ())), name)
        raise DataError(f"{table.name} holds no rows. Give a file with at least one example.")
    found = reader.label_set(limit) if reader else None
    examples = tuple(
        draft if names is None or found is None else _labelled(draft, names, found) for draft, names in drafts
    )
    return Dataset(examples, found, table.name, _digest(examples, found))


def duplicates_across(a: Iterable[Example], b: Iterable[Example]) -> int:
    """Count the distinct texts (with their pair text) that are in both."""
    return len({(one.text, one.text_pair) for one in a} & {(one.text, one.text_pair) for one in b})


class _LabelReader:
    """Reads the labels of rows as class names, and settles what the classes are once all rows are read."""

    def __init__(self, table: Table, column: str, labels: LabelSet | None) -> None:
        self.table, self.column = table, column
        self.declared = table.class_names.get(column)
        self.closed = labels if labels is not None else LabelSet(self.declared) if self.declared else None
        self.given = labels is not None
        self.several = labels.multi_label if labels is not None else False
        self.seen: set[str] = set()
        self.first_empty: str | None = None

    def names(self, row: Row) -> list[str]:
        value = row.values[self.column]
        several = isinstance(value, list) or (isinstance(value, str) and self._is_joined(value))
        if isinstance(value, list):
            parts = [self._written(row, part) for part in value]
        elif isinstance(value, str) and (several or self.several):
            parts = [part.strip() for part in value.split(_SEPARATOR) if part.strip()]
        else:
            parts = [self._written(row, value)]
        if several and self.given and not self.several and len(parts) != 1:
            raise self._error(row, f"{len(parts)} labels, but the task has exactly one per text", "Give one label")
        self.several = self.several or (several and not self.given)
        if "" in parts:
            if isinstance(value, list) or self.given:
                raise self._error(row, "the label is empty", "Fill it in or remove the row")
            self.first_empty = self.first_empty or row.place
            parts = []
        if self.closed is not None:
            parts = [self._known(row, part) for part in parts]
        self.seen.update(parts)
        return parts

    def label_set(self, limit: int | None) -> LabelSet:
        if self.given and self.closed is not None:
            return self.closed
        if self.first_empty is not None and not self.several:
            raise DataError(
                f"{self.table.name}, {self.first_empty}, column {self.column!r}: the label is empty. "
                "Fill it in or remove the row."
            )
        if len(self.seen) < 2:
            among = "" if limit is None else f" among the first {limit} rows (raise the limit, or shuffle the rows)"
            raise DataError(
                f"{self.table.name}, column {self.column!r}: only {', '.join(map(repr, self.seen)) or 'no class'} "
                f"occurs{among}, and a classifier needs at least two classes. Check the column, or add examples of "
                "another class."
            )
        if self.closed is not None:
            return LabelSet(self.closed.names, self.several)
        if all(re.fullmatch(r"-?[0-9]*\.[0-9]+", name) for name in self.seen):
            raise DataError(
                f"{self.table.name}, column {self.column!r}: the labels are numbers such as {min(self.seen)}, which "
                "scores are and classes are not. Name the column of the classes, or make classes of the scores."
            )
        if all(re.fullmatch("-?[0-9]{1,18}", name) for name in self.seen):
            return LabelSet(tuple(sorted(self.seen, key=lambda name: (int(name), name))), self.several)
        return LabelSet(tuple(sorted(self.seen)), self.several)

    def _is_joined(self, value: str) -> bool:
        return _SEPARATOR in value and (self.closed is None or self.closed.find(value.strip()) is None)

    def _written(self, row: Row, value: object) -> str:
        if isinstance(value, float) and value.is_integer():  # what an integer column with gaps becomes in some tools
            value = int(value)
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]+\.0+\s*", value):  # and in CSV
            known = self.closed is not None and self.closed.find(value.strip()) is not None
            value = value if known else value.partition(".")[0]
        if isinstance(value, bool):
            unnamed = self.closed is not None and self.closed.names == ("LABEL_0", "LABEL_1")
            return str(int(value)) if unnamed else str(value).lower()
        if isinstance(value, int) and self.declared is not None:
            if 0 <= value < len(self.declared):
                return self.declared[value]
            raise self._error(
                row, f"{value} is no class of the dataset, which has {len(self.declared)}", "Use a labelled split"
            )
        if isinstance(value, int | str):
            return str(value).strip()
        if value is None or value != value:
            raise self._error(row, "the label is null", "Fill it in or remove the row")
        raise self._error(
            row, f"the label {value!r} is a {type(value).__name__}", "Use class names, integers, or lists of them"
        )

    def _known(self, row: Row, name: str) -> str:
        assert self.closed is not None
        number = self.closed.find(name)
        if number is None and self.declared is not None and all(re.match("LABEL_[0-9]", n) for n in self.closed.names):
            number = self.closed.find(self.declared.index(name))  # a model whose classes were never named
        if number is None:
            known = ", ".join(map(repr, self.closed.names))
            raise self._error(row, f"unknown label {name!r}; the known labels are {known}", "Correct or remove the row")
        return self.closed.names[number]

    def _error(self, row: Row, wrong: str, remedy: str) -> DataError:
        return _row_error(self.table, row, self.column, wrong, remedy)


def _labelled(draft: Example, names: list[str], labels: LabelSet) -> Example:
    ids = tuple(sorted({labels.names.index(name) for name in names}))
    return Example(draft.text, draft.text_pair, ids, draft.row, draft.rationale)


def _row_error(table: Table, row: Row, column: str, wrong: str, remedy: str) -> DataError:
    return DataError(f"{table.name}, {row.place}, column {column!r}: {wrong}. {remedy}.")


def _check_column(table: Table, row: Row, name: str) -> None:
    columns = tuple(row.values) if table.columns is None else table.columns
    if name not in columns:
        where = f"{table.name}, {row.place}" if table.columns is None else table.name
        close = difflib.get_close_matches(name, columns, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else " Name the column to use."
        raise DataError(f"{where}: no column {name!r}; there are {', '.join(map(repr, columns)) or 'none'}.{hint}")


def _text(table: Table, row: Row, column: str) -> str:
    value = row.values[column]
    if value is None:
        raise _row_error(table, row, column, "the text is null", "Fill it in or remove the row")
    if not isinstance(value, str):
        raise _row_error(table, row, column, f"of type {type(value).__name__}, not a text", "Write it as a string")
    if not value.strip():
        raise _row_error(table, row, column, "the text is empty", "Fill it in or remove the row")
    lone = re.search("[\ud800-\udfff]", value)
    if lone:
        wrong = f"half of a surrogate pair (U+{ord(lone[0]):04X}) at character {lone.start()}"
        raise _row_error(table, row, column, wrong, "Remove it or write the whole character")
    return value


def _spans(table: Table, row: Row, column: str, text: str) -> tuple[tuple[int, int], ...]:
    value = row.values[column]
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError) as error:
            raise _row_error(table, row, column, f"not JSON ({error})", "Write [[start, end], ...]") from error
    spans = []
    for pair in [] if value is None else value if isinstance(value, list) else [value]:
        match pair:
            case [int(start), int(end)] if 0 <= start < end <= len(text):
                spans.append((start, end))
            case _:
                wrong = f"{pair!r} is no span of the {len(text)} characters of the text"
                raise _row_error(table, row, column, wrong, "Write [[start, end], ...] with 0 <= start < end <= length")
    return tuple(spans)


def _digest(examples: tuple[Example, ...], labels: LabelSet | None) -> str:
    content = hashlib.sha256()
    for one in examples:
        names = None if one.label is None or labels is None else [labels.names[number] for number in one.label]
        content.update(json.dumps([one.text, one.text_pair, names, one.rationale]).encode() + b"\n")
    return content.hexdigest()
