"""An evaluation as one static HTML page: tables with intervals, plots, and the texts that methods disagree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vat_explain.assemble import Origin, WindowScores, assemble
from vat_explain.data import Example
from vat_explain.evaluation.plots import CHEAPEST, cost_plot, curve_plot, spread_plot
from vat_explain.evaluation.results import COSTS, Disagreement, Evaluation
from vat_explain.explanation import Task
from vat_explain.files import write_atomically
from vat_explain.render import article_html, page_css
from vat_explain.text import TextEncoder

_HIGHER = "↑"
_LOWER = "↓"
_DIRECTION = {
    "comprehensiveness": _HIGHER,
    "sufficiency": _LOWER,
    "normalised_comprehensiveness": _HIGHER,
    "normalised_sufficiency": _HIGHER,
    "log_odds": _LOWER,
    "post_hoc_accuracy": _HIGHER,
    "deletion_auc": _LOWER,
    "insertion_auc": _HIGHER,
    "tau_loo": "",  # leave-one-out is no truth
    "soft_ns": _HIGHER,
    "soft_nc": _HIGHER,
    "infidelity": _LOWER,
    "sensitivity_max": _LOWER,
    "token_f1": _HIGHER,
    "iou_f1": _HIGHER,
    "auprc": _HIGHER,
    "shortcut_precision": _HIGHER,
    "shortcut_rank": _LOWER,
    "encoding_gap": "",  # suspicious above 0
    "class_leak": "",
    "forwards_per_text": _LOWER,
    "seconds_per_text": _LOWER,
}


@dataclass(frozen=True)
class Table:
    """Cells are intervals, plain numbers, or None where a method has no value."""

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[Any]]]


def write_report(
    path: Path,
    evaluation: Evaluation,
    examples: Sequence[Example],
    encoder: TextEncoder,
    title: str = "Explanations, evaluated",
) -> None:
    """Write the page; it loads nothing and runs no script.

    Parameters
    ----------
    path : Path
    evaluation : Evaluation
    examples : sequence of Example
        Those that were evaluated.
    encoder : TextEncoder
        The one that they were read with.
    title : str

    Raises
    ------
    DataError
        If the file cannot be written.
    """
    operators = evaluation.provenance["settings"]["operators"]
    environment = Environment(
        loader=PackageLoader("vat_explain.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        title=title,
        css=Markup(page_css()),
        texts=evaluation.provenance["texts"],
        methods=evaluation.methods,
        tables=_tables(evaluation, operators),
        plots=[
            {
                "name": operator,
                "cost": Markup(cost_plot(evaluation, operator)),
                "curves": Markup(curve_plot(evaluation, operator)),
                "spread": Markup(spread_plot(evaluation, operator)),
            }
            for operator in operators
        ],
        cheapest=CHEAPEST,
        disagreements=[
            _beside(i * len(evaluation.methods), disagreement, evaluation, examples, encoder)
            for i, disagreement in enumerate(evaluation.disagreements)
        ],
        provenance=evaluation.provenance,
    )
    write_atomically(path, page)


def _tables(evaluation: Evaluation, operators: Sequence[str]) -> list[Table]:
    """Put metrics of each operator, and those of none, into tables of their own, so that they are never mixed."""
    names = list(dict.fromkeys(name for scores in evaluation.methods.values() for name in scores))
    tables = []
    for operator in operators:
        columns = [f"{name}_{operator}" for name in _DIRECTION if f"{name}_{operator}" in names]
        rows = {method: dict(scores) for method, scores in evaluation.methods.items()}
        tables.append(_table(f"Faithfulness, tokens taken away by “{operator}”", columns, rows, f"_{operator}"))
    others = [name for name in names if not any(name.endswith(f"_{operator}") for operator in operators)]
    others.sort(key=lambda name: name not in COSTS)
    tables.append(_table("Cost and other metrics", others, evaluation.methods))
    for first, theirs in evaluation.paired.items():
        for operator in operators:
            columns = [f"{name}_{operator}" for name in _DIRECTION if f"{name}_{operator}" in names]
            title = f"{first} minus the other method on the same texts, “{operator}”"
            tables.append(_table(title, columns, theirs, f"_{operator}"))
    return tables


def _table(title: str, columns: Sequence[str], rows: Any, suffix: str = "") -> Table:
    headings = [(name.removesuffix(suffix), _DIRECTION.get(name.removesuffix(suffix), "")) for name in columns]
    shown = [(" ".join(name.split("_")), arrow) for name, arrow in headings]
    return Table(title, shown, [(method, [scores.get(name) for name in columns]) for method, scores in rows.items()])


def _beside(
    before: int,
    disagreement: Disagreement,
    evaluation: Evaluation,
    examples: Sequence[Example],
    encoder: TextEncoder,
) -> dict[str, Any]:
    """Render one text once for each method, after so many articles before it."""
    example = examples[disagreement.text]
    encoded = encoder.encode(example.text, example.text_pair)
    task: Task = "multi_label" if evaluation.provenance["task"] == "multi_label" else "single_label"
    probabilities = np.array(disagreement.prediction)
    articles = []
    for number, (method, scores) in enumerate(disagreement.scores.items(), start=before + 1):
        origin = Origin(tuple(evaluation.provenance["labels"]), task, method, "score", None, {})
        values = np.array(scores)
        windows = [
            WindowScores(probabilities, np.where(window.position >= 0, values[window.position], 0.0))
            for window in encoded.windows
        ]
        explanation = assemble(encoded, windows, origin, id=f"row {example.row}")
        articles.append(Markup(article_html(number, explanation, rationale=example.rationale)))
    return {"text": disagreement.text, "agreement": disagreement.agreement, "articles": articles}
