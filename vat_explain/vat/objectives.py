"""What the learner and the compressor are trained for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vat_explain.errors import InputError
from vat_explain.models import MULTI_LABEL, Classifier
from vat_explain.vat.batches import Batch, leave_out, random_rank, run_masked
from vat_explain.vat.bottleneck import SHARES, draw_top, top_tokens
from vat_explain.vat.compressor import CompressorOutput, InformationScore
from vat_explain.vat.model import VATModel

GATE_SCALE = 3.0
"""Log-odds of a gate for each unit of the class-free scores, which are ten times a part of the probability."""


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of the compressor's loss.

    Attributes
    ----------
    class_scores : float
        Of the regression of the signed class scores.
    pairs : int
        Pairs of token sets that it is done on, for each row in each step; two forward passes each.
    left_out : float
        Highest rate at which tokens are deleted from the rows of a step, so that every epoch brings new texts.
    gates : float
        Of the bottleneck at the input embeddings, which learns which tokens decide the prediction.
    gates_from : float
        Share of the steps after which it joins; until then the order of the tokens says little.
    draws : int
        Sets of kept tokens that it draws for each row, at least two; two forward passes each.
    information : float
        Of the bound on the information that passes in the paper's objective; reached linearly over the first fifth of
        the steps.
    """

    class_scores: float = 10.0
    pairs: int = 1
    left_out: float = 0.5
    gates: float = 3.0
    gates_from: float = 0.7
    draws: int = 4
    information: float = 0.1

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise InputError(f"weights.draws is {self.draws}; sets are compared with each other, so 2 are needed")


def task_loss(classifier: Classifier, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with labels [batch], or binary with [batch, classes] for multi-label models; one value a row."""
    if classifier.task == MULTI_LABEL:
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(1)
    return functional.cross_entropy(logits, labels, reduction="none")


def random_keep(scorable: Tensor) -> Tensor:
    """Draw gates [batch, tokens]: a rate in (0, 1) for each row, then every scored token alone; others stay 1."""
    rate = torch.rand(len(scorable), 1, device=scorable.device)
    keep = torch.rand(scorable.shape, device=scorable.device) < rate
    return (keep | ~scorable).float()


class Objective(nn.Module):
    """A loss to train for; called with a batch, it returns a dict with ``loss`` and its terms.

    Attributes
    ----------
    progress : Tensor, scalar
        Share of the phase's steps that are done, set by the trainer.
    """

    progress: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("progress", torch.zeros(()), persistent=False)


class LearnerObjective(Objective):
    """Fine-tune a classifier so that texts with masked tokens are no strangers to it.

    Every row is read whole, and some of them once more with tokens masked at random, independently of their content.
    With a compressor, a quarter of these copies get the masks that it made for other rows: never a row's own, from
    which the label could be read off.

    Parameters
    ----------
    learner : Classifier
    copies : float
        Masked copies for each row, at most 1.
    guide : VATModel, optional
        A model whose compressor has been trained.
    whole : bool
        Read the rows themselves too; a judge learns from masked copies alone.
    """

    def __init__(
        self, learner: Classifier, copies: float = 0.5, guide: VATModel | None = None, *, whole: bool = True
    ) -> None:
        super().__init__()
        self.learner = learner
        self.copies = copies
        self.guide = guide
        self.whole = whole

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss."""
        count = len(batch["labels"])
        order = torch.randperm(count, device=batch["labels"].device)
        copied = order[: max(1, round(count * self.copies)) if self.copies else 0]
        masked = random_keep(batch["scorable"])
        if self.guide is not None and count > 1:  # of one row alone there are no others
            guided = torch.rand(count, 1, device=masked.device) < 0.25
            masked = torch.where(guided, self._masks_of_others(batch), masked)
        rows, keep = copied, masked[copied]
        if self.whole:
            rows, keep = torch.cat([order, rows]), torch.cat([torch.ones_like(masked), keep])
        part = {name: tensor[rows] for name, tensor in batch.items()}
        logits = run_masked(self.learner, self.learner.embed(part["input_ids"]), keep, part)
        return {"loss": task_loss(self.learner, logits, part["labels"]).mean()}

    @torch.no_grad()
    def _masks_of_others(self, batch: Batch) -> Tensor:
        assert self.guide is not None
        self.guide.eval()
        scorable = batch["scorable"]
        output = self.guide(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], scorable)
        self.guide.learner.train()
        keep = top_tokens(output.scores, scorable, torch.rand(len(scorable), 1, device=scorable.device))
        return (keep.roll(1, 0) | ~scorable).float()


class CompressorObjective(Objective):
    """What both compressor objectives share: the frozen pass of the learner and the signed class scores.

    The class scores are fitted by the weighted least squares of Shapley values (FastSHAP, Jethani, Sudarshan, Covert,
    Lee and Ranganath, ICLR 2022), on the learner's probabilities.

    Parameters
    ----------
    model : VATModel
        Its compressor is trained, its learner frozen.
    weights : Weights
    """

    def __init__(self, model: VATModel, weights: Weights) -> None:
        super().__init__()
        self.model = model
        self.weights = weights

    def train(self, mode: bool = True) -> CompressorObjective:
        """Switch to training, of the compressor alone."""
        super().train(mode)
        self.model.learner.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and its terms."""
        arguments = batch["attention_mask"], batch["token_type_ids"]
        with torch.no_grad():
            pass_ = self.model.learner.run(batch["input_ids"], *arguments)
            p = self.model.learner.probabilities(pass_.logits.float())
            embeddings = self.model.learner.embed(batch["input_ids"])
        compressor = self.model.compressor
        features = compressor.features(pass_, p, batch["attention_mask"], batch["token_type_ids"])
        output = compressor.score(features, pass_, p, batch["scorable"])
        terms = self.terms(features, pass_.states[-1], output, p, embeddings, batch)
        terms["class_scores"] = self.weights.class_scores * self._class_scores(output, p, embeddings, batch)
        return {"loss": torch.stack(list(terms.values())).sum(), **{k: v.detach() for k, v in terms.items()}}

    def terms(
        self, features: Tensor, states: Tensor, output: CompressorOutput, p: Tensor, embeddings: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """Return the weighted terms besides the class scores."""
        raise NotImplementedError

    def _without(self, removed: Tensor, embeddings: Tensor, batch: Batch) -> Tensor:
        """Return the learner's probabilities [batch, classes] with tokens [batch, tokens] masked."""
        with torch.no_grad():
            logits = run_masked(self.model.learner, embeddings, (~removed).to(embeddings.dtype), batch)
            return self.model.learner.probabilities(logits)

    def _class_scores(self, output: CompressorOutput, p: Tensor, embeddings: Tensor, batch: Batch) -> Tensor:
        scorable = batch["scorable"]
        proper = (scorable.sum(1) > 1).to(p.dtype)
        losses = []
        for _ in range(self.weights.pairs):
            kept = shapley_coalition(scorable)
            for chosen in (kept, scorable & ~kept):  # paired: a set and its complement
                value = self._without(scorable & ~chosen, embeddings, batch)
                parts = (output.class_importance * chosen.unsqueeze(-1)).sum(1)
                error = (value - self.model.compressor.reference - parts).square().sum(-1)
                losses.append((error * proper).sum() / proper.sum().clamp(min=1))
        return torch.stack(losses).mean()


class FaithfulObjective(CompressorObjective):
    """Tell what each token does to the prediction, and rank the tokens by how few of them decide it.

    The class scores are learnt first. Then a bottleneck at the input embeddings joins: sets of tokens are drawn from
    the class-free scores, and those are preferred that keep the prediction while the other tokens leave little of it.
    """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and its terms, on rows with tokens left out: the learner itself tells what these decide."""
        return super().forward(leave_out(batch, self.weights.left_out, self.model.learner.special.pad))

    def terms(
        self, features: Tensor, states: Tensor, output: CompressorOutput, p: Tensor, embeddings: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """Return the term of the gates, once they have joined."""
        if not self.weights.gates or self.progress < self.weights.gates_from:
            return {}
        return {"gates": self.weights.gates * self._gates(output.scores.float(), p, embeddings, batch)}

    def _gates(self, scores: Tensor, p: Tensor, embeddings: Tensor, batch: Batch) -> Tensor:
        """Return a loss that falls as the tokens drawn come to hold the evidence; its value says nothing.

        The reward of a set is the probability that it keeps alone, less the one that is left without it. Where sets
        of a fixed size are drawn with probability proportional to the exponential of their summed scores, the mean
        reward has the derivative Cov(gate, reward) with respect to the score of a token (the score function
        estimator, Williams 1992, with the mean over the draws as baseline, Kool, van Hoof and Welling 2019). Top-k
        of noisy scores draws nearly so, which biases the estimate a little.
        """
        scorable, likeliest = batch["scorable"], p.argmax(-1, keepdim=True)
        share = torch.tensor(SHARES, device=p.device)[torch.randint(len(SHARES), (len(p), 1), device=p.device)]
        scaled = GATE_SCALE * scores.detach()
        sets = torch.stack([draw_top(scaled, scorable, share) for _ in range(self.weights.draws)])
        gate, reward = sets.to(p.dtype), self._rewards(sets, likeliest, embeddings, batch)
        covariance = ((gate - gate.mean(0)) * (reward - reward.mean(0))).sum(0) / (self.weights.draws - 1)
        return -GATE_SCALE * (covariance * scores).sum(1).mean()

    def _rewards(self, sets: Tensor, likeliest: Tensor, embeddings: Tensor, batch: Batch) -> Tensor:
        """Return rewards [draws, rows, 1] of sets [draws, rows, tokens].

        A set that was drawn twice is tried once, and the sets of a row that are all the same, whose covariance is 0,
        are not tried at all: their reward counts as 0.
        """
        draws, rows, _ = sets.shape
        row = torch.arange(rows, device=sets.device).expand(draws, rows).unsqueeze(-1)
        found, which = torch.cat([row, sets.long()], -1).flatten(0, 1).unique(dim=0, return_inverse=True)
        row, top = found[:, 0], found[:, 1:].bool()
        reward = embeddings.new_zeros(len(found), 1)
        differing = (row.bincount(minlength=rows) > 1)[row].nonzero()[:, 0]
        for some in differing.split(rows) if len(differing) else ():
            part = {name: batch[name][row[some]] for name in ("attention_mask", "token_type_ids", "scorable")}
            own = embeddings[row[some]]
            alone = self._without(part["scorable"] & ~top[some], own, part)
            reward[some] = (alone - self._without(top[some], own, part)).gather(1, likeliest[row[some]])
        return reward[which].view(draws, rows, 1)


class PaperObjective(CompressorObjective):
    """Predict the label from noisy, attended representations: closest to the abstract of the VAT paper.

    Cross-entropy of the prediction from the attended sum of the compressed representations, plus the information
    that passes.
    """

    def terms(
        self, features: Tensor, states: Tensor, output: CompressorOutput, p: Tensor, embeddings: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        """Return the terms task and information."""
        scorer = self.model.compressor.scorer
        assert isinstance(scorer, InformationScore)
        weight = self.weights.information * (self.progress / 0.2).clamp(max=1)
        logits, information = compressed_prediction(scorer, features, states, batch["scorable"])
        mean = (information * batch["scorable"]).sum(1) / batch["scorable"].sum(1)
        return {
            "task": task_loss(self.model.learner, logits, batch["labels"]).mean(),
            "information": weight * mean.mean(),
        }


class PaperLearnerObjective(Objective):
    """Fine-tune the learner on the task, through its own head and through the compressor's, which stays as it is.

    Parameters
    ----------
    model : VATModel
    """

    def __init__(self, model: VATModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and its terms."""
        learner, compressor = self.model.learner, self.model.compressor
        pass_ = learner.run(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        p = learner.probabilities(pass_.logits.float())
        features = compressor.features(pass_, p, batch["attention_mask"], batch["token_type_ids"])
        assert isinstance(compressor.scorer, InformationScore)
        compressed, _ = compressed_prediction(compressor.scorer, features, pass_.states[-1], batch["scorable"])
        own = task_loss(learner, pass_.logits.float(), batch["labels"]).mean()
        through = task_loss(learner, compressed, batch["labels"]).mean()
        return {"loss": own + through, "task": own.detach(), "compressed": through.detach()}


def compressed_prediction(
    scorer: InformationScore, features: Tensor, states: Tensor, scorable: Tensor
) -> tuple[Tensor, Tensor]:
    """Return logits [batch, classes] of the attended noisy states, and the information [batch, tokens]."""
    bottleneck = scorer.bottleneck(features, states, scorable)
    noise = scorer.mean + scorer.deviation * torch.randn_like(states)
    keep = bottleneck.keep.unsqueeze(-1)
    noisy = keep * states + (1 - keep) * noise
    logits: Tensor = scorer.predict((bottleneck.attention.unsqueeze(-1) * noisy).sum(1))
    return logits.float(), bottleneck.information


def shapley_coalition(scorable: Tensor) -> Tensor:
    """Draw a set of scored tokens for each row, sizes weighted by the Shapley kernel, (n - 1) / (k (n - k)).

    Returns
    -------
    Tensor of bool, shape [batch, tokens]
        Rows with fewer than two scored tokens have no proper set: theirs is arbitrary.
    """
    count = scorable.sum(1, keepdim=True)
    sizes = torch.arange(1, scorable.shape[1] + 1, device=scorable.device).expand_as(scorable)
    kernel = torch.where(sizes < count, 1 / (sizes * (count - sizes)).clamp(min=1), 0.0)
    kernel[:, 0] += (count[:, 0] < 2).to(kernel.dtype)
    size = torch.multinomial(kernel, 1) + 1
    return (random_rank(scorable) < size) & scorable
