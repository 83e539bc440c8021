"""Explain the parts of a job with the actors of a Ray cluster; its address comes from Ray's own environment."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vat_explain.errors import DataError, ModelError, VatExplainError
from vat_export.parts import Done, Settings, explain_part, load_same
from vat_export.runtime import OnnxExplainer
from vat_export.sources import Part

try:
    import ray
    import ray.data
    from ray.exceptions import RayError
except ImportError as error:
    raise ModelError("the engine 'ray' needs Ray; install it: pip install 'vat-explain[ray]'") from error

PATIENCE = 10
"""Seconds to wait for a cluster to answer. Ray itself tries for minutes."""


class _Worker:
    """An actor: it holds one session and explains one part after the other."""

    def __init__(self, model: str, digest: str, settings: dict[str, Any], output: str) -> None:
        self._explainer: OnnxExplainer | VatExplainError
        try:
            self._explainer = load_same(Path(model), digest)
        except VatExplainError as error:  # Ray would make a new actor, again and again
            self._explainer = error
        self._settings = Settings(**settings)
        self._output = Path(output)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """Explain a part, and return what `Done` holds, or the message of what went wrong."""
        try:
            if isinstance(self._explainer, VatExplainError):
                raise self._explainer
            done = explain_part(self._explainer, Part(**part), self._settings, self._output)
        except VatExplainError as error:
            return Done(int(part["number"]), 0, 0, "", "").to_dict() | {"problem": str(error)}
        return done.to_dict() | {"problem": ""}


def run_ray(
    explainer: OnnxExplainer,
    model: Path,
    parts: Sequence[Part],
    settings: Settings,
    output: Path,
    workers: int,
    advance: Callable[[int], None],
) -> Iterator[Done]:
    """Explain parts; yield each when it is written. Parameters as for `vat_export.local.run_local`.

    Each task is a whole part, which the actor reads and writes by itself: what passes through Ray is small, and an
    actor takes no part before it is free.
    """
    if not parts:
        return
    started = not ray.is_initialized()
    if started:
        _connect()
    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the terminal is ours; Ray's log file gets everything
            handler.setLevel(logging.ERROR)
    rows = {part.number: part.rows for part in parts}
    items = [asdict(part) for part in parts]
    tasks = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _Worker,  # type: ignore[arg-type]  # Ray takes a class too and calls its instances
        fn_constructor_args=(str(model), explainer.digest, asdict(settings), str(output)),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=_share_of_cpus(workers),
    )
    try:
        for result in tasks.iter_rows():
            problem = result.pop("problem")
            if problem:
                raise DataError(problem)
            done = Done(**result)
            advance(rows[done.part])
            yield done
    except RayError as error:
        raise DataError(f"Ray failed: {str(error).strip().splitlines()[-1]}; go on with --resume") from error
    finally:
        if started:
            ray.shutdown()


def _connect() -> None:
    """Join the cluster at RAY_ADDRESS, or start one on this machine.

    Left to itself, Ray would look for a cluster of this machine and wait many minutes for one that was killed.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    host, colon, port = address.rpartition(":")
    try:
        if colon and "/" not in host:
            socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (RayError, OSError, RuntimeError, ValueError) as error:  # Ray has no kind of its own for this
        where = "start Ray on this machine" if address == "local" else f"join the Ray cluster at RAY_ADDRESS={address}"
        raise DataError(
            f"cannot {where}: {str(error).strip().splitlines()[-1]}; check the address and that the cluster runs, and "
            "set RAY_AUTH_MODE=token if it asks for a token"
        ) from error


def _share_of_cpus(workers: int) -> float:
    """Return how much each actor reserves: one core, or less where they are few.

    One core stays free. Actors that reserve all of them leave none to Ray's own tasks, and the job would wait forever
    (ray-project/ray issue 44687).
    """
    cpus = float(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    return min(1.0, math.floor(max(cpus - 1, cpus / 2) / workers * 1000) / 1000)
