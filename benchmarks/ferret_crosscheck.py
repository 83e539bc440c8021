"""Compare comprehensiveness, sufficiency and tau-LOO with those of ferret (Attanasio et al. 2023).

ferret needs older packages, so it runs in an environment of its own:

    python -m venv /tmp/ferret && /tmp/ferret/bin/pip install torch==2.13.0 ferret-xai==0.4.2 "pyarrow<20"
    python benchmarks/ferret_crosscheck.py --model MINILM_FOLDER --ferret /tmp/ferret/bin/python

ferret puts the remaining tokens together to a string and tokenises it anew, so the texts are made of words that are
single tokens; and it leaves out a bin whose tokens equal those of the bin before, so bins of distinct size count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WORDS = (
    "the a film movie plot was is good bad great awful dull funny not never very but and this that it an actor scene "
    "story boring brilliant terrible lovely slow quick food room service hotel i we you they with of in on"
).split()
TEXTS = 40
TOLERANCE = 1e-4


def ours(model_folder: str, work: Path) -> None:
    """Save a classifier, texts with random scores, and our numbers for them."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from vat_explain.evaluation import erasure
    from vat_explain.evaluation.perturb import probabilities_under
    from vat_explain.loading import load_tokenizer
    from vat_explain.models import Classifier, text_encoder
    from vat_explain.text import SpecialTokens

    torch.manual_seed(0)
    tokenizer = load_tokenizer(model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=3)
    model.classifier.weight.data.normal_(std=1.0)  # so that probabilities differ between texts
    model.save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    classifier = Classifier(model, SpecialTokens.from_tokenizer(tokenizer)).eval()
    encoder = text_encoder(tokenizer, classifier)
    draw = np.random.default_rng(0)
    cases = []
    for _ in range(TEXTS):
        encoded = encoder.encode(" ".join(draw.choice(WORDS, draw.integers(8, 25))))
        n = len(encoded.tokens)
        scores = draw.permutation(n) + 1.0
        order = erasure.ranking(scores, encoded.scorable, np.arange(n))
        whole = probabilities_under(classifier, [encoded], [(0, np.ones(n, dtype=bool))], "mask")
        case = {"text": encoded.text, "scores": scores.tolist(), "target": int(whole.argmax())}
        case["sizes"] = sorted(set(erasure.prefix_sizes(n).tolist()))
        for operator in ("mask", "delete"):
            (prefixes,) = erasure.prefix_probabilities(classifier, [encoded], [(0, order)], operator)
            assert prefixes.sizes.tolist() == case["sizes"]
            label = case["target"]
            case[f"aopc_compr_{operator}"] = float((whole[0, label] - prefixes.removed[:, label]).mean())
            case[f"aopc_suff_{operator}"] = float((whole[0, label] - prefixes.kept[:, label]).mean())
        (falls,) = erasure.leave_one_out(classifier, [encoded], whole, "delete")
        case["tau_delete"] = erasure.kendall_tau(scores, falls)
        cases.append(case)
    (work / "cases.json").write_text(json.dumps(cases))


def theirs(work: Path) -> None:
    """Compute the same with ferret and print the largest difference of each metric; run by its own interpreter."""
    from ferret.evaluators.faithfulness_measures import (
        AOPC_Comprehensiveness_Evaluation,
        AOPC_Sufficiency_Evaluation,
        TauLOO_Evaluation,
    )
    from ferret.explainers.explanation import Explanation
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(work / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    measures = {"aopc_compr": AOPC_Comprehensiveness_Evaluation, "aopc_suff": AOPC_Sufficiency_Evaluation}
    differences: dict[str, list[float]] = {}
    for case in json.loads((work / "cases.json").read_text()):
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(case["text"])["input_ids"])
        explanation = Explanation(case["text"], tokens, np.array([0.0, *case["scores"], 0.0]), "test", case["target"])
        for operator in ("mask", "delete"):
            removal = {"remove_tokens": operator == "delete", "based_on": "k", "thresholds": case["sizes"]}
            for name, measure in measures.items():
                found = measure(model, tokenizer).compute_evaluation(explanation, case["target"], removal_args=removal)
                differences.setdefault(f"{name}_{operator}", []).append(abs(found.score - case[f"{name}_{operator}"]))
        tau = TauLOO_Evaluation(model, tokenizer).compute_evaluation(explanation, case["target"])
        differences.setdefault("tau_delete", []).append(abs(tau.score - case["tau_delete"]))
    largest = {name: max(values) for name, values in differences.items()}
    print(json.dumps({"texts": len(next(iter(differences.values()))), "largest_difference": largest}, indent=2))
    if max(value for name, value in largest.items() if name != "tau_delete") > TOLERANCE:
        sys.exit("the two implementations disagree")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of an encoder whose vocabulary has common English words")
    parser.add_argument("--ferret", help="interpreter of the environment that ferret is installed in")
    parser.add_argument("--theirs", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.theirs:
        theirs(arguments.theirs)
        return
    with tempfile.TemporaryDirectory() as folder:
        ours(arguments.model, Path(folder))
        command = [arguments.ferret, str(Path(__file__).resolve()), "--theirs", folder]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
