"""What is exported: a model as a function of token ids and masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vat_explain.vat.model import VATModel


class ExportedGraph(nn.Module):
    """Prediction and explanation of token ids in one pass.

    Parameters
    ----------
    model : VATModel
        In float32.
    """

    ordinary: Tensor

    def __init__(self, model: VATModel) -> None:
        super().__init__()
        self.model = model
        ordinary = torch.ones(model.learner.embedding_layer.num_embeddings, dtype=torch.bool)
        ordinary[sorted(model.learner.special.fixed)] = False
        self.register_buffer("ordinary", ordinary)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict and explain.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : Tensor of int64, shape [batch, tokens]

        Returns
        -------
        logits : Tensor, shape [batch, classes]
        token_importance : Tensor, shape [batch, tokens]
        class_importance : Tensor, shape [batch, tokens, classes]
            Both 0 at special tokens and padding.
        """
        # Looked up, as ONNX has no operator for torch.isin.
        scorable = attention_mask.bool() & self.ordinary[input_ids]
        output = self.model(input_ids, attention_mask, token_type_ids, scorable)
        return output.logits, output.importance, output.class_importance


@contextmanager
def plain_attention(model: VATModel) -> Iterator[None]:
    """Let encoders compute attention by plain operators ("eager"): fewer nodes, and known to all architectures."""
    encoders = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    before = [encoder.config._attn_implementation for encoder in encoders]
    for encoder in encoders:
        encoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        for encoder, implementation in zip(encoders, before, strict=True):
            encoder.set_attn_implementation(implementation)
