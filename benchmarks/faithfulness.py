"""Faithfulness of every method on eight data sets, beside what it costs; one table, one plot.

The MiniLM encoder is fine-tuned on each data set by a plain loop and frozen, a compressor is fitted to it, and all
methods explain the same test texts. Chinese reviews get a small encoder of their own, trained from scratch, since
MiniLM's vocabulary does not hold their characters. Long reviews start from the classifier of SST-2, since some hundred
of them teach MiniLM nothing.

    python benchmarks/faithfulness.py [--sets sst2 trec ...] [--alternated]
        [--texts N] [--train-texts N] [--classifier-texts N] [--methods vat ig ...] [--compressors N]

What is left out is what the published tables were made with, for each set as much as two cores can do (TASKS). With
several compressors, each of its own seed, every text's scores of VAT are the mean over them where it is compared with
other methods; the classifier and what explains it without a compressor stay the same. The plot and the CSV file show
the first one. --alternated fits each compressor together with a learner of its own instead, which all methods then
explain; its results have a file of their own.

Each stage of each data set is kept under --work: an interrupted run goes on where it was, and each finished data set
is added to --output. Other options for the training need another --work.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finetuning import accuracy, fine_tune, fitted, logits_of, minilm
from matplotlib import pyplot
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from vat_explain.corpus.tokenizer import build_tokenizer
from vat_explain.data import Dataset, load_examples
from vat_explain.evaluation import Evaluation, Settings, evaluate
from vat_explain.evaluation.bootstrap import intervals
from vat_explain.files import write_atomically
from vat_explain.fitting import FitConfig
from vat_explain.vat.trainer import LoopConfig, fastest_precision

RIVALS = ("ig", "leave-one-out", "lime", "kernel-shap", "grad-x-input", "grad-l2", "attention")
METHODS = ("vat", "vat-class", *RIVALS, "random")
FOR_LONG_TEXTS = tuple(method for method in METHODS if method not in ("leave-one-out", "lime", "kernel-shap"))
SHOWN = [f"{name}_{operator}" for operator in ("mask", "delete") for name in ("comprehensiveness", "sufficiency")]
EXTRA = ("normalised_comprehensiveness_mask", "normalised_sufficiency_mask", "auprc")  # where there are any


@dataclass(frozen=True)
class Task:
    """A data set: where its parts are, and how much of it to use unless options say otherwise."""

    texts: int  # of the test part
    train_texts: int | None = None  # of the compressor, and of the classifier if not named
    classifier_texts: int | None = None
    compressors: int = 3
    train: str = "train"
    dev: str = "dev"
    text: str = "text"
    pair: str | None = None
    rationale: str | None = None
    max_length: int = 128
    methods: tuple[str, ...] = METHODS
    scratch: bool = False
    start: str | None = None  # a set with the same classes, whose classifier is fine-tuned further


TASKS = {
    "sst2": Task(50),
    "trec": Task(60),
    "ag_news": Task(30, 1500),
    "hatexplain": Task(40, 2000, rationale="rationale"),
    "imdb_cad": Task(20, 300, 600, rationale="rationale", max_length=256, start="sst2"),
    "eraser_movies": Task(12, 100, 400, 1, rationale="rationale", max_length=256, methods=FOR_LONG_TEXTS, start="sst2"),
    "chnsenticorp": Task(40, 2000, compressors=1, methods=(*FOR_LONG_TEXTS, "leave-one-out"), scratch=True),
    "esnli": Task(40, 1500, 5000, 1, train="dev", dev="test", text="premise", pair="hypothesis"),
}


def drawn(data: Dataset, count: int | None) -> Dataset:
    """So many examples drawn at random, or all where there are no more."""
    if count is None or count >= len(data.examples):
        return data
    return replace(data, examples=tuple(random.Random(0).sample(data.examples, count)))


def load(folder: Path, task: Task, train_texts: int | None) -> tuple[Dataset, Dataset, Dataset]:
    """Training, development and test part; of a set with two parts, the second is halved."""
    columns: dict[str, Any] = {"text_column": task.text, "pair_column": task.pair}
    train = drawn(load_examples(folder / f"{task.train}.jsonl", **columns), train_texts)
    columns |= {"labels": train.labels}
    dev = load_examples(folder / f"{task.dev}.jsonl", **columns)
    test = load_examples(folder / "test.jsonl", rationale_column=task.rationale, **columns)
    if task.dev == "test":
        dev, test = replace(dev, examples=dev.examples[::2]), replace(test, examples=test.examples[1::2])
    return train, drawn(dev, 1000), test


def encoder_from_scratch(train: Dataset, folder: Path) -> str:
    """A small BERT with random weights and a vocabulary of the training texts."""
    if not (folder / "config.json").exists():
        tokenizer = build_tokenizer(example.text for example in train.examples)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            num_hidden_layers=3,
            num_attention_heads=6,
            intermediate_size=768,
            pad_token_id=tokenizer.pad_token_id,
        )
        tokenizer.save_pretrained(folder)
        BertForSequenceClassification(config).base_model.save_pretrained(folder)
    return str(folder)


def starting_point(name: str, train: Dataset, options: argparse.Namespace) -> str:
    """Return the encoder of a set, or the classifier that its own starts from, fine-tuned first."""
    task = TASKS[name]
    if task.scratch:
        return encoder_from_scratch(train, options.work / name / "encoder")
    if task.start is None:
        return minilm()
    before, _, _ = load(options.data / task.start, TASKS[task.start], None)
    fine_tuned(task.start, starting_point(task.start, before, options), before, options)
    return str(options.work / task.start / "plain")


def fine_tuned(name: str, encoder: str, train: Dataset, options: argparse.Namespace) -> float:
    """Fine-tune the classifier of a set; return the seconds that it took."""
    task, work = TASKS[name], options.work / name
    rate, epochs = (5e-4, 6) if task.scratch else (4e-5, 3)
    bf16 = options.mixed_precision == "bf16"
    return fine_tune(
        encoder, train, work / "plain", options.seed, bf16=bf16, rate=rate, epochs=epochs, max_length=task.max_length
    )


def with_defaults(options: argparse.Namespace, task: Task) -> argparse.Namespace:
    """Put what the task says in place of options that were left out."""
    kept = {name: value for name, value in vars(options).items() if value is not None}
    return argparse.Namespace(**asdict(task) | {"search_budget": 0 if options.alternated else 500} | kept)


def claim(work: Path, options: argparse.Namespace) -> None:
    """Make a folder, and note the options that decide what is trained in it; refuse one of other options."""
    work.mkdir(parents=True, exist_ok=True)
    chosen = {name: getattr(options, name) for name in ("seed", "train_texts", "classifier_texts", "mixed_precision")}
    path = work / "options.json"
    if path.exists() and json.loads(path.read_text()) != chosen:
        raise SystemExit(f"{work} holds what was trained with {path.read_text()}; delete it, or name another --work")
    write_atomically(path, json.dumps(chosen))


def run(name: str, task: Task, options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune, fit and evaluate one data set, or load what an earlier run finished."""
    options = with_defaults(options, task)
    work = options.work / name
    claim(work, options)
    train, dev, test = load(options.data / name, task, options.classifier_texts or options.train_texts)
    texts = train if options.alternated else drawn(train, options.train_texts)
    encoder = starting_point(name, train, options)
    seconds: dict[str, float | None] = {"fine_tuning": fine_tuned(name, encoder, train, options)}
    source = encoder if options.alternated else str(work / "plain")
    part = drawn(test, 1000)

    def accuracy_of(model: Any, tokenizer: Any) -> float:
        return accuracy(logits_of(model, tokenizer, part, task.max_length), part)

    evaluations, accuracies = [], []
    for seed in range(options.compressors):
        suffix = ("-alternated" if options.alternated else "") + (f"-{seed}" if seed else "")
        only = ("vat", "vat-class") if seed and not options.alternated else options.methods
        config = FitConfig(
            freeze_learner=not options.alternated,
            max_length=task.max_length,
            loop=LoopConfig(seed=options.seed + seed, mixed_precision=options.mixed_precision),
        )
        explainer, seconds[f"fit{suffix}"] = fitted(source, texts, dev, config, work / f"bundle{suffix}")
        if options.alternated:
            accuracies.append(accuracy_of(explainer.learner.model, explainer.tokenizer))
        settings = Settings(seed=options.seed, search_budget=0 if seed else options.search_budget, soft_samples=0)
        folder = work / f"evaluation{suffix}"
        evaluations.append(
            evaluate(explainer, test.examples, methods=only, limit=options.texts, settings=settings, output=folder)
        )
    model = AutoModelForSequenceClassification.from_pretrained(work / "plain")
    return {
        "accuracy": accuracy_of(model, AutoTokenizer.from_pretrained(work / "plain")),
        "accuracy_of_alternated": accuracies,
        "train_texts": len(texts.examples),
        "classifier_texts": len(train.examples),
        "seconds": {stage: value and round(value, 1) for stage, value in seconds.items()},
        "compressors": [
            {m: each.methods[m] for m in ("vat", "vat-class") if m in each.methods} for each in evaluations
        ],
        "versus_best": versus_best(evaluations),
        **evaluations[0].to_dict(),
    }


def versus_best(evaluations: list[Evaluation]) -> dict[str, Any]:
    """The best of the rivals in each metric, and VAT's mean over the compressors with its paired difference to it.

    Rivals are means over the learners that they explain; where all compressors share one, that is a single evaluation.
    """
    found: dict[str, Any] = {}
    first = evaluations[0]
    rivals = [method for method in RIVALS if method in first.methods]
    for metric in SHOWN if rivals and "vat" in first.methods else ():
        sign = 1 if metric.startswith("comprehensiveness") else -1
        each = np.stack([evaluation.values["vat"][metric] for evaluation in evaluations])
        rows = {m: np.mean([e.values[m][metric] for e in evaluations if m in e.values], axis=0) for m in rivals}
        best = max(rivals, key=lambda method: sign * rows[method].mean())
        mine, theirs = each.mean(0), rows[best]
        vat, difference = intervals(np.stack([mine, mine - theirs], axis=1))
        found[metric] = {"best": best, "vat": vat, "vat_of_each_compressor": each.mean(1).tolist()}
        found[metric] |= {"vat_minus_best": difference, "rivals": {m: float(rows[m].mean()) for m in rivals}}
    return found


def paid_after(result: dict[str, Any]) -> int | None:
    """How many texts integrated gradients explain in the time that fitting and then explaining them takes."""
    methods = result["methods"]
    seconds = next(value for stage, value in result["seconds"].items() if stage.startswith("fit"))
    if seconds is None or not {"vat", "ig"} <= methods.keys():
        return None
    return math.ceil(seconds / (methods["ig"]["seconds_per_text"] - methods["vat"]["seconds_per_text"]))


def table(results: dict[str, Any]) -> str:
    """CSV: data set, method, passes and the metrics with their intervals."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [(metric, part) for metric in (*SHOWN, *EXTRA) for part in ("mean", "low", "high")]
    writer.writerow(["data", "method", "passes", *map(" ".join, columns)])
    for name, result in results.items():
        for method, scores in result["methods"].items():
            cells = [f"{scores[metric][part]:.4f}" if metric in scores else "" for metric, part in columns]
            writer.writerow([name, method, f"{scores['forwards_per_text']:.2f}", *cells])
    return stream.getvalue()


def plot(results: dict[str, Any], path: Path) -> None:
    """Comprehensiveness minus sufficiency against passes, one panel a data set."""
    rows = -(-len(results) // 4)
    figure, panels = pyplot.subplots(
        rows, 4, figsize=(16, 3.5 * rows), sharex=True, squeeze=False, layout="constrained"
    )
    for panel in panels.flat[len(results) :]:
        panel.set_visible(False)
    for panel, (name, result) in zip(panels.flat, results.items(), strict=False):
        for method, scores in result["methods"].items():
            if method == "vat-class":  # the same order of tokens
                continue
            x = max(scores["forwards_per_text"], 0.5)
            y = scores["comprehensiveness_mask"]["mean"] - scores["sufficiency_mask"]["mean"]
            panel.scatter(x, y, color="crimson" if method == "vat" else "steelblue")
            panel.annotate(method, (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points")
        panel.set(xscale="log", title=name, xlim=(0.3, 4000))
    figure.supxlabel("forward passes per text")
    figure.supylabel("comprehensiveness - sufficiency, [MASK]")
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=tuple(TASKS), default=tuple(TASKS))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--texts", type=int)
    parser.add_argument("--train-texts", type=int, help="of the compressor, and of the classifier if not named")
    parser.add_argument("--classifier-texts", type=int)
    parser.add_argument("--search-budget", type=int, help="500 if left out, with --alternated 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compressors", type=int, help="fit so many, with seeds from --seed on")
    parser.add_argument("--alternated", action="store_true", help="fit learner and compressor together")
    parser.add_argument("--mixed-precision", default=fastest_precision())
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/faithfulness"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"faithfulness{'_alternated' if options.alternated else ''}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in options.sets:
        results[name] = run(name, TASKS[name], options)
        results[name]["paid_after_texts"] = paid_after(results[name])
        results = {known: results[known] for known in TASKS if known in results}
        write_atomically(path, json.dumps(results, indent=1) + "\n")
        write_atomically(path.with_suffix(".csv"), table(results))
        plot(results, path.with_suffix(".svg"))
        print(f"{name}: accuracy {results[name]['accuracy']:.3f}, seconds {results[name]['seconds']}")
        for method, scores in results[name]["methods"].items():
            figures = "  ".join(f"{scores[metric]['mean']:+.3f}" for metric in (*SHOWN, *EXTRA) if metric in scores)
            print(f"  {method:20} {scores['forwards_per_text']:7.1f} passes  {figures}")
        for metric, entry in results[name]["versus_best"].items():
            low, mean, high = (entry["vat_minus_best"][part] for part in ("low", "mean", "high"))
            each = ", ".join(f"{value:.3f}" for value in entry["vat_of_each_compressor"])
            print(f"  VAT minus {entry['best']}, {metric}: {mean:+.3f} [{low:+.3f}, {high:+.3f}], compressors {each}")


if __name__ == "__main__":
    main()
