"""Development figures that training is stopped by."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from vat_explain.models import MULTI_LABEL, Classifier
from vat_explain.text import token_budget_batches
from vat_explain.vat.batches import TrainingSet, run_masked
from vat_explain.vat.bottleneck import SHARES, top_tokens
from vat_explain.vat.compressor import InformationScore
from vat_explain.vat.model import VATModel

FIDELITY_ROWS, FIDELITY_TOKENS = 128, 8192
"""Most rows and tokens that `fidelity` looks at, each several times; it is called after every epoch."""


def batches(data: TrainingSet, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Tensor]]:
    """Yield a data set, or its first rows, in batches of similar length."""
    lengths = [len(window) for window in data.windows[:limit]]
    for rows in token_budget_batches(lengths, 4096, 64):
        yield data.batch(rows, device)


@torch.no_grad()
def accuracy(classifier: Classifier, data: TrainingSet) -> dict[str, float]:
    """Return the share of right predictions, or the micro-averaged F1 of a multi-label model."""
    classifier.eval()
    right = predicted = true = total = 0.0
    for batch in batches(data, classifier.embedding_layer.weight.device):
        logits = classifier(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        labels = batch["labels"]
        total += len(labels)
        if classifier.task == MULTI_LABEL:
            chosen = logits > 0
            right += (chosen & labels.bool()).sum().item()
            predicted += chosen.sum().item()
            true += labels.sum().item()
        else:
            right += (logits.argmax(-1) == labels).sum().item()
    if classifier.task == MULTI_LABEL:
        return {"f1": 2 * right / max(predicted + true, 1)}
    return {"accuracy": right / max(total, 1)}


@torch.no_grad()
def fidelity(model: VATModel, data: TrainingSet) -> dict[str, float]:
    """Judge the class-free scores on the learner itself, by replacing tokens with the mask embedding.

    The first rows are used, at most `FIDELITY_ROWS` and `FIDELITY_TOKENS`.

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
    ends = accumulate(len(window) for window in data.windows[:FIDELITY_ROWS])
    limit = max(1, sum(end <= FIDELITY_TOKENS for end in ends))
    for batch in batches(data, learner.embedding_layer.weight.device, limit):
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
def set_reference(model: VATModel, data: TrainingSet, limit: int = 512) -> None:
    """Measure on the training set what the compressor takes as given.

    The mean prediction on fully masked texts and, for the paper objective, the statistics of the learner's states.
    """
    model.eval()
    learner, compressor = model.learner, model.compressor
    references: list[Tensor] = []
    states: list[Tensor] = []
    for batch in batches(data, compressor.reference.device, limit):
        keep = (~batch["scorable"]).float()
        logits = run_masked(learner, learner.embed(batch["input_ids"]), keep, batch)
        references.append(learner.probabilities(logits.float()))
        if isinstance(compressor.scorer, InformationScore):
            pass_ = learner.run(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
            states.append(pass_.states[-1][batch["scorable"]].float())
    compressor.reference.copy_(torch.cat(references).mean(0))
    if isinstance(compressor.scorer, InformationScore):
        every = torch.cat(states)
        compressor.scorer.mean.copy_(every.mean(0))
        compressor.scorer.deviation.copy_(every.std(0).clamp(min=1e-3))
