"""`vat-explain demo`: the whole way from texts to explanations, on the embedded corpus."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vat_explain.cli import options
from vat_explain.cli.output import check_writable, print_json
from vat_explain.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vat_explain.data import Dataset, Example
    from vat_explain.explainer import VATExplainer
    from vat_explain.explanation import Explanation

METHODS = {"vat": "VAT", "ig": "IG, 50 steps", "random": "random"}
COLUMNS = {
    "auprc": "token AUPRC ↑",
    "comprehensiveness_mask": "compr. ↑",
    "sufficiency_mask": "suff. ↓",
    "forwards_per_text": "passes/text",
    "seconds_per_text": "s/text",
}
EVALUATED = 200
ON_PAGE = 60
ON_SCREEN = 4


def demo(
    output: Annotated[Path, typer.Option(help="Folder for texts, bundle, page and figures.")] = Path(
        "vat-explain-demo"
    ),
    seed: options.Seed = 0,
    json: options.OutputJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Fit a small classifier and its explainer to the embedded corpus, judge both and show explanations.

    Takes two to three minutes on two cores, and needs no network.
    """
    started = time.monotonic()
    check_writable(output, folder=True)
    with redirect_stdout(sys.stderr):  # what libraries print is not the result
        from vat_explain.bundle import check_target
        from vat_explain.evaluation import Settings, evaluate
        from vat_explain.files import write_atomically
        from vat_explain.render import write_html

        check_target(output / "bundle")
        data = _corpus(output, seed)
        explainer = _fit(data, seed, quiet=quiet)
        explainer.save_pretrained(output / "bundle")
        test = data["test"].examples
        evaluation = evaluate(
            explainer,
            test,
            methods=list(METHODS),
            limit=EVALUATED,
            settings=Settings(operators=("mask",), seed=seed, search_budget=0, soft_samples=0),
            quiet=quiet,
        )
        explanations = explainer.explain([one.text for one in test])
        labels = [explainer.labels[label] for one in test for label in one.label or ()]
        right = [explanation.label == label for explanation, label in zip(explanations, labels, strict=True)]
        page = output / "explanations.html"
        write_html(
            page,
            explanations[:ON_PAGE],
            title="vat-explain demo: what decided, and what is known to decide",
            rationales=[one.rationale for one in test[:ON_PAGE]],
        )
        result = {"accuracy": sum(right) / len(right), **evaluation.to_dict()}
        result |= {"output": str(output), "seconds": round(time.monotonic() - started, 1)}
        write_atomically(output / "metrics.json", jsonlib.dumps(result, indent=2))
    if json:
        print_json(result)
        return
    typer.echo(f"Accuracy of the classifier on {len(test)} test texts: {result['accuracy']:.1%}")
    typer.echo(
        f"Explanations of {EVALUATED} of them: agreement with the words known to decide (AUPRC), and how far the"
    )
    typer.echo("prediction falls without the first words (comprehensiveness) and with them alone (sufficiency):")
    print_table(evaluation, COLUMNS, METHODS)
    _show(test[:ON_SCREEN], explanations)
    _tell_what_next(output, page, result["seconds"])


def _corpus(output: Path, seed: int) -> dict[str, Dataset]:
    """Write the corpus down as anybody's data would be, and read it."""
    from vat_explain.corpus import splits
    from vat_explain.data import load_examples
    from vat_explain.files import make_folder, write_atomically

    make_folder(output)
    data: dict[str, Dataset] = {}
    for name, examples in splits(seed).items():
        rows = [{"text": one.text, "label": one.label, "rationale": one.rationale} for one in examples]
        path = output / f"{name}.jsonl"
        write_atomically(path, "".join(jsonlib.dumps(row) + "\n" for row in rows))
        labels = data["train"].labels if data else None
        data[name] = load_examples(path, rationale_column="rationale", labels=labels)
    return data


def _fit(data: dict[str, Dataset], seed: int, *, quiet: bool) -> VATExplainer:
    import torch

    from vat_explain.corpus.model import small_classifier
    from vat_explain.corpus.tokenizer import build_tokenizer
    from vat_explain.fitting import FitConfig, fit
    from vat_explain.vat.trainer import LoopConfig

    labels = data["train"].labels
    assert labels is not None
    tokenizer = build_tokenizer(one.text for one in data["train"].examples)
    torch.manual_seed(seed)
    model = small_classifier(tokenizer, labels.names)
    # Larger steps than for a pre-trained encoder, which has more to lose, and few passes, to be done soon.
    config = FitConfig(
        loop=LoopConfig(seed=seed, quiet=quiet),
        rounds=1,
        learner_epochs=5,
        epochs=4,
        learning_rate=1e-3,
        encoder_rate=1e-3,
    )
    return fit(model, data["train"], data["dev"], tokenizer=tokenizer, config=config)


def _show(examples: Sequence[Example], explanations: Sequence[Explanation]) -> None:
    from vat_explain.render import render_terminal

    for example, explanation in zip(examples, explanations, strict=False):
        typer.echo()
        render_terminal(explanation)
        known = " ... ".join(example.text[start:end] for start, end in example.rationale)
        typer.echo(f"known to decide: {known}")


def _tell_what_next(output: Path, page: Path, seconds: float) -> None:
    typer.echo(
        f"\nDone in {seconds:.0f} s. Open {page} in a browser; the bundle is {output / 'bundle'}. Try:\n"
        f"  vat-explain explain {output}/bundle --text 'The soup was not lovely, but I would recommend the dessert.'\n"
        f"  vat-explain explain {output}/bundle --input {output}/test.jsonl --limit 20 --target complaint\n"
        f"  vat-explain evaluate {output}/bundle --data {output}/test.jsonl --rationale-column rationale --limit 50 "
        f"--output {output}/evaluation\n"
        "  vat-explain fit --help"
    )
