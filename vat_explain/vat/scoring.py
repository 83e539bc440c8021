"""Development figures of a training, and what a compressor takes from the texts before it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vat_explain.models import MULTI_LABEL, Classifier
from vat_explain.text import token_budget_batches
from vat_explain.vat.batches import TrainingSet, run_masked
from vat_explain.vat.bottleneck import SHARES, top_tokens
from vat_explain.vat.compressor import InformationScore
from vat_explain.vat.model import VATModel

FIDELITY_ROWS, FIDELITY_TOKENS = 128, 8192
"""Rows and tokens that `fidelity` looks at, each several times."""

REFERENCE_ROWS = 512
"""Rows that `set_reference` looks at."""


def batches(data: TrainingSet, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Yield a data set in batches of similar length."""
    lengths = [len(window) for window in data.windows]
    for rows in token_budget_batches(lengths, 4096, 64):
        yield data.batch(rows, device)


@torch.no_grad()
def accuracy(classifier: Classifier, data: TrainingSet) -> dict[str, float]:
    """Return the share of right predictions, or the micro-averaged F1 of a multi-label model.

    The prediction for a text is the mean over its windows.
    """
    classifier.eval()
    texts = torch.arange(len(data.windows)) if data.texts is None else data.texts
    probabilities = torch.zeros(int(texts.max()) + 1, classifier.num_labels)
    for batch in batches(data, classifier.embedding_layer.weight.device):
        logits = classifier(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        found = classifier.probabilities(logits.float()).cpu()
        probabilities.index_add_(0, texts[batch["rows"].cpu()], found)
    present, first = np.unique(texts.numpy(), return_index=True)
    probabilities = probabilities[present] / texts.bincount()[present].unsqueeze(1)
    labels = data.labels[first]
    if classifier.task == MULTI_LABEL:
        chosen, true = probabilities >= 0.5, labels.bool()
        return {"f1": 2 * (chosen & true).sum().item() / max(chosen.sum().item() + true.sum().item(), 1)}
    return {"accuracy": (probabilities.argmax(-1) == labels).float().mean().item()}


@torch.no_grad()
def fidelity(model: VATModel, data: TrainingSet) -> dict[str, float]:
    """Judge the class-free scores on the learner itself, by replacing tokens with the mask embedding.

    Rows drawn at random are used, about `FIDELITY_ROWS` or `FIDELITY_TOKENS` at most.

    Returns
    -------
    dict of str to float
        ``fidelity``, which is ``comprehensiveness`` (drop of the predicted class without the top tokens) minus
        ``sufficiency`` (drop with them alone), each a mean over `SHARES` of the tokens, at least one.
    """
    model.eval()
    learner = model.learner
    comprehensiveness = sufficiency = 0.0
    count = 0
    data = data.sample(FIDELITY_ROWS, seed=0)
    length = sum(len(window) for window in data.windows) / len(data.windows)
    data = data.sample(max(1, int(FIDELITY_TOKENS / length)), seed=0)
    for batch in batches(data, learner.embedding_layer.weight.device):
        scorable = batch["scorable"]
        output = model(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], scorable)
        whole, predicted = output.probabilities.max(-1)
        embeddings = learner.embed(batch["input_ids"])
        for share in SHARES:
            top = top_tokens(output.scores, scorable, share)
            for keep, sign in ((~top, 1), (top, -1)):
                logits = run_masked(learner, embeddings, (keep | ~scorable).float(), batch)
                left = learner.probabilities(logits).gather(1, predicted[:, None])[:, 0]
                drop = (whole - left).sum().item() / len(SHARES)
                comprehensiveness += drop if sign == 1 else 0
                sufficiency += drop if sign == -1 else 0
        count += len(scorable)
    comprehensiveness, sufficiency = comprehensiveness / count, sufficiency / count
    return {
        "fidelity": comprehensiveness - sufficiency,
        "comprehensiveness": comprehensiveness,
        "sufficiency": sufficiency,
    }


@torch.no_grad()
def set_reference(model: VATModel, data: TrainingSet) -> None:
    """Measure on `REFERENCE_ROWS` random rows of the training set what the compressor takes as given.

    The mean prediction on fully masked texts and, for the paper objective, the statistics of the learner's states.
    """
    model.eval()
    learner, compressor = model.learner, model.compressor
    references: list[Tensor] = []
    count = total = squares = torch.zeros(())
    for batch in batches(data.sample(REFERENCE_ROWS, seed=0), compressor.reference.device):
        keep = (~batch["scorable"]).float()
        logits = run_masked(learner, learner.embed(batch["input_ids"]), keep, batch)
        references.append(learner.probabilities(logits.float()))
        if isinstance(compressor.scorer, InformationScore):
            pass_ = learner.run(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
            states = pass_.states[-1][batch["scorable"]].double().cpu()
            count, total, squares = count + len(states), total + states.sum(0), squares + states.square().sum(0)
    compressor.reference.copy_(torch.cat(references).mean(0))
    if isinstance(compressor.scorer, InformationScore):
        mean = total / count
        compressor.scorer.mean.copy_(mean)
        compressor.scorer.deviation.copy_((squares / count - mean.square()).clamp(min=1e-6).sqrt())
