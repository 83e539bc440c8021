"""The one place that knows HuggingFace models: keyword calls, logits, embeddings in, states out."""

from __future__ import annotations

import copy
import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from vat_explain.errors import InputError, ModelError
from vat_explain.text import SpecialTokens, TextEncoder

SINGLE_LABEL = "single_label"
MULTI_LABEL = "multi_label"
PROBLEM_TYPES = {SINGLE_LABEL: "single_label_classification", MULTI_LABEL: "multi_label_classification"}


@dataclass(frozen=True)
class ClassifierOutput:
    """What one pass of a classifier yields.

    Attributes
    ----------
    logits : Tensor, shape [batch, classes]
    embeddings : Tensor, shape [batch, tokens, embedding_size]
        Word embeddings that went in.
    states : tuple of Tensor, each [batch, tokens, hidden_size]
        Hidden states: the embedding output, then one for each layer.
    """

    logits: Tensor
    embeddings: Tensor
    states: tuple[Tensor, ...]


class Classifier(nn.Module):
    """A HuggingFace sequence classifier behind one interface.

    Parameters
    ----------
    model : PreTrainedModel
        A ``...ForSequenceClassification`` encoder that accepts ``inputs_embeds``.
    special : SpecialTokens
        Ids of the special tokens of its tokenizer.

    Raises
    ------
    ModelError
        If the model is a regression model, an encoder-decoder, or takes no embeddings.
    """

    placeholder: nn.Parameter | None

    def __init__(self, model: PreTrainedModel, special: SpecialTokens) -> None:
        super().__init__()
        config = model.config
        name = type(model).__name__
        if config.is_encoder_decoder or getattr(config, "is_decoder", False):
            raise ModelError(
                f"{name} has a decoder; vat-explain explains encoder classifiers such as BERT or ModernBERT"
            )
        parameters = inspect.signature(model.forward).parameters
        if "inputs_embeds" not in parameters or "attention_mask" not in parameters:
            raise ModelError(
                f"{name} takes no inputs_embeds and attention_mask, which a compressor needs; use an encoder that does"
            )
        if config.problem_type == "regression" or (config.num_labels == 1 and not is_multi_label(config)):
            raise ModelError(
                f"{name} is a regression model (num_labels={config.num_labels}); for one yes/no logit "
                "set config.problem_type = 'multi_label_classification'"
            )
        self.model = model
        self.special = special
        weight = self.embedding_layer.weight
        # Models without a mask token get a vector of their own that stands for "nothing here".
        mean = weight.detach().float().mean(0).to(weight.dtype) if special.mask is None else None
        self.placeholder = nn.Parameter(mean) if mean is not None else None

    @property
    def task(self) -> str:
        """``"single_label"`` or ``"multi_label"``."""
        return MULTI_LABEL if is_multi_label(self.model.config) else SINGLE_LABEL

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return label_names(self.model.config)

    @property
    def num_labels(self) -> int:
        """Number of logits."""
        return len(self.labels)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return int(self.model.config.hidden_size)

    @property
    def embedding_size(self) -> int:
        """Width of the word embeddings, which some models project to the hidden size."""
        return int(self.embedding_layer.weight.shape[1])

    @property
    def num_layers(self) -> int:
        """Number of layers; a pass yields one state more."""
        return int(self.model.config.num_hidden_layers)

    @property
    def max_length(self) -> int:
        """Most tokens, special ones counted, that fit into one row."""
        positions = int(getattr(self.model.config, "max_position_embeddings", 512))
        offset = _position_offset(self.model)
        return positions if offset is None else positions - offset - 1

    @property
    def reads_segments(self) -> bool:
        """Whether ``token_type_ids`` make a difference."""
        return _reads_segments(self.model)

    @property
    def embedding_layer(self) -> nn.Embedding:
        """The word embedding, as captum's ``Layer...`` methods need it."""
        layer = self.model.get_input_embeddings()
        assert isinstance(layer, nn.Embedding)
        return layer

    def forward(
        self, inputs: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return the logits alone; what captum's methods call.

        Parameters
        ----------
        inputs : Tensor
            Token ids, integer ``[batch, tokens]``, or word embeddings, floating point
            ``[batch, tokens, embedding_size]``.
        attention_mask, token_type_ids : Tensor, shape [batch, tokens], optional
            1 at tokens and 0 at padding; segment of each token. All ones and all zeros when left out.

        Returns
        -------
        Tensor, shape [batch, classes]
        """
        logits: Tensor = call_model(self.model, inputs, attention_mask, token_type_ids).logits
        return logits

    def run(
        self, inputs: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> ClassifierOutput:
        """Return logits, word embeddings and hidden states of one pass; parameters as for `forward`."""
        output = call_model(self.model, inputs, attention_mask, token_type_ids, states=True)
        embeddings = inputs if inputs.is_floating_point() else self.embed(inputs)
        return ClassifierOutput(output.logits, embeddings, tuple(output.hidden_states))

    def attentions(
        self, inputs: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the attention weights of each layer; parameters as for `forward`.

        Only the eager implementation of attention keeps its weights; it is switched on for this pass.

        Returns
        -------
        tuple of Tensor, each [batch, heads, tokens, tokens]
            How much the token of a row attends to the token of a column; rows sum to 1.

        Raises
        ------
        ModelError
            If the model yields no attention weights.
        """
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        try:
            weights = call_model(self.model, inputs, attention_mask, token_type_ids, attentions=True).attentions
        finally:
            self.model.set_attn_implementation(before)
        if not weights:
            raise ModelError(f"{type(self.model).__name__} yields no attention weights; choose another method")
        return tuple(weights)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Look up word embeddings, ``[batch, tokens]`` to ``[batch, tokens, embedding_size]``."""
        embeddings: Tensor = self.embedding_layer(input_ids)
        return embeddings

    def mask_embedding(self) -> Tensor:
        """Return the vector that stands for a token taken away, shape [embedding_size].

        It is the embedding of the mask token, or a learned placeholder for models that have none.
        """
        if self.placeholder is not None:
            return self.placeholder
        assert self.special.mask is not None
        return self.embedding_layer.weight[self.special.mask]

    def mask_inputs(self, embeddings: Tensor, keep: Tensor) -> Tensor:
        """Mix word embeddings with the mask embedding.

        Parameters
        ----------
        embeddings : Tensor, shape [batch, tokens, embedding_size]
        keep : Tensor, shape [batch, tokens]
            1 keeps a token, 0 replaces it; values between mix.

        Returns
        -------
        Tensor, shape [batch, tokens, embedding_size]
        """
        gate = keep.to(embeddings.dtype).unsqueeze(-1)
        return embeddings * gate + self.mask_embedding() * (1 - gate)

    def scorable(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Tell the tokens of the text from padding and special tokens; bool, shape [batch, tokens]."""
        fixed = torch.tensor(sorted(self.special.fixed), device=input_ids.device)
        mask = ~torch.isin(input_ids, fixed)
        return mask if attention_mask is None else mask & attention_mask.bool()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits into probabilities: softmax, or one sigmoid a class for multi-label models."""
        return logits.sigmoid() if self.task == MULTI_LABEL else logits.softmax(-1)

    @torch.no_grad()
    def verify(self) -> None:
        """Check on a small padded batch that ids and embeddings give the same logits.

        Raises
        ------
        ModelError
            If they do not, so that masking embeddings would not mean what it says.
        """
        rows = self.embedding_layer.weight.shape[0]
        free = [i for i in range(min(rows, 64)) if i not in self.special.fixed][:6] or [0]
        ids = torch.tensor([free, free[:-2] + [self.special.pad] * 2], device=self.embedding_layer.weight.device)
        mask = (ids != self.special.pad).long()
        was_training = self.training
        self.eval()
        difference = (self(ids, mask) - self(self.embed(ids), mask)).abs().max().item()
        self.train(was_training)
        if not difference < 1e-3:
            raise ModelError(
                f"{type(self.model).__name__} gives other logits for embeddings than for the ids they belong to "
                f"(difference {difference:.2g}); its inputs cannot be masked, so it cannot be explained"
            )


def is_multi_label(config: PreTrainedConfig) -> bool:
    """Tell whether a classifier gives each class a probability of its own."""
    return bool(config.problem_type == PROBLEM_TYPES[MULTI_LABEL])


def label_names(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the names of the classes in the order of the logits."""
    names: dict[int, str] = config.id2label  # type: ignore[assignment]  # JSON keys, made ints by HF
    return tuple(str(names[i]) for i in sorted(names))


class EncoderCopy(nn.Module):
    """A copy of a classifier's encoder that reads word embeddings and yields hidden states.

    Parameters
    ----------
    classifier : Classifier
        Its encoder is copied without word embeddings, pooler and class head, which nothing here would use.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        model: Any = copy.deepcopy(classifier.model.base_model).requires_grad_(True)
        model.set_input_embeddings(nn.Embedding(1, classifier.embedding_size).requires_grad_(False))
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        self.model: PreTrainedModel = model

    def forward(self, embeddings: Tensor, attention_mask: Tensor | None, type_ids: Tensor | None) -> tuple[Tensor, ...]:
        """Return the hidden states, as `ClassifierOutput.states`, of embeddings [batch, tokens, embedding_size]."""
        return tuple(call_model(self.model, embeddings, attention_mask, type_ids, states=True).hidden_states)


def call_model(
    model: PreTrainedModel,
    inputs: Tensor,
    attention_mask: Tensor | None,
    type_ids: Tensor | None,
    *,
    states: bool = False,
    attentions: bool = False,
) -> Any:
    """Call a HuggingFace encoder by keyword, with ids or embeddings, and return its output record."""
    keywords: dict[str, Any] = {"attention_mask": attention_mask, "return_dict": True, "output_hidden_states": states}
    if attentions:
        keywords["output_attentions"] = True
    if inputs.is_floating_point():
        keywords["inputs_embeds"] = inputs
        offset = _position_offset(model)
        if offset is not None and attention_mask is not None:
            mask = attention_mask.long()
            keywords["position_ids"] = mask.cumsum(1) * mask + offset
    else:
        keywords["input_ids"] = inputs
    if type_ids is not None and _reads_segments(model):
        keywords["token_type_ids"] = type_ids
    return model(**keywords)


def _reads_segments(model: PreTrainedModel) -> bool:
    return getattr(model.config, "type_vocab_size", 2) > 1 and _takes_type_ids(type(model))  # type: ignore[arg-type]  # classes are hashable


@functools.cache
def _takes_type_ids(kind: type[PreTrainedModel]) -> bool:
    return "token_type_ids" in inspect.signature(kind.forward).parameters


def _position_offset(model: PreTrainedModel) -> int | None:
    """Return the padding id from which a model counts positions as RoBERTa does, or None if it counts from 0."""
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    return embeddings.padding_idx if hasattr(embeddings, "create_position_ids_from_input_ids") else None


def text_encoder(
    tokenizer: PreTrainedTokenizerBase, classifier: Classifier, max_length: int | None = None, overlap: int = 64
) -> TextEncoder:
    """Make the text encoder that belongs to a classifier and its tokenizer.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast tokenizer; offsets come from it.
    classifier : Classifier
        Its position table bounds the windows.
    max_length : int, optional
        Shorter windows, in tokens, than tokenizer and classifier allow.
    overlap : int, default 64
        Tokens that neighbouring windows share.

    Raises
    ------
    ModelError
        If the tokenizer is not backed by the ``tokenizers`` library.
    InputError
        If `max_length` is too long or too short.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"{type(tokenizer).__name__} has no character offsets; save a fast tokenizer (tokenizer.json) instead"
        )
    longest = min(classifier.max_length, tokenizer.model_max_length)
    if max_length is not None and not 4 <= max_length <= longest:
        raise InputError(f"max_length={max_length} is not between 4 and {longest}, the most that this model takes")
    return TextEncoder(backend, classifier.special, max_length or longest, overlap)
