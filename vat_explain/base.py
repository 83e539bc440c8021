"""What every explainer does with texts, whatever runs its model; free of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from numpy.typing import NDArray

from vat_explain.assemble import FloatArray, Origin, WindowScores, assemble, resolve_target
from vat_explain.errors import InputError, InputTypeError
from vat_explain.explanation import Explanation
from vat_explain.text import Encoded, TextEncoder, collate, token_budget_batches

Text = str | tuple[str, str]
"""One text, or a pair of texts."""

BATCH_TOKENS = 8192
"""Most tokens, padding counted, that go through a model at once."""


class TextExplainer(ABC):
    """Texts in, `Explanation`s out: tokenise, run the model on batches of windows of similar length, assemble.

    Attributes
    ----------
    encoder : TextEncoder
        Turns texts into windows for the model.
    """

    encoder: TextEncoder

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """What all explanations of this model share."""

    @abstractmethod
    def run(self, batch: dict[str, NDArray[Any]]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Run the model on windows that `vat_explain.text.collate` has stacked.

        Returns
        -------
        tuple of ndarray
            Probabilities [batch, classes], importance [batch, tokens], class importance [batch, tokens, classes].
        """

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Tokenise texts, or pairs as tuples.

        Raises
        ------
        InputError, InputTypeError
            If a text cannot be explained; the message names its number.
        """
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise InputTypeError(
                f"texts is of type {type(texts).__name__}; pass a list of strings, or of tuples of two for pairs"
            )
        encoded = []
        for number, text in enumerate(texts):
            pair = text if isinstance(text, tuple) else (text,)
            if len(pair) not in (1, 2):
                raise InputTypeError(f"text {number} is a tuple of {len(pair)}; a pair has two texts")
            try:
                encoded.append(self.encoder.encode(*pair))
            except InputError as error:
                raise type(error)(f"text {number}: {error}") from None
        return encoded

    def explain(
        self,
        texts: Sequence[Text],
        target: str | int | None = None,
        *,
        ids: Sequence[str] | None = None,
        batch_tokens: int = BATCH_TOKENS,
        quiet: bool = True,
    ) -> list[Explanation]:
        """Predict and explain texts.

        Parameters
        ----------
        texts : sequence of str or (str, str)
            Of any length: those that do not fit the model are read in overlapping windows.
        target : str or int, optional
            Class to explain, by signed parts of its probability. None: class-free shares, which rank the tokens by what
            they do for the likeliest class.
        ids : sequence of str, optional
            Names of the texts, one each.
        batch_tokens : int
            Most tokens, padding counted, in one pass.
        quiet : bool
            Show no progress bar.

        Raises
        ------
        InputError, InputTypeError, TargetError
            If a text cannot be explained, or there is no such class.
        """
        encoded = self.encode(texts)
        if ids is not None and len(ids) != len(encoded):
            raise InputError(f"there are {len(ids)} ids for {len(encoded)} texts; pass one for each")
        origin = self.origin
        wanted = resolve_target(target, origin.labels)
        scores = self.score(encoded, batch_tokens=batch_tokens, quiet=quiet)
        return [
            assemble(text, windows, origin, wanted, None if ids is None else ids[number])
            for number, (text, windows) in enumerate(zip(encoded, scores, strict=True))
        ]

    def score(
        self, encoded: Sequence[Encoded], *, batch_tokens: int = BATCH_TOKENS, quiet: bool = True
    ) -> list[list[WindowScores]]:
        """Run the model over the windows of texts, those of similar length together."""
        places = [(text, window) for text, e in enumerate(encoded) for window in e.windows]
        found: dict[int, WindowScores] = {}
        with _bar(len(places), quiet=quiet) as bar:
            for rows in token_budget_batches([len(window) for _, window in places], batch_tokens):
                windows = [places[row][1] for row in rows]
                outputs = self.run(collate(windows, self.encoder.special.pad))
                for row, window, probabilities, importance, parts in zip(rows, windows, *outputs, strict=True):
                    found[row] = WindowScores(probabilities, importance[: len(window)], parts[: len(window)])
                if bar is not None:
                    bar.advance(len(rows))
        results: list[list[WindowScores]] = [[] for _ in encoded]
        for row, (text, _) in enumerate(places):
            results[text].append(found[row])
        return results


def _bar(total: int, *, quiet: bool) -> Any:
    """Show a progress bar; without one, its library is not needed."""
    if quiet:
        return nullcontext()
    from vat_explain.progress import progress_bar

    return progress_bar("explaining", total)
