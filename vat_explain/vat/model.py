"""Learner and compressor in one module: a prediction and its explanation from one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vat_explain.models import Classifier
from vat_explain.vat.compressor import Compressor


@dataclass(frozen=True)
class VATOutput:
    """A prediction and the score of every token; the scores are 0 at tokens that are not scored.

    Attributes
    ----------
    logits, probabilities : Tensor, shape [batch, classes]
    scores : Tensor, shape [batch, tokens]
        Class-free, up to a constant of the text.
    importance : Tensor, shape [batch, tokens]
        Shares that sum to 1 over the scored tokens.
    class_importance : Tensor, shape [batch, tokens, classes]
        Signed parts of the probabilities; with the compressor's reference they add up to them.
    """

    logits: Tensor
    probabilities: Tensor
    scores: Tensor
    importance: Tensor
    class_importance: Tensor


class VATModel(nn.Module):
    """A learner and its compressor.

    Parameters
    ----------
    learner : Classifier
    compressor : Compressor
    """

    def __init__(self, learner: Classifier, compressor: Compressor) -> None:
        super().__init__()
        self.learner = learner
        self.compressor = compressor

    def forward(
        self,
        inputs: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        scorable: Tensor | None = None,
    ) -> VATOutput:
        """Predict and explain.

        Parameters
        ----------
        inputs : Tensor
            Token ids [batch, tokens] or word embeddings [batch, tokens, embedding_size].
        attention_mask, token_type_ids : Tensor, shape [batch, tokens], optional
        scorable : Tensor of bool, shape [batch, tokens], optional
            Tokens to score; found from the ids when left out, and all that the mask keeps for embeddings.
        """
        if attention_mask is None:
            attention_mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        if scorable is None:
            if inputs.is_floating_point():
                scorable = attention_mask.bool()
            else:
                scorable = self.learner.scorable(inputs, attention_mask)
        pass_ = self.learner.run(inputs, attention_mask, token_type_ids)
        probabilities = self.learner.probabilities(pass_.logits)
        seen, known, dtype = pass_, probabilities, self.compressor.dtype
        if known.dtype != dtype:  # a learner in half precision beside a compressor that is not
            seen = replace(pass_, states=tuple(state.to(dtype) for state in pass_.states))
            known = known.to(dtype)
        output = self.compressor(seen, known, attention_mask, scorable, token_type_ids)
        return VATOutput(pass_.logits, probabilities, output.scores, output.importance, output.class_importance)
