"""What int8 does to predictions and explanations of a classifier fitted on SST-2, beside float32.

    python benchmarks/int8_sst2.py [BUNDLE] [--texts 500] [--data ../shared/data/sst2/test.jsonl]

The bundle is exported twice. On test texts: equal labels, how alike the rankings of tokens are, how faithful both are
to the learner in torch (area over the perturbation curve, tokens masked), and how far an explanation moves with the
texts in its batch. BUNDLE is what fit_sst2.py writes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder holds a file named onnx, which is not the package

import torch
from captum.attr import Attribution

from vat_explain.attribution.standard import Method
from vat_explain.data import LabelSet, load_examples
from vat_explain.evaluation import Settings, evaluate
from vat_explain.explainer import VATExplainer
from vat_explain.files import write_atomically
from vat_export.onnx import export_onnx
from vat_export.runtime import OnnxExplainer
from vat_export.verify import batch_mates, compare_precisions

FAITHFULNESS = ("comprehensiveness_mask", "sufficiency_mask")
TARGETS = {"label_agreement": 0.99, "spearman_mean": 0.995, "comprehensiveness_moves": 0.01}


class Importance(Attribution):  # type: ignore[misc]  # Captum's class is untyped
    """The importances of an exported model, as a method to evaluate."""

    def __init__(self, runtime: OnnxExplainer) -> None:
        self.runtime = runtime

    def attribute(self, inputs: torch.Tensor, target: Any = None, additional_forward_args: Any = None) -> torch.Tensor:
        arrays = (tensor.numpy() for tensor in (inputs, *additional_forward_args))
        return torch.from_numpy(self.runtime.forward(*arrays)[1])


def measure(bundle: Path, data: Path, count: int, threads: int) -> dict[str, Any]:
    """Export a bundle in both precisions and compare them on texts."""
    explainer = VATExplainer.from_pretrained(bundle)
    examples = load_examples(data, labels=LabelSet(explainer.labels), limit=count).examples
    texts = [example.text for example in examples]
    with tempfile.TemporaryDirectory() as name:
        runtimes = {}
        for precision in ("fp32", "int8"):
            export_onnx(bundle, Path(name) / precision, int8=precision == "int8", check=False, quiet=False)
            runtimes[precision] = OnnxExplainer(Path(name) / precision, threads=threads)
        windows = [window for text in explainer.encode(texts) for window in text.windows]
        methods = [Method(name, Importance(runtime), False) for name, runtime in runtimes.items()]
        settings = Settings(operators=("mask",), search_budget=0, soft_samples=0)
        judged = evaluate(explainer, examples, methods=methods, settings=settings).to_dict()["methods"]
        faithfulness = {name: {key: judged[name][key] for key in FAITHFULNESS} for name in runtimes}
        means = {key: [faithfulness[name][key]["mean"] for name in runtimes] for key in FAITHFULNESS}
        found = {
            "texts": len(texts),
            **compare_precisions(runtimes["fp32"], runtimes["int8"], windows),
            "batch_mates_fp32": batch_mates(runtimes["fp32"], windows),
            "faithfulness": faithfulness,
            "comprehensiveness_moves": abs(means[FAITHFULNESS[0]][0] - means[FAITHFULNESS[0]][1]),
        }
    met = {name: found[name] >= limit for name, limit in TARGETS.items() if name != "comprehensiveness_moves"}
    met["comprehensiveness_moves"] = found["comprehensiveness_moves"] <= TARGETS["comprehensiveness_moves"]
    return found | {"targets": TARGETS, "met": met}


def main() -> None:
    folder = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path, nargs="?", default=folder / "work" / "sst2" / "frozen")
    parser.add_argument("--data", type=Path, default=folder.parents[1] / "shared" / "data" / "sst2" / "test.jsonl")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=folder / "results" / "int8_sst2.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = measure(options.bundle, options.data, options.texts, options.threads)
    write_atomically(options.output, json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
