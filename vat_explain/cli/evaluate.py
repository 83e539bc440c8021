"""`vat-explain evaluate`: VAT beside the attributors that users know, on their texts."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Literal

import typer

from vat_explain.cli import options
from vat_explain.cli.output import check_writable, print_json
from vat_explain.cli.table import print_table

OPERATORS: tuple[Literal["mask"], Literal["delete"]] = ("mask", "delete")
COLUMNS = {
    "comprehensiveness_mask": "compr. (mask) ↑",
    "sufficiency_mask": "suff. (mask) ↓",
    "comprehensiveness_delete": "compr. (delete) ↑",
    "sufficiency_delete": "suff. (delete) ↓",
    "auprc": "AUPRC ↑",
    "forwards_per_text": "passes/text ↓",
    "seconds_per_text": "s/text ↓",
}


def evaluate(
    bundle: options.BundlePath,
    data: Annotated[str, typer.Option(metavar="FILE", help=f"Texts that nothing was fitted to: {options.SOURCE}")],
    output: Annotated[
        Path, typer.Option(help="Folder for the results, and for interim ones that a second call goes on from.")
    ],
    text_column: options.TextColumn = "text",
    pair_column: options.PairColumn = None,
    rationale_column: Annotated[
        str | None, typer.Option(help="Column with the spans that people marked, in characters.")
    ] = None,
    methods: Annotated[str, typer.Option(metavar="all|A,B,...", help="Methods to compare.")] = "all",
    operators: Annotated[
        str, typer.Option(metavar="A,B", help="Ways to take tokens away: mask, delete.")
    ] = "mask,delete",
    limit: Annotated[int | None, typer.Option(min=1, help="Use so many texts, drawn by the seed.")] = None,
    search_budget: Annotated[
        int, typer.Option(min=0, help="Passes a text to look for the best order, most of the time; 0: do not look.")
    ] = 500,
    seed: options.Seed = 0,
    json: options.OutputJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure how faithful and how costly explanations are, VAT's beside those of other methods."""
    check_writable(output, folder=True)
    chosen = tuple(operator for operator in OPERATORS if operator in _listed(operators))
    if not chosen or set(_listed(operators)) - set(OPERATORS):
        raise typer.BadParameter(f"--operators is {operators!r}; name {' or '.join(OPERATORS)}, or both with a comma")
    with redirect_stdout(sys.stderr):  # what libraries print is not the result
        from vat_explain.cli.texts import check_texts
        from vat_explain.data import load_examples

        examples = load_examples(
            data,
            text_column=text_column,
            pair_column=pair_column,
            label_column=None,
            rationale_column=rationale_column,
        ).examples
        from vat_explain.evaluation import Settings
        from vat_explain.evaluation import evaluate as run
        from vat_explain.explainer import VATExplainer

        explainer = VATExplainer.from_pretrained(bundle)
        check_texts(explainer.encoder, data, examples, quiet=quiet)
        evaluation = run(
            explainer,
            examples,
            methods=None if methods == "all" else _listed(methods),
            limit=limit,
            settings=Settings(operators=chosen, seed=seed, search_budget=search_budget),
            output=output,
            quiet=quiet,
        )
    if json:
        print_json(evaluation.to_dict())
        return
    print_table(evaluation, COLUMNS)
    typer.echo(f"wrote {output / 'report.html'}, and the same figures as results.json and results.csv")


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
