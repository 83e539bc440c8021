"""What the standard attributors share: arguments, batching, zeros off the text, progress."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor, nn

from vat_explain.attribution.inputs import TextBatch, evaluation_mode, read_batch
from vat_explain.errors import InputError
from vat_explain.models import Classifier
from vat_explain.progress import progress_bar

MAX_TOKENS = 8192
"""Most tokens, padding counted, in one forward pass unless the caller asks for another bound."""


class ExplainedOutput(nn.Module):
    """The function that is explained: ids or embeddings in, one number for each class out.

    Parameters
    ----------
    classifier : Classifier
        The model.
    probabilities : bool, default False
        Explain probabilities rather than logits.
    """

    def __init__(self, classifier: Classifier, probabilities: bool = False) -> None:
        super().__init__()
        self.classifier = classifier
        self.probabilities = probabilities

    def forward(
        self,
        inputs: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        scorable: Tensor | None = None,
    ) -> Tensor:
        """Return ``[batch, classes]``; `scorable` is taken, and left aside, because attributors are called with it."""
        logits: Tensor = self.classifier(inputs, attention_mask, token_type_ids)
        return self.classifier.probabilities(logits) if self.probabilities else logits


class TextAttribution(Attribution, ABC):
    """An attributor that gives each token of a text a score.

    Parameters
    ----------
    classifier : Classifier
        The model to explain.
    probabilities : bool, default False
        Explain probabilities rather than logits.
    max_tokens : int, default `MAX_TOKENS`
        Most tokens, padding counted, in one forward pass.

    Attributes
    ----------
    name : str
        What `get_name` returns.
    targeted : bool
        Whether a target of None stands for the predicted class; otherwise the scores are then class-free.
    sampled : bool
        Whether the scores depend on chance. Every row of a call starts from the same random state, so that a row gets
        the same scores alone and in any batch.
    """

    name: ClassVar[str]
    targeted: ClassVar[bool] = True
    sampled: ClassVar[bool] = False
    _multiplies_by_inputs: ClassVar[bool] = False
    # Rows are explained one by one, without their padding; otherwise as many at once as one pass may hold.
    _one_by_one: ClassVar[bool] = False
    # Rows that one row takes in a forward pass.
    _rows_each: ClassVar[int] = 1

    def __init__(self, classifier: Classifier, *, probabilities: bool = False, max_tokens: int = MAX_TOKENS) -> None:
        super().__init__(ExplainedOutput(classifier, probabilities))
        self.classifier = classifier
        self.max_tokens = max_tokens

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether scores are effects of the tokens as they are, not slopes or weights."""
        return self._multiplies_by_inputs

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return cls.name

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor]:
        """Score the tokens of each row.

        Parameters
        ----------
        inputs : Tensor or tuple of one Tensor
            Token ids, integer ``[batch, tokens]``, or word embeddings, floating point
            ``[batch, tokens, embedding_size]``.
        target : int, Tensor, tuple or list, optional
            The class to explain, for all rows or for each. None: the class predicted for each row, or no class in
            particular where the attributor is not `targeted`.
        additional_forward_args : Tensor or tuple, optional
            Attention mask, token types and, for embeddings other than those of the vocabulary, a mask that is 1 at
            the tokens to score; each ``[batch, tokens]``. The later ones may be left out, any may be None.
        internal_batch_size : int, optional
            Most rows in one forward pass.
        show_progress : bool, default False
            Show a progress bar on stderr.

        Returns
        -------
        Tensor, or tuple of one Tensor if `inputs` is one
            Scores of the shape of `inputs`, in units of the explained output; for embeddings they sum over the last
            axis to the score of the token. Exactly 0 at special tokens and padding.

        Raises
        ------
        InputError, InputTypeError, TargetError
            If an argument is not as described.
        """
        batch = read_batch(self.classifier, inputs, target, additional_forward_args)
        return self._attribute(inputs, batch, internal_batch_size, show_progress)

    def attribute_future(self) -> None:
        """Raise NotImplementedError: scores are not computed asynchronously."""
        raise NotImplementedError(f"{self.get_name()} computes no futures; call attribute")

    @abstractmethod
    def _score(self, batch: TextBatch, limit: int) -> Tensor:
        """Score rows whose targets are known, at most `limit` rows in a pass; [rows, tokens] or [..., embedding]."""

    def _attribute(
        self, inputs: object, batch: TextBatch, internal_batch_size: int | None, show_progress: bool
    ) -> Tensor | tuple[Tensor]:
        if internal_batch_size is not None and internal_batch_size < self._rows_each:
            raise InputError(
                f"internal_batch_size={internal_batch_size} is too small: {self.get_name()} takes at least "
                f"{self._rows_each} rows in a forward pass"
            )
        scores = torch.zeros_like(batch.inputs, dtype=self.classifier.embedding_layer.weight.dtype)
        step = 1 if self._one_by_one else self._limit(batch.tokens, internal_batch_size) // self._rows_each
        starts = range(0, len(batch), step)
        # One seed for all rows; drawing it moves the caller's generator on, so that the next call differs.
        seed = int(torch.randint(2**31, ())) if self.sampled else None
        bar = progress_bar(self.get_name(), len(starts), quiet=not show_progress)
        with evaluation_mode(self.classifier), torch.no_grad(), bar as progress:
            for start in starts:
                part = batch.row(start) if self._one_by_one else batch.rows(start, start + step)
                if self.targeted and part.targets is None:
                    part = replace(part, targets=self.forward_func(part.inputs, *part.arguments).argmax(-1))
                with seeded(seed):
                    found = self._score(part, self._limit(part.tokens, internal_batch_size)).detach()
                scores[start : start + step, : part.tokens] = self._fit(found, part)
                progress.advance()
        return (scores,) if isinstance(inputs, tuple) else scores

    def _limit(self, tokens: int, internal_batch_size: int | None) -> int:
        """Return how many rows of so many tokens one pass may hold."""
        affordable = max(self._rows_each, self.max_tokens // tokens)
        return affordable if internal_batch_size is None else min(affordable, internal_batch_size)

    def _fit(self, found: Tensor, batch: TextBatch) -> Tensor:
        """Bring scores to the shape of the inputs, with zeros off the text."""
        found = torch.where(batch.scorable if found.ndim == 2 else batch.scorable.unsqueeze(-1), found, 0)
        if batch.is_embedded and found.ndim == 2:
            return (found / self.classifier.embedding_size).unsqueeze(-1).expand_as(batch.inputs)
        return found.sum(-1) if not batch.is_embedded and found.ndim == 3 else found


class Random(TextAttribution):
    """Scores drawn uniformly from 0 to 1, anew for each text: what every other method has to beat."""

    name = "Random"
    targeted = False
    sampled = True
    _one_by_one = True

    def _score(self, batch: TextBatch, limit: int) -> Tensor:
        # All rows start from the same state: the text itself has to tell their draws apart.
        content = batch.embeddings(self.classifier).float().contiguous().cpu().numpy().tobytes()
        draw = torch.Generator().manual_seed(int(torch.randint(2**31, ())) ^ zlib.crc32(content))
        scores = torch.zeros(batch.scorable.shape, device=batch.inputs.device)
        scores[batch.scorable] = torch.rand(int(batch.scorable.sum()), generator=draw).to(scores.device)
        return scores


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed torch's and NumPy's generators for a while, then give both their state back; None leaves them alone."""
    if seed is None:
        yield
        return
    # captum draws from NumPy's global generator here and there, so torch.manual_seed alone would not reproduce it.
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
