"""Explain the parts of a job on this machine, in this process or in several."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from vat_explain.errors import DataError, VatExplainError
from vat_export.parts import Done, Settings, explain_part, load_same
from vat_export.runtime import OnnxExplainer
from vat_export.sources import Part

_explainer: OnnxExplainer | VatExplainError | None = None  # that of a worker process, or why it has none


def run_local(
    explainer: OnnxExplainer,
    model: Path,
    parts: Sequence[Part],
    settings: Settings,
    output: Path,
    workers: int,
    advance: Callable[[int], None],
) -> Iterator[Done]:
    """Explain parts; yield each when it is written.

    Parameters
    ----------
    explainer : OnnxExplainer
        Used by this process, if it does the work.
    model : Path
        Where worker processes load their own from.
    parts : sequence of Part
    settings : Settings
    output : Path
    workers : int
        Processes; 1 is this one.
    advance : callable
        Told how many rows have been done.
    """
    if workers == 1:
        for part in parts:
            yield explain_part(explainer, part, settings, output, advance)
        return
    rows = {part.number: part.rows for part in parts}
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (model, explainer.digest, receiver)
    with ProcessPoolExecutor(workers, context, _start, arguments) as pool, receiver:
        try:
            for future in as_completed([pool.submit(_work, part, settings, output) for part in parts]):
                done = future.result()
                advance(rows[done.part])
                yield done
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died, perhaps for lack of memory; go on with --resume and fewer workers"
            ) from error
        finally:
            sender.close()


def _start(model: Path, digest: str, receiver: Connection) -> None:
    global _explainer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its workers
    threading.Thread(target=_end_with_parent, args=(receiver,), daemon=True).start()
    try:
        _explainer = load_same(model, digest)
    except VatExplainError as error:
        _explainer = error


def _end_with_parent(receiver: Connection) -> None:
    """Stop at once when the other end is closed: the parent is done, gave up, or was killed."""
    receiver.poll(None)
    os._exit(1)


def _work(part: Part, settings: Settings, output: Path) -> Done:
    if isinstance(_explainer, VatExplainError):
        raise _explainer
    assert _explainer is not None
    return explain_part(_explainer, part, settings, output)
