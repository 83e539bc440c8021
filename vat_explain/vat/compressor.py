"""The compressor: a small network that reads a classifier's states and scores every token.

Reconstructed from the abstract of Zhou, Wu, Chen, Huang and He, "Attending via both Fine-tuning and Compressing"
(Findings of ACL 2021), and from the family of methods that it belongs to; no equation here is claimed to be theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vat_explain.assemble import TEMPERATURE
from vat_explain.models import MULTI_LABEL, Classifier, ClassifierOutput, EncoderCopy
from vat_explain.vat.bottleneck import gaussian_information

Objective = Literal["faithful", "paper"]
Backbone = Literal["readout", "copy"]

MAX_KEEP = 0.993
"""Upper bound of the keep rate of the paper objective, so that its information stays finite."""


@dataclass(frozen=True)
class CompressorConfig:
    """Shape of a compressor; stored in the card of a bundle.

    Attributes
    ----------
    objective : {"faithful", "paper"}
        What it was trained for, which decides how scores are formed.
    backbone : {"readout", "copy"}
        Read the classifier's own states, or run a fine-tuned copy of its encoder.
    width : int
        Width of its layers; a multiple of `heads`.
    depth : int
        Number of its transformer layers.
    heads : int
        Attention heads of each layer.
    dropout : float
        Dropout rate in training.
    """

    objective: Objective = "faithful"
    backbone: Backbone = "readout"
    width: int = 128
    depth: int = 1
    heads: int = 4
    dropout: float = 0.2


@dataclass(frozen=True)
class CompressorOutput:
    """Scores of every token, 0 at tokens that are not scored.

    Attributes
    ----------
    scores : Tensor, shape [batch, tokens]
        Class-free score, up to a constant of the text; its softmax are the shares.
    importance : Tensor, shape [batch, tokens]
        Softmax of the scores over the scored tokens: shares of 1.
    class_importance : Tensor, shape [batch, tokens, classes]
        Signed parts of the probabilities: with the reference they add up to the prediction.
    """

    scores: Tensor
    importance: Tensor
    class_importance: Tensor


class Block(nn.Module):
    """A pre-norm transformer layer that attends to the tokens of a row, padding left out."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Transform ``x`` [batch, tokens, width]; ``bias`` [batch, 1, 1, tokens] is added to the attention logits."""
        batch, tokens, width = x.shape
        projected = self.query_key_value(self.attention_norm(x))
        heads = projected.view(batch, tokens, 3 * self.heads, -1).transpose(1, 2)
        query, key, value = heads.split(self.heads, dim=1)
        # Plain operators, as a fused one is taken apart into twice as many when it is exported.
        attention = (query @ key.transpose(2, 3) * (width // self.heads) ** -0.5 + bias).softmax(-1)
        attended = (attention.to(value.dtype) @ value).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.dropout(self.attention_output(attended))
        output: Tensor = x + self.dropout(self.feed_forward(x))
        return output


class Readout(nn.Module):
    """Token features from states that the classifier computes anyway: the first, a middle and the last one."""

    def __init__(self, classifier: Classifier, config: CompressorConfig) -> None:
        super().__init__()
        layers, size = classifier.num_layers, classifier.hidden_size
        self.picked = sorted({0, (layers + 1) // 2, layers})
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in self.picked)
        self.project = nn.Linear(size * len(self.picked), config.width)
        self.summary = nn.Linear(size, config.width)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return features [batch, tokens, width] of states [batch, tokens, hidden_size]."""
        parts = [norm(states[layer]) for norm, layer in zip(self.norms, self.picked, strict=True)]
        features: Tensor = self.project(torch.cat(parts, -1)) + self.summary(states[-1][:, 0]).unsqueeze(1)
        return features


class Copy(nn.Module):
    """Token features from a copy of the classifier's encoder, fine-tuned for scoring: one more pass."""

    def __init__(self, classifier: Classifier, config: CompressorConfig) -> None:
        super().__init__()
        self.encoder = EncoderCopy(classifier)
        self.readout = Readout(classifier, config)

    def forward(self, embeddings: Tensor, attention_mask: Tensor, type_ids: Tensor | None) -> Tensor:
        """Return features [batch, tokens, width] of word embeddings [batch, tokens, embedding_size]."""
        features: Tensor = self.readout(self.encoder(embeddings, attention_mask, type_ids))
        return features


@dataclass(frozen=True)
class Bottleneck:
    """What the noisy bottleneck of the paper objective does to each token.

    Attributes
    ----------
    attention : Tensor, shape [batch, tokens]
        Weights that sum to 1 over the scored tokens.
    keep : Tensor, shape [batch, tokens]
        Share of the representation that passes; the rest is noise.
    information : Tensor, shape [batch, tokens]
        What passes, in nats, averaged over the hidden size.
    """

    attention: Tensor
    keep: Tensor
    information: Tensor


class InformationScore(nn.Module):
    """Scores of the paper objective: log of the information, in nats, that passes a Gaussian bottleneck.

    Attributes
    ----------
    mean, deviation : Tensor, shape [hidden_size]
        Statistics of the learner's last states over the corpus, from which the noise is drawn.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, classifier: Classifier, config: CompressorConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.width, config.width)
        self.attention = nn.Linear(config.width, 1, bias=False)
        self.keep = nn.Linear(config.width, 1)
        self.predict = nn.Linear(classifier.hidden_size, classifier.num_labels)
        self.register_buffer("mean", torch.zeros(classifier.hidden_size))
        self.register_buffer("deviation", torch.ones(classifier.hidden_size))

    def bottleneck(self, features: Tensor, states: Tensor, scorable: Tensor) -> Bottleneck:
        """Return the bottleneck of states [batch, tokens, hidden_size], set by features [batch, tokens, width]."""
        hidden = self.hidden(features).tanh()
        attention = masked_softmax(self.attention(hidden).squeeze(-1), scorable)
        keep = self.keep(hidden).squeeze(-1).sigmoid().clamp(max=MAX_KEEP)
        information = gaussian_information(states, keep, self.mean, self.deviation).mean(-1)
        return Bottleneck(attention, keep, information)

    def forward(self, features: Tensor, states: Tensor, scorable: Tensor) -> Tensor:
        """Return scores [batch, tokens] of features [batch, tokens, width] and states [batch, tokens, hidden_size]."""
        return self.bottleneck(features, states, scorable).information.clamp(min=1e-12).log()


class Compressor(nn.Module):
    """Score every token of a text from the pass of a classifier.

    Parameters
    ----------
    classifier : Classifier
        The learner; its sizes shape the layers, and `Copy` starts from its weights.
    config : CompressorConfig

    Attributes
    ----------
    reference : Tensor, shape [classes]
        Mean prediction on fully masked texts, to which the class scores add.
    """

    reference: Tensor

    def __init__(self, classifier: Classifier, config: CompressorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Readout | Copy = (Copy if config.backbone == "copy" else Readout)(classifier, config)
        self.condition = nn.Linear(classifier.num_labels, config.width, bias=False)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.dropout) for _ in range(config.depth))
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)
        self.scorer = InformationScore(classifier, config) if config.objective == "paper" else None
        self.class_scorer = nn.Linear(config.width, classifier.num_labels, bias=False)
        self.exclusive = classifier.task != MULTI_LABEL
        uniform = torch.full((classifier.num_labels,), 1 / classifier.num_labels)
        self.register_buffer("reference", uniform)

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""
        return self.condition.weight.dtype

    def features(
        self,
        pass_: ClassifierOutput,
        probabilities: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Return features [batch, tokens, width] of one pass of the classifier."""
        if isinstance(self.backbone, Copy):
            x = self.backbone(pass_.embeddings, attention_mask, token_type_ids)
        else:
            x = self.backbone(pass_.states)
        x = self.dropout(x + self.condition(probabilities - self.reference).unsqueeze(1))
        bias = x.new_zeros(()).masked_fill(~attention_mask[:, None, None, :].bool(), torch.finfo(x.dtype).min)
        for block in self.blocks:
            x = block(x, bias)
        features: Tensor = self.norm(x)
        return features

    def forward(
        self,
        pass_: ClassifierOutput,
        probabilities: Tensor,
        attention_mask: Tensor,
        scorable: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> CompressorOutput:
        """Score the tokens of one pass.

        Parameters
        ----------
        pass_ : ClassifierOutput
            Embeddings and states of the learner.
        probabilities : Tensor, shape [batch, classes]
            Its prediction.
        attention_mask, scorable : Tensor, shape [batch, tokens]
            1 at tokens, 0 at padding; True at the tokens to score.
        token_type_ids : Tensor, shape [batch, tokens], optional
            Segments, which the copy backbone reads.
        """
        features = self.features(pass_, probabilities, attention_mask, token_type_ids)
        return self.score(features, pass_, probabilities, scorable)

    def score(
        self, features: Tensor, pass_: ClassifierOutput, probabilities: Tensor, scorable: Tensor
    ) -> CompressorOutput:
        """Score the tokens by their features [batch, tokens, width]; other parameters as for `forward`.

        The class-free scores of the faithful objective are the parts of the likeliest class, up to a constant.
        """
        parts = self.class_scorer(features)
        if self.exclusive:  # what one class gains the others lose
            parts = parts - parts.mean(-1, keepdim=True)
        parts = parts.masked_fill(~scorable.unsqueeze(-1), 0)
        if self.scorer is None:
            likeliest = probabilities.argmax(-1)[:, None, None].expand(-1, parts.shape[1], 1)
            scores = parts.gather(2, likeliest).squeeze(2) / TEMPERATURE
        else:
            scores = self.scorer(features, pass_.states[-1], scorable)
        return CompressorOutput(
            scores.masked_fill(~scorable, 0),
            masked_softmax(scores, scorable),
            complete(parts, probabilities - self.reference, scorable),
        )


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of scores [batch, tokens] over the tokens in the mask, exactly 0 elsewhere, also in empty rows."""
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0)


def complete(parts: Tensor, total: Tensor, scorable: Tensor) -> Tensor:
    """Spread what is missing evenly over the scored tokens, so that parts add up to the total.

    The additive efficient normalisation of Ruiz, Valenciano and Zarzuelo (1998), as in FastSHAP (Jethani, Sudarshan,
    Covert, Lee and Ranganath, ICLR 2022).

    Parameters
    ----------
    parts : Tensor, shape [batch, tokens, classes]
        0 at tokens that are not scored.
    total : Tensor, shape [batch, classes]
    scorable : Tensor, shape [batch, tokens]
    """
    weight = scorable.to(parts.dtype)
    missing = (total - parts.sum(1)) / weight.sum(1, keepdim=True).clamp(min=1)
    return parts + weight.unsqueeze(-1) * missing.unsqueeze(1)
