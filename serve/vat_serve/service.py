"""From requests to answers, for any server: a batch of mixed requests in, one answer for each out."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vat_explain.assemble import WindowScores, resolve_target
from vat_explain.errors import InputError, TargetError
from vat_serve.backends import Backend, load_backend
from vat_serve.results import Job, write_result
from vat_serve.schema import PREDICTED, SCHEMA_VERSION, Call, Item, RequestError, quoted, read_body, read_call
from vat_serve.settings import Settings

logger = logging.getLogger(__name__)

PHRASES = {200: "OK", 400: "Bad Request", 413: "Content Too Large", 500: "Internal Server Error"}
"""Status codes of answers and their phrases; never anything that a client has sent."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Request:
    """What a client sent.

    Attributes
    ----------
    body : object
        Bytes, text or parsed JSON.
    content_type : str
    explains : bool
        Whether it was sent to an address for explanations.
    """

    body: object
    content_type: str = ""
    explains: bool = False


@dataclass(frozen=True)
class Answer:
    """What the client gets, and what is counted.

    Attributes
    ----------
    status : int
        A key of `PHRASES`.
    body : bytes
        One JSON document in UTF-8.
    texts, explained, tokens : int
        How many texts were answered, how many of them were explained, and tokens in all.
    windowed : int
        Texts that were read in several windows, being longer than the model takes at once.
    """

    status: int
    body: bytes
    texts: int = 0
    explained: int = 0
    tokens: int = 0
    windowed: int = 0


class Service:
    """Answer requests with a model.

    Parameters
    ----------
    backend : Backend
    settings : Settings
    name, version : str
        What answers call the model.
    """

    def __init__(self, backend: Backend, settings: Settings, name: str = "model", version: str = "1.0") -> None:
        self._backend = backend
        self._settings = settings
        self.model = {
            "name": name,
            "version": version,
            "bundle": backend.origin.provenance["bundle"],
            "backend": backend.name,
        }

    @classmethod
    def load(
        cls,
        directory: Path,
        settings: Mapping[str, Any] | None = None,
        *,
        name: str = "model",
        version: str = "1.0",
        device: str = "cpu",
    ) -> Service:
        """Load the model of an unpacked archive.

        Parameters
        ----------
        directory : Path
        settings : mapping, optional
            The section ``vat`` of its model-config.yaml.
        name, version : str
        device : str
            For torch.

        Raises
        ------
        VatExplainError
            If there is no model, it cannot be loaded, or a setting is wrong.
        """
        chosen = Settings.from_dict(settings)
        return cls(load_backend(directory, device, chosen), chosen, name, version)

    @property
    def threads(self) -> int:
        """Threads that one worker should use."""
        return self._settings.threads

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer each request by itself, from one pass over the texts of all of them.

        A request that cannot be answered gets an answer that says why and does not touch the others.
        """
        read = [_attempt(self._read, request) for request in requests]
        self._run([job for entry in read if not isinstance(entry, RequestError) for job in entry[1]])
        return [self._write(entry) for entry in read]

    def _read(self, request: Request) -> tuple[Call, list[Job]]:
        body = read_body(request.body, request.content_type)
        call = read_call(body, explains=request.explains, max_texts=self._settings.max_texts)
        self._check_characters(call)
        jobs = [self._prepare(item, number, len(call.items)) for number, item in enumerate(call.items)]
        if (cost := sum(map(_cost, jobs))) > (limit := self._settings.max_tokens):
            raise RequestError(
                f"the texts make {cost} tokens in their windows, and {limit} are allowed; shorten or split them",
                "too_large",
                413,
            )
        compared = sum(_cost(job) for job in jobs if job.item.explain and job.item.method != "vat")
        if compared > (limit := self._settings.max_comparison_tokens):
            raise RequestError(
                f"methods other than vat explain at most {limit} tokens at once here, and these are {compared}; "
                "send shorter or fewer texts",
                "too_large",
                413,
            )
        return call, jobs

    def _check_characters(self, call: Call) -> None:
        characters = sum(len(item.text) + len(item.text_pair or "") for item in call.items)
        if characters > (limit := self._settings.max_characters):
            raise RequestError(
                f"the body holds {characters} characters, and {limit} are allowed; split it", "too_large", 413
            )

    def _prepare(self, item: Item, number: int, of: int) -> Job:
        where = f"item {number}: " if of > 1 else ""
        if item.explain and item.method != "vat" and item.method not in self._backend.methods:
            known = ", ".join(["vat", *self._backend.methods])
            hint = "; an archive made with the torch backend has others" if self._backend.name == "onnx" else ""
            raise RequestError(
                f"{where}there is no method {quoted(item.method)} here, only {known}{hint}", "unknown_method"
            )
        labels = self._backend.origin.labels
        try:
            target = None if item.target is PREDICTED else resolve_target(item.target, labels)  # type: ignore[arg-type]
        except TargetError:
            known = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
            raise RequestError(
                f"{where}there is no class {quoted(item.target)}; there are {known}", "unknown_target"
            ) from None
        try:
            encoded = self._backend.encoder.encode(item.text, item.text_pair)
        except InputError as error:
            raise RequestError(where + str(error), "invalid_text") from None
        return Job(item, encoded, target)

    def _run(self, jobs: list[Job]) -> None:
        """Fill in scores, from one pass: with explanations if any text wants one, otherwise without."""
        explains = any(job.item.explain and job.item.method == "vat" for job in jobs)
        _isolated(self._score if explains else self._predict, jobs)
        for method in self._backend.methods:
            chosen = [job for job in jobs if job.item.explain and job.item.method == method and not job.failed]
            _isolated(partial(self._compare, method), chosen)

    def _score(self, jobs: list[Job]) -> None:
        for job, scores in zip(jobs, self._backend.score([job.encoded for job in jobs]), strict=True):
            job.scores = scores

    def _predict(self, jobs: list[Job]) -> None:
        nothing = np.zeros(0)
        for job, windows in zip(jobs, self._backend.predict([job.encoded for job in jobs]), strict=True):
            job.scores = [WindowScores(probabilities, nothing) for probabilities in windows]

    def _compare(self, method: str, jobs: list[Job]) -> None:
        targets = [int(job.probabilities.argmax()) if job.target is None else job.target for job in jobs]
        found = self._backend.compare(method, [job.encoded for job in jobs], targets)
        for job, target, scores in zip(jobs, targets, found, strict=True):
            job.target = target if self._backend.methods[method] else None
            job.compared = scores

    def _write(self, entry: tuple[Call, list[Job]] | RequestError) -> Answer:
        if isinstance(entry, RequestError):
            return _refusal(entry)
        call, jobs = entry
        try:
            if any(job.failed for job in jobs):
                return _refusal(_INTERNAL)
            results = [write_result(job, self._backend.origin, self.model) for job in jobs]
            answer = call.answer(results, self.model)
            body = json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
        except Exception:  # nothing that goes wrong here may reach the other requests
            logger.exception("an answer could not be written")
            return _refusal(_INTERNAL)
        if len(body) > self._settings.max_answer_bytes:
            return _refusal(_TOO_LONG)
        return Answer(
            200,
            body,
            texts=len(jobs),
            explained=sum(job.item.explain for job in jobs),
            tokens=sum(len(job.encoded.tokens) for job in jobs),
            windowed=sum(len(job.encoded.windows) > 1 for job in jobs),
        )


_INTERNAL = RequestError("the request could not be answered; the server's log says why", "internal", 500)
_TOO_LONG = RequestError(
    "the answer would be too long; send fewer or shorter texts, or ask for less with top_k and return", "too_large", 413
)


def _refusal(error: RequestError) -> Answer:
    body = {"schema_version": SCHEMA_VERSION, "error": str(error), "code": error.code}
    return Answer(error.status, json.dumps(body, ensure_ascii=False).encode(errors="replace"))


def _cost(job: Job) -> int:
    """Return the tokens that the model reads for a text, in all of its windows."""
    return sum(len(window) for window in job.encoded.windows)


def _attempt(run: Callable[[_In], _Out], value: _In) -> _Out | RequestError:
    try:
        return run(value)
    except RequestError as error:
        return error
    except Exception:  # nothing that goes wrong here may reach the other requests
        logger.exception("a request could not be read")
        return _INTERNAL


def _isolated(run: Callable[[list[Job]], None], jobs: list[Job]) -> None:
    """Run jobs together; if that fails, each by itself, so that only the one that is to blame fails."""
    if not jobs:
        return
    try:
        run(jobs)
    except Exception:
        logger.exception("a pass over %d texts failed", len(jobs))
        if len(jobs) == 1:
            jobs[0].failed = True
        else:
            for job in jobs:
                _isolated(run, [job])
