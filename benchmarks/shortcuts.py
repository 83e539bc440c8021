"""Do explanations find words that were planted to decide the label? Every method, on two bases and three kinds.

A classifier is fitted to data with planted shortcuts (Bastings et al., EMNLP 2022) together with its compressor, and
each method explains test texts in which a shortcut decides: the share of planted words among the k words ranked first,
k being their number. The bases are the built-in corpus, with a small classifier from scratch, and SST-2 with MiniLM.

    python benchmarks/shortcuts.py [--bases corpus sst2] [--kinds single context pair] [--texts 100] [--seed 0]

Finished bundles and evaluations are kept under --work, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from finetuning import class_ids, minilm

from vat_explain.corpus import Planted, ShortcutKind, plant, splits
from vat_explain.corpus.model import small_classifier
from vat_explain.corpus.tokenizer import build_tokenizer
from vat_explain.data import Dataset, Example, LabelSet, load_examples
from vat_explain.evaluation import Settings, evaluate
from vat_explain.explainer import VATExplainer
from vat_explain.files import write_atomically
from vat_explain.fitting import FitConfig, fit
from vat_explain.vat.trainer import LoopConfig

METRICS = ("shortcut_precision", "shortcut_rank")
Parts = dict[str, list[Planted[Any]]]


def corpus(kind: ShortcutKind, seed: int) -> Parts:
    """The built-in corpus, which plants by itself."""
    parts = splits(seed, shortcut=kind)
    return {
        name: [Planted(one.text, one.label, one.planted, one.rationale) for one in examples]
        for name, examples in parts.items()
    }


def sst2(kind: ShortcutKind, seed: int, folder: Path, limit: int) -> Parts:
    """SST-2 with words planted in half of the texts."""
    parts = {}
    for number, (name, size) in enumerate({"train": limit, "dev": 400, "test": 600}.items()):
        data = load_examples(folder / f"{name}.jsonl", limit=size)
        assert data.labels is not None
        labels = [data.labels.names[number] for number in class_ids(data)]
        texts = [example.text for example in data.examples]
        parts[name] = plant(texts, labels, kind, seed + number, classes=data.labels.names)
    return parts


def dataset(examples: Sequence[Planted[Any]], labels: LabelSet, name: str) -> Dataset:
    """Planted texts as the examples that `fit` takes."""
    rows = tuple(
        Example(one.text, None, (labels.names.index(one.label),), row) for row, one in enumerate(examples, start=1)
    )
    return Dataset(rows, labels, name, name)


def fitted(base: str, kind: ShortcutKind, parts: Parts, folder: Path, config: FitConfig) -> VATExplainer:
    """Fit a learner and a compressor to the planted texts, or load what an earlier run fitted."""
    if not (folder / "card.json").exists():
        labels = LabelSet(tuple(sorted({one.label for one in parts["train"]})))
        train, dev = (dataset(parts[name], labels, f"{base}-{kind}-{name}") for name in ("train", "dev"))
        if base == "sst2":
            fit(minilm(), train, dev, config=config, output=folder, resume=True)
        else:
            tokenizer = build_tokenizer(one.text for one in parts["train"])
            torch.manual_seed(config.loop.seed)
            model = small_classifier(tokenizer, labels.names)
            config = replace(config, learner_epochs=5, encoder_rate=1e-3)  # it starts from nothing
            fit(model, train, dev, tokenizer=tokenizer, config=config, output=folder, resume=True)
    return VATExplainer.from_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bases", nargs="+", choices=("corpus", "sst2"), default=("corpus", "sst2"))
    parser.add_argument(
        "--kinds", nargs="+", choices=("single", "context", "pair"), default=("single", "context", "pair")
    )
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--train-texts", type=int, default=3000, help="of SST-2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mixed-precision", default="no")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/sst2"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/shortcuts"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/shortcuts.json"))
    options = parser.parse_args()
    loop = LoopConfig(seed=options.seed, mixed_precision=options.mixed_precision)
    config = FitConfig(loop=loop)
    options.work.mkdir(parents=True, exist_ok=True)
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for base in options.bases:
        for kind in options.kinds:
            name = f"{base}-{kind}"
            if base == "sst2":
                parts = sst2(kind, options.seed, options.data, options.train_texts)
            else:
                parts = corpus(kind, options.seed)
            explainer = fitted(base, kind, parts, options.work / name, config)
            decided = [one for one in parts["test"] if one.planted]
            explanations = explainer.explain([one.text for one in decided])
            followed = [a.label == one.label for a, one in zip(explanations, decided, strict=True)]
            # Where the model does not follow the shortcut there is nothing to find.
            shown = [one for one, right in zip(decided, followed, strict=True) if right][: options.texts]
            evaluation = evaluate(
                explainer,
                dataset(shown, LabelSet(tuple(explainer.labels)), name).examples,
                planted=[one.planted for one in shown],
                settings=Settings(operators=("mask",), seed=options.seed, search_budget=0, soft_samples=0),
                output=options.work / f"{name}-evaluation",
            )
            methods = {
                method: {metric: scores[metric] for metric in METRICS} | {"passes": scores["forwards_per_text"]}
                for method, scores in evaluation.methods.items()
            }
            minus_ig = {metric: evaluation.paired["vat"]["ig"][metric] for metric in METRICS}
            share = sum(followed) / len(followed)
            results[name] = {"texts": len(shown), "followed": share, "methods": methods, "vat_minus_ig": minus_ig}
            results[name]["seed"] = options.seed
            write_atomically(options.output, json.dumps(results, indent=1) + "\n")
            print(
                f"{name}: the shortcut decides {share:.1%} of {len(decided)} test texts; precision@k of {len(shown)}:"
            )
            for method, scores in sorted(methods.items(), key=lambda item: -item[1][METRICS[0]]["mean"]):
                print(f"  {method:20} {scores[METRICS[0]]['mean']:.3f}  rank {scores[METRICS[1]]['mean']:.2f}")


if __name__ == "__main__":
    main()
