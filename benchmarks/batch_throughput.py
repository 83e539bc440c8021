"""Texts a second of `vat_export.batch`, Parquet to Parquet, beside the same loop in torch and integrated gradients.

    python benchmarks/batch_throughput.py [BUNDLE] [--parts torch ig fp32 int8 ray memory] [--texts 20000] [--cores 1]

torch   the texts in the order of the file, 32 at a time, padded to their longest
ig      integrated gradients with 50 steps, extrapolated from --ig texts
fp32    the exported bundle, with the share of time spent outside ONNX Runtime
int8    the same, quantised
ray     one actor on this machine beside one process, each with one thread
memory  peak memory of a tiny model's job for each number of --rows short texts

Parts may be run one by one: figures of the same texts, bundle and cores are gathered in one file. Everything but Ray is
held to --cores cores, which torch uses as threads of one process, its default, and a job as processes of one thread
each. The texts are those of ag_news and sst2 in random order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder holds a file named onnx, which is not the package

import pyarrow
import pyarrow.parquet
import torch

from tests import exported
from vat_explain.attribution.standard import standard_method
from vat_explain.data import load_examples
from vat_explain.explainer import VATExplainer
from vat_explain.files import write_atomically
from vat_explain.text import collate
from vat_export.onnx import export_onnx

PARTS = ("torch", "ig", "fp32", "int8", "ray", "memory")

# A process of its own, without torch, whose peak memory is that of the job. (Not ru_maxrss: it survives exec.)
JOB = """
import json, sys, time
from pathlib import Path
import onnxruntime
from vat_export.batch import explain_files
inside = 0.0
run = onnxruntime.InferenceSession.run
def timed(*arguments):
    global inside
    began = time.perf_counter()
    try:
        return run(*arguments)
    finally:
        inside += time.perf_counter() - began
onnxruntime.InferenceSession.run = timed
summary = explain_files(*sys.argv[1:4], engine=sys.argv[4], workers=int(sys.argv[5]), quiet=False)
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
assert "torch" not in sys.modules and not summary.rejected
figures = {"rows": summary.rows, "seconds": summary.seconds, "rate": summary.rows / summary.seconds}
if inside:  # sessions run in this process
    figures |= {"share_outside_session": 1 - inside / summary.seconds, "peak_mb": int(peak) / 1024}
print(json.dumps(figures))
"""


def gather(data: Path, count: int) -> list[str]:
    """Return texts of ag_news and sst2 in random order, repeated if there are too few."""
    files = [path for folder in ("ag_news", "sst2") for path in sorted((data / folder).glob("*.jsonl"))]
    texts = [example.text for path in files for example in load_examples(path, label_column=None).examples]
    random.Random(0).shuffle(texts)
    return (texts * (count // len(texts) + 1))[:count]


def write(path: Path, texts: list[str]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=50_000)
    return path


def torch_loop(bundle: Path, source: Path) -> dict[str, float]:
    explainer = VATExplainer.from_pretrained(bundle)
    began = time.perf_counter()
    texts: list[str] = pyarrow.parquet.read_table(source)["text"].to_pylist()
    rows = []
    for start in range(0, len(texts), 32):
        encoded = explainer.encode(texts[start : start + 32])
        outputs = explainer.run(collate([text.windows[0] for text in encoded], explainer.encoder.special.pad))
        for text, probabilities, importance, _ in zip(encoded, *outputs, strict=True):
            window = text.windows[0]
            scores = importance[: len(window)][window.position >= 0].tolist()
            rows.append({"score": float(probabilities.max()), "tokens": list(text.tokens), "importances": scores})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), source.with_name("torch.parquet"))
    seconds = time.perf_counter() - began
    return {"rows": len(texts), "seconds": seconds, "rate": len(texts) / seconds}


def integrated_gradients(bundle: Path, texts: list[str]) -> dict[str, float]:
    explainer = VATExplainer.from_pretrained(bundle)
    method = standard_method("ig", explainer.learner)
    began = time.perf_counter()
    for text in explainer.encode(texts):
        batch = collate([text.windows[0]], explainer.encoder.special.pad)
        ids, mask, types = (torch.from_numpy(batch[n]) for n in ("input_ids", "attention_mask", "token_type_ids"))
        method.attribution.attribute(ids, target=[0], additional_forward_args=(mask, types))
    seconds = time.perf_counter() - began
    return {"rows": len(texts), "seconds": seconds, "rate": len(texts) / seconds}


def job(
    export: Path, source: Path, engine: str = "local", cores: set[int] | None = None, workers: int = 1
) -> dict[str, Any]:
    """Run a job in its own process; return what it measured."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", JOB, export, source, f"{out}/out", engine, workers]
        hold: Callable[[], object] | None = None if cores is None else lambda: os.sched_setaffinity(0, cores)
        done = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True, preexec_fn=hold)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def beside_ray(export: Path, source: Path, cores: set[int]) -> dict[str, Any]:
    """Compare one actor with one process; Ray may use all cores for itself, and its actor one thread."""
    local = job(export, source)["seconds"]
    ray = job(export, source, "ray", cores)["seconds"]
    return {"local_seconds": local, "ray_seconds": ray, "overhead": ray / local - 1}


def memory(folder: Path, texts: list[str], rows: list[int]) -> dict[str, Any]:
    """Return the peak memory of jobs of so many short texts."""
    export = exported.export().directory
    short = [text[:40] for text in texts]
    peaks = {}
    for count in rows:
        source = write(folder / f"{count}.parquet", (short * (count // len(short) + 1))[:count])
        peaks[count] = job(export, source)["peak_mb"]
    return {"peak_mb": peaks, "growth": peaks[rows[-1]] / peaks[rows[0]] - 1}


def compare(results: dict[str, Any]) -> dict[str, float]:
    """Return how many times faster exports are, as far as both sides have been measured."""
    pairs = [(fast, slow) for fast in ("fp32", "int8") for slow in ("torch", "ig")]
    return {f"{a} / {b}": results[a]["rate"] / results[b]["rate"] for a, b in pairs if a in results and b in results}


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", default=here / "work" / "sst2" / "frozen")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--data", type=Path, default=here.parents[1] / "shared" / "data")
    parser.add_argument("--ig", type=int, default=40, help="texts for integrated gradients")
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 1_000_000], help="for the part memory")
    parser.add_argument("--output", type=Path, default=here / "results" / "batch_throughput.json")
    options = parser.parse_args()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[: options.cores])
    torch.set_num_threads(options.cores)
    texts = gather(options.data, options.texts)
    bundle = VATExplainer.from_pretrained(options.bundle).origin.provenance["bundle"]
    setup = {"bundle": bundle, "texts": len(texts), "cores": options.cores}
    earlier = json.loads(options.output.read_text()) if options.output.exists() else {}
    results = earlier if earlier.get("setup") == setup else {"setup": setup}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write(folder / "in.parquet", texts)

        def export(precision: str) -> Path:
            if not (folder / precision).exists():
                export_onnx(options.bundle, folder / precision, int8=precision == "int8", quiet=False)
            return folder / precision

        measure: dict[str, Callable[[], dict[str, Any]]] = {
            "torch": lambda: torch_loop(options.bundle, source),
            "ig": lambda: integrated_gradients(options.bundle, texts[: options.ig]),
            "fp32": lambda: job(export("fp32"), source, workers=options.cores),
            "int8": lambda: job(export("int8"), source, workers=options.cores),
            "ray": lambda: beside_ray(export("fp32"), source, cores),
            "memory": lambda: memory(folder, texts, options.rows),
        }
        for part in options.parts:
            results[part] = measure[part]()
            results["times"] = compare(results)
            write_atomically(options.output, json.dumps(results, indent=2) + "\n")
            print(part, results[part], flush=True)
    print("times as fast", results["times"])


if __name__ == "__main__":
    main()
