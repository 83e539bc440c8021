"""Signs that scores are no explanations: collapse, labels hidden in the mask, indifference to the model.

What is computed here accuses, it does not acquit: a method that passes can still be wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vat_explain.attribution.base import TextAttribution
from vat_explain.attribution.inputs import TextBatch
from vat_explain.attribution.standard import Method
from vat_explain.errors import InputError
from vat_explain.evaluation.erasure import kendall_tau, prefix_probabilities, prefix_sizes, ranking
from vat_explain.evaluation.perturb import FloatArray, Operator
from vat_explain.evaluation.scoring import score_texts
from vat_explain.models import Classifier
from vat_explain.text import Encoded


def collapse_alarms(encoded: Encoded, scores: FloatArray) -> dict[str, float]:
    """Look for scores that say little about the text.

    Parameters
    ----------
    encoded : Encoded
    scores : ndarray, shape [tokens]

    Returns
    -------
    dict
        ``score_spread``: standard deviation of the scores over their largest absolute value, 0 for constant scores;
        ``position_correlation``: Kendall's tau with the place in the text, near 1 or -1 where place is all that counts
        (both NaN for a single token); ``punctuation_share``: share of the absolute scores on tokens without letter or
        digit.
    """
    scorable = encoded.scorable
    values = scores[scorable]
    size = np.abs(values)
    texts = (encoded.text, encoded.text_pair or "")
    pieces = [texts[segment][start:end] for (start, end), segment in zip(encoded.spans, encoded.segments, strict=True)]
    punctuation = np.array([not any(c.isalnum() for c in piece) for piece in pieces])[scorable]
    total = size.sum()
    spread = float(values.std() / size.max()) if total > 0 else 0.0
    return {
        "score_spread": spread if len(values) > 1 else float("nan"),
        "position_correlation": kendall_tau(values, np.arange(len(values))),
        "punctuation_share": float(size[punctuation].sum() / total) if total > 0 else 0.0,
    }


class TokenLexicon(TextAttribution):
    """A baseline that knows no text: each token gets the mean score of its type on other texts.

    A method that this table matches has learned word lists, not explanations.

    Parameters
    ----------
    classifier : Classifier
    texts : sequence of Encoded
        Texts that are not those to be explained.
    scores : sequence of ndarray, each [tokens]
        Scores that the method gave them.
    """

    name = "Token lexicon"
    targeted = False

    def __init__(self, classifier: Classifier, texts: Sequence[Encoded], scores: Sequence[FloatArray]) -> None:
        super().__init__(classifier)
        size = classifier.embedding_layer.num_embeddings
        sums, counts = np.zeros(size), np.zeros(size)
        for encoded, values in zip(texts, scores, strict=True):
            for window in encoded.windows:
                np.add.at(sums, window.ids[window.scorable], values[window.position[window.scorable]])
                np.add.at(counts, window.ids[window.scorable], 1)
        unknown = sums.sum() / max(counts.sum(), 1)
        self.table = torch.from_numpy(np.where(counts > 0, sums / np.maximum(counts, 1), unknown)).float()

    def _score(self, batch: TextBatch, limit: int) -> Tensor:
        if batch.is_embedded:
            raise InputError("a token lexicon looks up ids and was given embeddings; pass ids")
        return self.table.to(batch.inputs.device)[batch.inputs]


def token_lexicon(
    method: Method, classifier: Classifier, texts: Sequence[Encoded], labels: Sequence[int], seed: int = 0
) -> Method:
    """Make the lexicon baseline of a method from its scores on training texts.

    Parameters
    ----------
    method : Method
    classifier : Classifier
    texts : sequence of Encoded
        Training texts.
    labels : sequence of int
        Class to explain in each text; a lexicon of a method that explains classes mixes them.
    seed : int
        For methods that draw at random.

    Returns
    -------
    Method
        Named after the method, with ``-lexicon``; to be evaluated beside it.
    """
    scores = score_texts(method, classifier, texts, labels, seed=seed).scores
    return Method(f"{method.name}-lexicon", TokenLexicon(classifier, texts, scores), False)


def encoding_gap(
    learner: Classifier,
    judge: Classifier,
    texts: Sequence[Encoded],
    scores: Sequence[FloatArray],
    operator: Operator = "mask",
    seed: int = 0,
) -> FloatArray:
    """Compare how well explanations keep the prediction under the learner and under an independent judge.

    A compressor trained together with its learner can hide the label in *which* tokens it keeps. A judge trained on
    masks drawn at random (EVAL-X, Jethani et al. 2021) cannot read that code.

    Parameters
    ----------
    learner, judge : Classifier
        With the same classes and the same tokenizer.
    texts : sequence of Encoded
    scores : sequence of ndarray, each [tokens]
    operator : {"mask", "delete"}
    seed : int
        For ties.

    Returns
    -------
    ndarray, shape [texts]
        Sufficiency (AOPC) under the judge minus that under the learner, each model against its own prediction of the
        learner's class for the whole text; near 0 is good, positive is suspicious.
    """
    found = [_kept(model, texts, scores, operator, seed) for model in (judge, learner)]
    rows, labels = np.arange(len(texts)), found[1][1].argmax(1)
    falls = [whole[rows, labels] - kept.mean(1)[rows, labels] for kept, whole in found]
    gap: FloatArray = falls[0] - falls[1]
    return gap


def class_leak(
    judge: Classifier,
    texts: Sequence[Encoded],
    wrong: Sequence[int],
    scores: Sequence[FloatArray],
    operator: Operator = "mask",
    seed: int = 0,
) -> FloatArray:
    """Ask whether an explanation for a wrong class makes that class likely by itself (Jethani et al. 2023).

    Parameters
    ----------
    judge : Classifier
        Trained on masks drawn at random.
    texts : sequence of Encoded
    wrong : sequence of int
        For each text a class that it does not belong to.
    scores : sequence of ndarray, each [tokens]
        Scores for that class.
    operator : {"mask", "delete"}
    seed : int

    Returns
    -------
    ndarray, shape [texts]
        The judge's probability of the wrong class with only the first tokens of its explanation, mean over the bins,
        minus the same for as many tokens drawn at random.
    """
    rows = np.arange(len(texts))
    kept, _ = _kept(judge, texts, scores, operator, seed)
    chance, _ = _kept(judge, texts, [np.zeros(len(t.tokens)) for t in texts], operator, seed)
    leak: FloatArray = kept.mean(1)[rows, np.asarray(wrong)] - chance.mean(1)[rows, np.asarray(wrong)]
    return leak


def randomised(classifier: Classifier, seed: int = 0) -> Classifier:
    """Return a copy whose weights are shuffled within each tensor: same size and spread, nothing learned."""
    shuffled = copy.deepcopy(classifier)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in shuffled.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return shuffled


def randomisation_test(
    explain: Callable[[Classifier], Method],
    classifier: Classifier,
    texts: Sequence[Encoded],
    labels: Sequence[int],
    seed: int = 0,
) -> FloatArray:
    """Compare scores before and after the model's weights are randomised (Adebayo et al. 2018).

    Parameters
    ----------
    explain : callable
        From a model to the method that explains it; for VAT it fits the compressor again.
    classifier : Classifier
    texts : sequence of Encoded
    labels : sequence of int
        Class to explain in each text, before and after.
    seed : int

    Returns
    -------
    ndarray, shape [texts]
        Kendall's tau of the two; near 0 is good, near 1 says that the scores do not depend on the model.
    """
    scored = [
        score_texts(explain(model), model, texts, labels, seed=seed).scores
        for model in (classifier, randomised(classifier, seed))
    ]
    taus = []
    for encoded, before, after in zip(texts, *scored, strict=True):
        scorable = encoded.scorable
        taus.append(kendall_tau(before[scorable], after[scorable]))
    return np.array(taus)


def _kept(
    model: Classifier, texts: Sequence[Encoded], scores: Sequence[FloatArray], operator: Operator, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return probabilities with only the first tokens, [texts, bins, classes], and of the whole texts."""
    draw = np.random.default_rng(seed)
    orders = [
        (number, ranking(values, encoded.scorable, draw.permutation(len(values))))
        for number, (encoded, values) in enumerate(zip(texts, scores, strict=True))
    ]
    found = prefix_probabilities(model, texts, orders, operator, lambda n: np.append(prefix_sizes(n), n))
    kept = np.stack([prefixes.kept[prefixes.at(prefix_sizes(prefixes.tokens))] for prefixes in found])
    return kept, np.stack([prefixes.kept[-1] for prefixes in found])
