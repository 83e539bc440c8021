"""A whole evaluation, how long it takes, and how much of it in our own code: 200 texts of SST-2, every method.

The bundle is the one that `faithfulness.py --sets sst2` fits to a frozen classifier.

A profiler attributes the time to functions. Own time is that spent in functions of vat_explain, without what they call;
built-in functions and those of numpy count as ours where our functions call them. The profiler slows Python down and
the models hardly, so that the share comes out too high rather than too low.

    python benchmarks/evaluation.py [--bundle FOLDER] [--texts 200] [--methods vat ig ...]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import time
from pathlib import Path
from typing import Any

import torch

from vat_explain.data import LabelSet, load_examples
from vat_explain.evaluation import Settings, evaluate
from vat_explain.explainer import VATExplainer
from vat_explain.files import write_atomically

PACKAGE = "/vat_explain/"
LIBRARIES = ("/numpy/", "~", "<frozen")


def own_seconds(profile: cProfile.Profile) -> tuple[float, float, dict[str, float]]:
    """Seconds in all and in our own code, and the functions of ours that took most."""
    own: dict[str, float] = {}
    table: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # there, but not in typeshed
    total = sum(entry[2] for entry in table.values())
    for (file, _, function), (_, _, seconds, _, callers) in table.items():
        if PACKAGE in file:
            own[f"{Path(file).stem}.{function}"] = own.get(f"{Path(file).stem}.{function}", 0.0) + seconds
        elif any(mark in file for mark in LIBRARIES) and "torch" not in function:
            for (caller, _, name), (_, _, share, _) in callers.items():
                if PACKAGE in caller:
                    own[f"{Path(caller).stem}.{name}"] = own.get(f"{Path(caller).stem}.{name}", 0.0) + share
    most = dict(sorted(own.items(), key=lambda item: -item[1])[:8])
    return total, sum(own.values()), most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("benchmarks/work/faithfulness/sst2/bundle"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/sst2/test.jsonl"))
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    explainer = VATExplainer.from_pretrained(options.bundle)
    data = load_examples(options.data, labels=LabelSet(tuple(explainer.labels)))
    profile = cProfile.Profile()
    started = time.perf_counter()
    profile.enable()
    evaluation = evaluate(
        explainer,
        data.examples,
        methods=options.methods,
        limit=options.texts,
        settings=Settings(seed=options.seed),
    )
    profile.disable()
    seconds = time.perf_counter() - started
    total, own, most = own_seconds(profile)
    results = {
        "texts": options.texts,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "own_share": round(own / total, 4),
        "own_functions_seconds": {name: round(value, 2) for name, value in most.items()},
        **evaluation.to_dict(),
    }
    write_atomically(options.output / "evaluation.json", json.dumps(results, indent=1) + "\n")
    print(f"{seconds:.0f} s, {own / total:.2%} of it in our own code; most in {results['own_functions_seconds']}")
    shown = ("comprehensiveness_mask", "sufficiency_mask", "comprehensiveness_delete", "sufficiency_delete")
    shown += ("normalised_comprehensiveness_mask", "normalised_sufficiency_mask")
    for method, scores in evaluation.methods.items():
        figures = "  ".join(f"{scores[name]['mean']:+.3f}" for name in shown if name in scores)
        print(f"{method:20} {scores['forwards_per_text']:8.1f} passes {scores['seconds_per_text']:8.4f} s  {figures}")


if __name__ == "__main__":
    main()
