"""The engine ray gives the same rows as local, with few cores too, joins clusters, and survives being killed."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.export import test_batch as batch

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KILLS = int(os.environ.get("VAT_EXPLAIN_RAY_KILLS", "3"))
"""Kills of the Ray test; each takes some seconds, for every run has to join the cluster and start an actor."""


@pytest.fixture(scope="module")
def ray() -> Iterator[dict[str, str]]:
    """Environment of a Ray that keeps its files and its token to itself; skip on a desk without Ray, fail in CI."""
    if find_spec("ray") is None:
        report = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        report("not installed: ray; pip install 'vat-explain[ray]'")
    # Not below pytest's folder: the names of Ray's sockets would get too long.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield {
            "RAY_TMPDIR": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "OMP_NUM_THREADS": "1",
        }


@pytest.fixture(scope="module")
def cluster(ray: dict[str, str]) -> Iterator[dict[str, str]]:
    """A cluster of two cores, which outlives the runs that use it."""
    address = ("127.0.0.1", free_port())
    command = [Path(sys.executable).with_name("ray"), "start", "--block", "--head", "--num-cpus=2"]
    command += [f"--port={address[1]}", "--include-dashboard=false", "--object-store-memory=100000000"]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen([*map(str, command)], env=os.environ | ray, **options)
    try:
        wait_for(process, address)
        yield ray | {"RAY_ADDRESS": f"127.0.0.1:{address[1]}"}
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # asked to stop, Ray takes half a minute
        process.wait(60)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("", 0))
        port: int = opened.getsockname()[1]
        return port


def wait_for(process: subprocess.Popen[bytes], address: tuple[str, int]) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        with suppress(OSError):
            return socket.create_connection(address, 1).close()
        time.sleep(0.1)
    pytest.fail(f"ray start has not come up, exit code {process.poll()}")


def compare_with_local(tmp_path: Path, workers: int, environment: dict[str, str]) -> None:
    batch.write_parquet(tmp_path / "a.parquet", [*batch.texts(150), "", "a"])
    batch.run(tmp_path / "a.parquet", tmp_path / "local", part_rows=40)
    command = [sys.executable, "-c", batch.RUN, batch.model(), tmp_path / "a.parquet", tmp_path / "ray", "ray", workers]
    subprocess.run([*map(str, command)], check=True, timeout=120, env=os.environ | environment)
    assert batch.rows(tmp_path / "ray") == batch.rows(tmp_path / "local")
    assert batch.rejected(tmp_path / "ray") == batch.rejected(tmp_path / "local")


@pytest.mark.parametrize("workers", [1, 3])
def test_same_rows_as_local_also_with_more_actors_than_cores(
    tmp_path: Path, cluster: dict[str, str], workers: int
) -> None:
    compare_with_local(tmp_path, workers, cluster)


def test_starts_ray_where_no_cluster_is_named(tmp_path: Path, ray: dict[str, str]) -> None:
    left_over = Path(ray["RAY_TMPDIR"]) / "ray" / "ray_current_cluster"  # of a cluster that was killed
    left_over.parent.mkdir(exist_ok=True)
    left_over.write_text(f"127.0.0.1:{free_port()}")
    compare_with_local(tmp_path, 2, ray | {"RAY_ADDRESS": ""})


def test_a_cluster_that_does_not_answer_is_named_at_once(tmp_path: Path, ray: dict[str, str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    batch.write_parquet(tmp_path / "a.parquet", batch.texts(3))
    command = [Path(sys.executable).with_name("vat-explain"), "batch", batch.model(), "--input", tmp_path / "a.parquet"]
    command += ["--output", tmp_path / "out", "--engine", "ray"]
    done = subprocess.run(
        [*map(str, command)],
        env=os.environ | ray | {"RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"cannot join the Ray cluster at RAY_ADDRESS={address}" in done.stderr


def test_kills_lose_and_double_nothing(tmp_path: Path, cluster: dict[str, str]) -> None:
    batch.kill_until_done(tmp_path, "ray", 1, kills=KILLS, environment=cluster)
