"""Do explanations hide labels, follow the text rather than a word list, and change with the model?

A small classifier is fitted to the built-in corpus with its compressor and an independent judge (EVAL-X), and VAT and
integrated gradients explain the same test texts. Beside them stands the look-up table of each token's mean score, and
both methods explain the same classifier with shuffled weights, to which a compressor is fitted again.

    python benchmarks/sanity.py [--texts 100] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from shortcuts import dataset

from vat_explain.attribution.standard import Method, standard_method
from vat_explain.attribution.vat import VATAttribution
from vat_explain.corpus import splits
from vat_explain.corpus.model import small_classifier
from vat_explain.corpus.tokenizer import build_tokenizer
from vat_explain.data import LabelSet
from vat_explain.evaluation import Settings, evaluate
from vat_explain.evaluation.sanity import randomisation_test, token_lexicon
from vat_explain.explainer import VATExplainer
from vat_explain.files import write_atomically
from vat_explain.fitting import FitConfig, fit
from vat_explain.models import Classifier
from vat_explain.text import Encoded
from vat_explain.vat.trainer import LoopConfig

METHODS = ("vat", "vat-class", "ig", "leave-one-out", "random")
METRICS = ("comprehensiveness_mask", "sufficiency_mask", "encoding_gap", "class_leak", "infidelity", "sensitivity_max")


def method(explainer: VATExplainer) -> Method:
    """VAT, to be evaluated by itself."""
    return Method("vat", VATAttribution(explainer), False)


def decided(explainer: VATExplainer, texts: Sequence[Encoded]) -> list[int]:
    """The class that the model gives each text."""
    return [explainer.labels.index(one.label) for one in explainer.explain([text.text for text in texts])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sanity.json"))
    options = parser.parse_args()
    parts = splits(options.seed)
    labels = LabelSet(tuple(sorted({one.label for one in parts["train"]})))
    data = {name: dataset(examples, labels, name) for name, examples in parts.items()}
    tokenizer = build_tokenizer(one.text for one in parts["train"])
    torch.manual_seed(options.seed)
    # Larger steps than for a pre-trained encoder: it starts from nothing.
    config = FitConfig(loop=LoopConfig(seed=options.seed), learner_epochs=5, encoder_rate=1e-3, judge=True)
    model = small_classifier(tokenizer, labels.names)
    explainer = fit(model, data["train"], data["dev"], tokenizer=tokenizer, config=config)

    known = explainer.encode([example.text for example in data["train"].examples[:500]])
    lexicon = token_lexicon(method(explainer), explainer.learner, known, decided(explainer, known))
    evaluation = evaluate(
        explainer,
        data["test"].examples,
        methods=[*METHODS, lexicon],
        limit=options.texts,
        settings=Settings(("mask",), options.seed, search_budget=0, soft_samples=0, stability_samples=10),
    )
    texts = explainer.encode([example.text for example in data["test"].examples[: options.texts]])
    targets = decided(explainer, texts)

    def refitted(classifier: Classifier) -> Method:
        """VAT of the classifier as it is: the compressor at hand, or one that is fitted to shuffled weights."""
        if classifier is explainer.learner:
            return method(explainer)
        frozen = FitConfig(loop=config.loop, freeze_learner=True)
        return method(fit(classifier.model, data["train"], data["dev"], tokenizer=tokenizer, config=frozen))

    taus = {
        "vat": randomisation_test(refitted, explainer.learner, texts, targets, options.seed),
        "ig": randomisation_test(
            lambda classifier: standard_method("ig", classifier), explainer.learner, texts, targets, options.seed
        ),
    }
    results = evaluation.to_dict()
    results["tau_to_shuffled_weights"] = {name: float(values.mean()) for name, values in taus.items()}
    write_atomically(options.output, json.dumps(results, indent=1) + "\n")
    for name, scores in results["methods"].items():
        print(name, {metric: [round(x, 4) for x in scores[metric].values()] for metric in METRICS if metric in scores})
    print(
        "Kendall's tau to the scores of the same classifier with shuffled weights", results["tau_to_shuffled_weights"]
    )


if __name__ == "__main__":
    main()
