"""An evaluation as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from vat_explain.evaluation import Evaluation


def print_table(evaluation: Evaluation, columns: Mapping[str, str], names: Mapping[str, str] | None = None) -> None:
    """Print one line for each method.

    Parameters
    ----------
    evaluation : Evaluation
    columns : mapping of str to str
        Headings of metrics; those that no method has are left out.
    names : mapping of str to str, optional
        What to call methods.
    """
    table = Table()
    table.add_column("method", no_wrap=True)
    present = [metric for metric in columns if any(metric in scores for scores in evaluation.methods.values())]
    for metric in present:
        table.add_column(columns[metric], justify="right")
    for method, scores in evaluation.methods.items():
        table.add_row((names or {}).get(method, method), *(_cell(scores.get(metric)) for metric in present))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:.3f}" if isinstance(value, dict) else f"{value:.3g}"
