"""Fine-tune the MiniLM encoder on SST-2, fit a compressor to it as it is, and judge the explanations on test texts.

The classifier comes from a plain loop without vat-explain and is frozen. Its explanations stand beside integrated
gradients, leave-one-out and random scores on the same texts. Finished stages are kept under --work. Learners that are
fitted with their compressor are those of faithfulness.py --alternated.

    python benchmarks/fit_sst2.py [--seed 0] [--texts 200] [--mixed-precision bf16]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from finetuning import accuracy, fine_tune, fitted, logits_of, minilm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from vat_explain.data import LabelSet, load_examples
from vat_explain.evaluation import Settings, evaluate
from vat_explain.evaluation.perturb import OPERATORS
from vat_explain.files import write_atomically
from vat_explain.fitting import FitConfig
from vat_explain.vat.trainer import LoopConfig

LABELS = LabelSet(("negative", "positive"))
METHODS = ("vat", "ig", "leave-one-out", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/sst2"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/sst2"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--limit", type=int, help="train on so many texts only")
    parser.add_argument("--mixed-precision", default="no")
    options = parser.parse_args()
    train, dev, test = (
        load_examples(options.data / f"{part}.jsonl", labels=LABELS, limit=options.limit if part == "train" else None)
        for part in ("train", "dev", "test")
    )
    options.work.mkdir(parents=True, exist_ok=True)
    loop = LoopConfig(seed=options.seed, mixed_precision=options.mixed_precision)
    plain = options.work / "plain"
    seconds_of_plain = fine_tune(minilm(), train, plain, options.seed, bf16=options.mixed_precision == "bf16")
    tokenizer = AutoTokenizer.from_pretrained(plain)
    before = logits_of(AutoModelForSequenceClassification.from_pretrained(plain), tokenizer, test)
    config = FitConfig(freeze_learner=True, loop=loop)
    explainer, seconds = fitted(str(plain), train, dev, config, options.work / "frozen")
    after = logits_of(explainer.learner.model, tokenizer, test)
    evaluation = evaluate(
        explainer,
        test.examples,
        methods=METHODS,
        limit=options.texts,
        settings=Settings(seed=options.seed, search_budget=0, soft_samples=0),
        output=options.work / "frozen-evaluation",
    )
    results = {
        "mode": "frozen",
        "seed": options.seed,
        "train_texts": len(train.examples),
        "mixed_precision": options.mixed_precision,
        "seconds_of_fit": seconds and round(seconds),
        "seconds_of_plain_fine_tuning": round(seconds_of_plain),
        "accuracy_plain": accuracy(before, test),
        "accuracy": accuracy(after, test),
        "logits_bit_identical_to_plain": bool(torch.equal(before, after)),
        **evaluation.to_dict(),
    }
    write_atomically(options.output / "fit_sst2_frozen.json", json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: value for key, value in results.items() if not isinstance(value, dict)}, indent=1))
    for method, metrics in results["methods"].items():
        wanted = [f"{name}_{operator}" for operator in OPERATORS for name in ("comprehensiveness", "sufficiency")]
        print(method, {key: [round(v, 3) for v in metrics[key].values()] for key in wanted})


if __name__ == "__main__":
    main()
