"""Scores of whole texts, from any method: windows in, one score a token out, with what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from vat_explain.assemble import joint_shares, merge_windows
from vat_explain.attribution.standard import Method
from vat_explain.errors import InputError
from vat_explain.evaluation.cost import measured
from vat_explain.evaluation.perturb import FloatArray
from vat_explain.explanation import ScoreUnit
from vat_explain.models import Classifier
from vat_explain.text import Encoded, Window, collate, token_budget_batches

BATCH_ROWS = 16
BATCH_TOKENS = 4096
_UNITS: dict[str, ScoreUnit] = {"vat": "share", "vat-class": "probability"}


@dataclass(frozen=True)
class Scored:
    """Scores of texts and their cost.

    Attributes
    ----------
    scores : list of ndarray, each [tokens of the text]
    forwards : float
        Tokens that went through the model over the tokens of the texts: passes for a text, where long texts count by
        their tokens.
    seconds : float
        For a text; mean over the texts.
    """

    scores: list[FloatArray]
    forwards: float
    seconds: float


@dataclass(frozen=True)
class WindowBatch:
    """Windows of texts as tensors.

    Attributes
    ----------
    ids, attention_mask, type_ids : Tensor of int64, shape [windows, tokens]
    rows : list of int
        Number of each window among the windows of all texts.
    texts : list of int
        Number of the text of each window.
    windows : list of Window
    """

    ids: torch.Tensor
    attention_mask: torch.Tensor
    type_ids: torch.Tensor
    rows: list[int]
    texts: list[int]
    windows: list[Window]


def window_batches(
    classifier: Classifier, texts: Sequence[Encoded], max_rows: int = BATCH_ROWS, max_tokens: int = BATCH_TOKENS
) -> list[WindowBatch]:
    """Put the windows of texts into batches of similar length."""
    device = classifier.embedding_layer.weight.device
    windows = [(number, window) for number, encoded in enumerate(texts) for window in encoded.windows]
    batches = []
    for rows in token_budget_batches([len(window) for _, window in windows], max_tokens, max_rows):
        arrays = collate([windows[row][1] for row in rows], classifier.special.pad)
        names = ("input_ids", "attention_mask", "token_type_ids")
        ids, mask, types = (torch.from_numpy(arrays[name]).to(device) for name in names)
        batches.append(
            WindowBatch(ids, mask, types, rows, [windows[r][0] for r in rows], [windows[r][1] for r in rows])
        )
    return batches


def score_texts(
    method: Method,
    classifier: Classifier,
    texts: Sequence[Encoded],
    labels: Sequence[int],
    *,
    seed: int = 0,
    max_rows: int = BATCH_ROWS,
    models: Sequence[nn.Module] = (),
) -> Scored:
    """Explain texts with one method; shares of texts of several windows by their parts, as an explainer does.

    Parameters
    ----------
    method : Method
    classifier : Classifier
        The model that is explained.
    texts : sequence of Encoded
    labels : sequence of int
        Class to explain in each text, for methods that explain classes.
    seed : int
        For methods that draw at random.
    max_rows : int
        Most windows in a batch.
    models : sequence of nn.Module
        Further modules whose forward passes count, such as the compressor of a bundle.

    Raises
    ------
    InputError
        If the method returns scores of another shape, or NaN or infinity.
    """
    unit = _UNITS.get(method.name, "score")
    single = sum(len(window) for encoded in texts for window in encoded.windows)
    long = [unit == "share" and len(encoded.windows) > 1 for encoded in texts]
    merged: dict[int, FloatArray] = {}
    forwards = seconds = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for joint in (False, True):
            numbers = [number for number in range(len(texts)) if long[number] == joint]
            part = [texts[number] for number in numbers]
            found: dict[int, FloatArray] = {}
            for batch in window_batches(classifier, part, max_rows):
                target = torch.tensor([labels[numbers[text]] for text in batch.texts], device=batch.ids.device)
                with measured([classifier, *models]) as cost:
                    scores = method.attribution.attribute(
                        batch.ids,
                        target=target if method.targeted or joint else None,
                        additional_forward_args=(batch.attention_mask, batch.type_ids),
                    )
                forwards += cost.tokens / single
                seconds += cost.seconds / len(texts)
                _check(scores, batch, method)
                values = scores.detach().double().cpu().numpy()
                found |= {
                    r: values[i, : len(w)] for i, (r, w) in enumerate(zip(batch.rows, batch.windows, strict=True))
                }
            row = 0
            for number, encoded in zip(numbers, part, strict=True):
                windows = [found[row + i] for i in range(len(encoded.windows))]
                row += len(windows)
                whole = merge_windows(encoded, windows, "probability" if joint else unit)
                merged[number] = joint_shares(encoded, whole) if joint else whole
    return Scored([merged[number] for number in range(len(texts))], forwards, seconds)


def _check(scores: torch.Tensor, batch: WindowBatch, method: Method) -> None:
    if scores.shape != batch.ids.shape or not scores.isfinite().all():
        raise InputError(
            f"method {method.name!r} gave scores of shape {list(scores.shape)} for ids of shape "
            f"{list(batch.ids.shape)}, or NaN or infinity among them; it must give one finite score for each id"
        )
