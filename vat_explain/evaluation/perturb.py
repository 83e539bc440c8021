"""What a classifier says about texts with some of their tokens taken away, in as few forward passes as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vat_explain.attribution.inputs import evaluation_mode
from vat_explain.errors import InputError
from vat_explain.models import Classifier
from vat_explain.text import BoolArray, Encoded, Window, collate, token_budget_batches

FloatArray = NDArray[np.float64]
Operator = Literal["mask", "delete"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)
Request = tuple[int, BoolArray]
Prepare = Callable[[Tensor, list[int]], Tensor]

MAX_TOKENS = 4096
"""Most token cells, padding counted, in one forward pass."""
_MASKED = -1  # stands for the mask embedding in rows of ids


def probabilities_under(
    classifier: Classifier,
    texts: Sequence[Encoded],
    requests: Sequence[Request],
    operator: Operator,
    max_tokens: int = MAX_TOKENS,
) -> FloatArray:
    """Predict texts of which only some tokens are kept.

    Requests that lead to the same row for the model share it. A text of several windows loses a token in all of them,
    and its prediction is the mean of their probabilities; the windows are not cut anew.

    Parameters
    ----------
    classifier : Classifier
    texts : sequence of Encoded
    requests : sequence of (int, ndarray of bool)
        Number of a text, and for each of its tokens whether it is kept, shape [tokens]. Special tokens always are.
    operator : {"mask", "delete"}
        Replace the other tokens by the mask token (by the classifier's placeholder where it has none), or leave them
        out of the row.
    max_tokens : int
        Most token cells in one forward pass.

    Returns
    -------
    ndarray of float64, shape [requests, classes]

    Raises
    ------
    InputError
        If the operator is unknown.
    """
    if operator not in OPERATORS:
        raise InputError(f"operator is {operator!r}; pass one of {', '.join(OPERATORS)}")
    rows: list[Window] = []
    number_of: dict[tuple[bytes, bytes], int] = {}
    used: list[int] = []
    for number, keep in requests:
        for window in texts[number].windows:
            row = _without(window, window.scorable & ~keep[window.position], operator, classifier.special.mask)
            key = (row.ids.tobytes(), row.type_ids.tobytes())
            if (place := number_of.setdefault(key, len(rows))) == len(rows):
                rows.append(row)
            used.append(place)
    if not rows:
        return np.zeros((0, classifier.num_labels))
    by_row = run_rows(classifier, rows, max_tokens, _mask_embedder(classifier))[used]
    windows = np.array([len(texts[number].windows) for number, _ in requests])
    return document_means(by_row, windows)


def document_means(by_window: FloatArray, windows: NDArray[np.integer]) -> FloatArray:
    """Average rows, ``[windows of all texts, classes]``, over the windows of each text, ``[texts, classes]``."""
    sums = np.add.reduceat(by_window, np.concatenate([[0], np.cumsum(windows)[:-1]]), axis=0)
    means: FloatArray = sums / windows[:, None]
    return means


def run_rows(
    classifier: Classifier, rows: Sequence[Window], max_tokens: int, prepare: Prepare | None = None
) -> FloatArray:
    """Predict rows in batches of similar length.

    Parameters
    ----------
    classifier : Classifier
    rows : sequence of Window
    max_tokens : int
        Most token cells in one forward pass.
    prepare : callable, optional
        From the ids of a batch, ``[batch, tokens]``, and the numbers of its rows to what the classifier is given.

    Returns
    -------
    ndarray of float64, shape [rows, classes]
    """
    device = classifier.embedding_layer.weight.device
    result = np.zeros((len(rows), classifier.num_labels))
    with evaluation_mode(classifier), torch.no_grad():
        for batch in token_budget_batches([len(row) for row in rows], max_tokens):
            arrays = collate([rows[i] for i in batch], classifier.special.pad)
            ids = torch.from_numpy(arrays["input_ids"]).to(device)
            mask = torch.from_numpy(arrays["attention_mask"]).to(device)
            types = torch.from_numpy(arrays["token_type_ids"]).to(device)
            logits = classifier(ids if prepare is None else prepare(ids, batch), mask, types)
            result[batch] = classifier.probabilities(logits.float()).double().cpu().numpy()
    return result


def _without(window: Window, gone: BoolArray, operator: Operator, mask_id: int | None) -> Window:
    if operator == "delete":
        stay = ~gone
        return Window(window.ids[stay], window.type_ids[stay], window.scorable[stay], window.position[stay])
    ids = np.where(gone, _MASKED if mask_id is None else mask_id, window.ids)
    return Window(ids, window.type_ids, window.scorable, window.position)


def _mask_embedder(classifier: Classifier) -> Prepare | None:
    """For models without a mask token: look up embeddings and put the placeholder where tokens are masked."""
    if classifier.special.mask is not None:
        return None
    return lambda ids, _: classifier.mask_inputs(classifier.embed(ids.clamp(min=0)), ids != _MASKED)
