"""`vat-explain fit`: from a model and labelled texts to a bundle."""

from __future__ import annotations

import os
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vat_explain.cli import options
from vat_explain.cli.output import check_writable, print_json, warn

if TYPE_CHECKING:
    from vat_explain.data import Dataset
    from vat_explain.fitting import FitConfig


def fit(
    model: Annotated[str, typer.Option(help="Classifier or plain encoder: folder, or name on the Hugging Face hub.")],
    train: Annotated[str, typer.Option(metavar="FILE", help=f"Labelled texts: {options.SOURCE}")],
    output: Annotated[Path, typer.Option(help="Folder for the bundle; an older bundle there is replaced.")],
    dev: Annotated[
        str | None, typer.Option(metavar="FILE", help="Development texts; without them a tenth of the others.")
    ] = None,
    text_column: options.TextColumn = "text",
    pair_column: options.PairColumn = None,
    label_column: Annotated[str, typer.Option(help="Column with the label, or several: a list, or a|b.")] = "label",
    objective: Annotated[
        Literal["faithful", "paper"], typer.Option(help="What the compressor is trained for.")
    ] = "faithful",
    backbone: Annotated[
        Literal["readout", "copy"], typer.Option(help="Read the classifier's states, or run a copy of its encoder.")
    ] = "readout",
    freeze_learner: Annotated[
        bool, typer.Option("--freeze-learner", help="Leave the classifier exactly as it is.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of the compressor.")] = None,
    learner_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the classifier; 3, and more for a new head and few texts.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="How often the two take turns.")] = None,
    limit: options.Limit = None,
    max_length: Annotated[
        int | None, typer.Option(min=4, help="Longest window in tokens; longer texts are read in several.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts in a step on one device.")] = None,
    mixed_precision: Annotated[
        Literal["auto", "no", "bf16", "fp16"],
        typer.Option(help="Precision of the training; auto: bf16 where the device is faster with it."),
    ] = "auto",
    judge: Annotated[
        bool, typer.Option("--judge", help="Also train an independent judge of masked texts, for evaluation.")
    ] = False,
    seed: options.Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    quiet: options.Quiet = False,
    json: options.OutputJson = False,
    debug: options.Debug = False,
) -> None:
    """Fit an explainer for a classifier, or for an encoder that becomes one, and save it as a bundle.

    Run it under `accelerate launch` to use several GPUs.
    """
    if freeze_learner and (learner_epochs or rounds):
        raise typer.BadParameter("a frozen learner is not trained; leave out --learner-epochs and --rounds")
    started = time.monotonic()
    with redirect_stdout(sys.stderr):  # what libraries print is not the result
        from vat_explain.bundle import check_target
        from vat_explain.data import load_examples
        from vat_explain.fitting import fit as run
        from vat_explain.fitting import known_labels

        check_writable(output, folder=True)
        check_target(output)
        columns: dict[str, Any] = {"text_column": text_column, "pair_column": pair_column, "label_column": label_column}
        train_data = load_examples(train, **columns, labels=known_labels(model), limit=limit)
        dev_data = load_examples(dev, **columns, labels=train_data.labels, limit=limit) if dev else None
        shared = _warn_of_duplicates(train_data, dev_data)
        config = _configure(
            {"learner_epochs": learner_epochs, "epochs": epochs, "rounds": rounds, "max_length": max_length},
            {"batch_size": batch_size},
        )
        config = replace(
            config,
            compressor=replace(config.compressor, objective=objective, backbone=backbone),
            loop=replace(config.loop, seed=seed, mixed_precision=_precision(mixed_precision), quiet=quiet),
            freeze_learner=freeze_learner,
            judge=judge,
        )
        explainer = run(model, train_data, dev_data, config=config, output=output, resume=resume)
    if os.environ.get("RANK", "0") != "0":  # one of several processes reports
        return
    card = explainer.card
    if json:
        result: dict[str, Any] = {
            "output": str(output),
            "digest": explainer.digest,
            "task": card.task,
            "labels": list(card.labels),
        }
        result |= {"metrics": card.metrics, "texts": card.data["texts"], "dev_texts": card.data["dev_texts"]}
        result |= {"texts_in_both": shared, "seconds": round(time.monotonic() - started, 1)}
        print_json(result)
        return
    kind = "labels, any number of which may hold:" if card.task == "multi_label" else "classes"
    typer.echo(f"{card.data['texts']} texts, {kind} {', '.join(card.labels)}")
    typer.echo("development: " + ", ".join(f"{name} {value:.3f}" for name, value in card.metrics.items()))
    typer.echo(f"saved to {output}; try: vat-explain explain {output} --text '...'")


def _warn_of_duplicates(train: Dataset, dev: Dataset | None) -> int:
    from vat_explain.data import duplicates_across

    shared = duplicates_across(train.examples, dev.examples) if dev else 0
    if dev is not None and shared:
        warn(
            f"{shared} text{'s are' if shared > 1 else ' is'} both in {train.source} and in {dev.source}, which makes "
            "the development figures too good; remove them from one of the two"
        )
    return shared


def _precision(asked: str) -> str:
    from vat_explain.vat.trainer import fastest_precision

    return fastest_precision() if asked == "auto" else asked


def _configure(own: dict[str, Any], loop: dict[str, Any]) -> FitConfig:
    """Return the default settings with those that were given."""
    from vat_explain.fitting import FitConfig

    def given(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value is not None}

    config = FitConfig(**given(own))
    return replace(config, loop=replace(config.loop, **given(loop)))
