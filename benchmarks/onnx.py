"""Speed of exported models against torch, of their explanations, and of batching by length. Ratios of one run.

    python benchmarks/onnx.py [--shapes minilm,base] [--threads 1,2] [--repeats 7]

Weights are random, which changes no speed. All variants of a batch take turns; medians are compared. Lengths for
"bucketing" are lognormal, median 20 words, as those of short messages.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# This folder holds a file named onnx, which is not the package.
sys.path.pop(0)

import numpy as np
import onnx.utils
import onnxruntime
import torch
from transformers import BertConfig, BertForSequenceClassification

from tests import bundles, tiny
from vat_explain.explainer import VATExplainer
from vat_explain.files import write_atomically
from vat_explain.models import Classifier
from vat_explain.text import SpecialTokens, token_budget_batches
from vat_explain.vat.compressor import Compressor, CompressorConfig
from vat_explain.vat.model import VATModel
from vat_export.onnx import export_onnx
from vat_export.parts import BATCH_TOKENS
from vat_export.runtime import SLOW_FUSIONS, session_options
from vat_export.spec import OUTPUTS

SHAPES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
BATCHES = [(1, 24), (32, 24), (8, 128)]
VOCABULARY = 30522


def make(shape: str, folder: Path) -> None:
    """Write bundle and exports of a random BERT of a shape."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, num_labels=2, problem_type="single_label_classification", **SHAPES[shape]
    )
    learner = Classifier(BertForSequenceClassification(config), SpecialTokens.from_tokenizer(tiny.tokenizer()))
    model = VATModel(learner, Compressor(learner, CompressorConfig())).eval()
    bundles.save(folder / "bundle", model, max_length=256)
    export_onnx(folder / "bundle", folder / "fp32", quiet=False)
    export_onnx(folder / "bundle", folder / "int8", int8=True, check=False, quiet=False)
    for precision in ("fp32", "int8"):
        source, target = folder / precision / "model.onnx", folder / f"{precision}-logits.onnx"
        onnx.utils.extract_model(source, target, ["input_ids", "attention_mask", "token_type_ids"], ["logits"])


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        path, session_options(threads), providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
    )


def feed(rows: int, lengths: np.ndarray) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(rows)
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    ids = generator.integers(5, VOCABULARY, mask.shape) * mask
    ids[:, 0] = 2
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def variants(folder: Path, threads: int) -> dict[str, Callable[[dict[str, np.ndarray]], Any]]:
    """Return what runs a batch, by name."""
    torch.set_num_threads(threads)
    model = VATExplainer.from_pretrained(folder / "bundle").model

    @torch.inference_mode()
    def explain(batch: dict[str, np.ndarray]) -> Any:
        return model(*map(torch.from_numpy, batch.values()))

    @torch.inference_mode()
    def predict(batch: dict[str, np.ndarray]) -> Any:
        return model.learner(*map(torch.from_numpy, batch.values()))

    found: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {"torch": explain, "torch, logits": predict}
    for precision in ("fp32", "int8"):
        full, logits = (
            session(folder / precision / "model.onnx", threads),
            session(folder / f"{precision}-logits.onnx", threads),
        )
        found[precision] = lambda batch, s=full: s.run(list(OUTPUTS), batch)
        found[f"{precision}, logits"] = lambda batch, s=logits: s.run(["logits"], batch)
    return found


def medians(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Run all in turns; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if number:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    return {
        "fp32 faster than torch": seconds["torch"] / seconds["fp32"],
        "int8 faster than torch": seconds["torch"] / seconds["int8"],
        "explaining costs, torch": seconds["torch"] / seconds["torch, logits"] - 1,
        "explaining costs, fp32": seconds["fp32"] / seconds["fp32, logits"] - 1,
        "explaining costs, int8": seconds["int8"] / seconds["int8, logits"] - 1,
    }


def bucketing(runs: dict[str, Callable[[dict[str, np.ndarray]], Any]], repeats: int, rows: int) -> dict[str, Any]:
    """Compare ways to batch texts of realistic lengths, with fp32 and int8."""
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(20), 0.9, rows) * 1.3 + 2, 4, 256).astype(int)
    order = np.arange(rows)
    ways = {
        "all to 256, 32 rows": [order[i : i + 32] for i in range(0, rows, 32)],
        "to the longest, 32 rows": [order[i : i + 32] for i in range(0, rows, 32)],
        "sorted, as vat_export.batch": [np.array(b) for b in token_budget_batches(lengths.tolist(), BATCH_TOKENS)],
    }
    found: dict[str, Any] = {}
    for precision in ("fp32", "int8"):
        jobs: dict[str, Callable[[], Any]] = {}
        for name, batches in ways.items():
            feeds = [feed(len(b), np.full(len(b), 256) if name.startswith("all") else lengths[b]) for b in batches]
            jobs[name] = lambda feeds=feeds, run=runs[precision]: [run(one) for one in feeds]
        seconds = medians(jobs, repeats)
        base = seconds["to the longest, 32 rows"]
        found[precision] = {"seconds": seconds, "faster": {name: base / s for name, s in seconds.items()}}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", default="minilm,base")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, default=256, help="texts for bucketing")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "onnx.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"repeats": arguments.repeats, "rows": arguments.rows, "shapes": {}}
    for shape in arguments.shapes.split(","):
        with tempfile.TemporaryDirectory() as name:
            make(shape, Path(name))
            for threads in map(int, arguments.threads.split(",")):
                runs = variants(Path(name), threads)
                entry: dict[str, Any] = {}
                for rows, tokens in BATCHES:
                    batch = feed(rows, np.full(rows, tokens))
                    jobs = {name: lambda run=run, batch=batch: run(batch) for name, run in runs.items()}
                    seconds = medians(jobs, arguments.repeats)
                    entry[f"{rows}x{tokens}"] = {"seconds": seconds, "ratios": ratios(seconds)}
                    shown = {name: round(value, 3) for name, value in ratios(seconds).items()}
                    print(shape, f"{threads} threads", f"{rows}x{tokens}", shown, flush=True)
                entry["bucketing"] = bucketing(runs, max(1, arguments.repeats // 3), arguments.rows)
                print(shape, f"{threads} threads", {p: e["faster"] for p, e in entry["bucketing"].items()}, flush=True)
                results["shapes"].setdefault(shape, {})[f"{threads} threads"] = entry
                write_atomically(arguments.output, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
