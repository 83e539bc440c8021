"""`vat-explain explain`: explanations of a text, or of all texts of a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vat_explain.cli import options
from vat_explain.cli.output import check_writable

if TYPE_CHECKING:
    from vat_explain.data import Example
    from vat_explain.explainer import VATExplainer
    from vat_explain.explanation import Explanation

CHUNK = 256
"""Texts that are explained before the first of them is printed."""


def explain(
    bundle: options.BundlePath,
    text: Annotated[str | None, typer.Option(help="The text to explain.")] = None,
    text_pair: Annotated[str | None, typer.Option(help="The second text of a pair.")] = None,
    input: Annotated[
        str | None, typer.Option(metavar="FILE", help=f"Texts to explain, instead of --text: {options.SOURCE}")
    ] = None,
    text_column: options.TextColumn = "text",
    pair_column: options.PairColumn = None,
    target: Annotated[
        str | None, typer.Option(help="Class to explain, by signed scores; otherwise shares for the likeliest one.")
    ] = None,
    words: Annotated[bool, typer.Option("--words/--tokens", help="What is coloured.")] = True,
    json: options.OutputJson = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page that opens without a server.")] = None,
    limit: options.Limit = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Predict and explain: in colours on the terminal, as JSON, or as a page."""
    if (text is None) == (input is None):
        raise typer.BadParameter("give either --text or --input")
    if text is None and text_pair is not None:
        raise typer.BadParameter("--text-pair belongs to --text; a file has its second texts in --pair-column")
    if json and html is not None:
        raise typer.BadParameter("give either --json or --html")
    if html is not None:
        check_writable(html)
    with redirect_stdout(sys.stderr):  # what libraries print is not the result
        examples = _examples(text, text_pair, input, text_column, pair_column, limit)
        from vat_explain.assemble import resolve_target
        from vat_explain.cli.texts import check_texts
        from vat_explain.explainer import VATExplainer

        explainer = VATExplainer.from_pretrained(bundle)
        resolve_target(target, explainer.labels)
        if input is not None:
            check_texts(explainer.encoder, input, examples, quiet=quiet)
        else:
            explainer.encoder.encode(examples[0].text, examples[0].text_pair)
    on_screen = not json and html is None and sys.stdout.isatty()
    explanations = _explanations(explainer, examples, target, quiet=quiet or on_screen or input is None)
    if json:
        _print_json(explanations)
    elif html is not None:
        from vat_explain.render import write_html

        write_html(html, list(explanations), unit="words" if words else "tokens")
        typer.echo(f"wrote {html}")
    else:
        from vat_explain.render import render_terminal

        for number, explanation in enumerate(explanations):
            if number:
                typer.echo()
            render_terminal(explanation, unit="words" if words else "tokens")


def _examples(
    text: str | None, pair: str | None, source: str | None, text_column: str, pair_column: str | None, limit: int | None
) -> Sequence[Example]:
    from vat_explain.data import Example, load_examples

    if source is None:
        assert text is not None
        return [Example(text, pair, None, 0)]
    return load_examples(
        source, text_column=text_column, pair_column=pair_column, label_column=None, limit=limit
    ).examples


def _explanations(
    explainer: VATExplainer, examples: Sequence[Example], target: str | None, *, quiet: bool
) -> Iterator[Explanation]:
    """Explain chunk by chunk, so that memory stays flat."""
    from vat_explain.progress import progress_bar

    with progress_bar("explaining", len(examples), quiet=quiet) as bar:
        for start in range(0, len(examples), CHUNK):
            part = examples[start : start + CHUNK]
            texts = [one.text if one.text_pair is None else (one.text, one.text_pair) for one in part]
            ids = [str(one.row) for one in part] if examples[0].row else None
            explanations = explainer.explain(texts, target, ids=ids)
            bar.advance(len(part))
            yield from explanations


def _print_json(explanations: Iterable[Explanation]) -> None:
    typer.echo(b'{"explanations": [', nl=False)
    for number, explanation in enumerate(explanations):
        typer.echo((",\n" if number else "\n").encode() + explanation.to_json().encode(), nl=False)
    typer.echo(b"\n]}")
