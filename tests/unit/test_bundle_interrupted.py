"""What a save leaves that is killed, or for which there is no room."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bundles
from vat_explain.bundle import load_bundle
from vat_explain.errors import BundleError

KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests import bundles
from vat_explain.bundle import load_bundle

target = Path(sys.argv[1])
models = [bundles.vat_model(seed=seed) for seed in (0, 1)]
began = time.monotonic()
digests = [bundles.save(target, model) for model in (models[1], models[0])]
duration = (time.monotonic() - began) / 2
chance = random.Random(5)
for _ in range(8):
    child = os.fork()
    if child == 0:
        while True:
            for model in models:
                bundles.save(target, model)
    time.sleep(chance.uniform(0.2, 3) * duration)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert load_bundle(target).digest in digests, "neither the old bundle nor the new"
    print("left over:", len(list(target.parent.iterdir())) - 1)
bundles.save(target, models[0])
print("in the end:", [entry.name for entry in target.parent.iterdir()])
"""


@contextlib.contextmanager
def files_limited(size: int) -> Iterator[None]:
    """Let writing fail, in every library, where a file grows over a size: as a full disk does, but without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """Mount a file system of so many bytes in memory, where the rights allow it."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_kills_in_the_middle_of_saving_leave_one_bundle_or_the_other(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "b"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(target)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left over:") == 8
    assert "left over: 1" in done.stdout, "no kill fell into a save"
    assert "in the end: ['b']" in done.stdout


@pytest.mark.parametrize("size", [0, 300, 2_000, 30_000, 60_000])
def test_failing_writes_leave_the_old_bundle(tmp_path: Path, size: int) -> None:
    digest = bundles.save(tmp_path / "b")
    model = bundles.vat_model(seed=1)
    with files_limited(size), pytest.raises(BundleError, match=r"cannot write .*unchanged"):
        bundles.save(tmp_path / "b", model)
    assert load_bundle(tmp_path / "b").digest == digest
    assert list(tmp_path.iterdir()) == [tmp_path / "b"]


@pytest.mark.parametrize("rest", [0, 4_096, 40_960, 122_880])
def test_a_full_disk_leaves_the_old_bundle(tmp_path: Path, rest: int) -> None:
    model = bundles.vat_model(seed=1)
    with small_disk(tmp_path / "disk", 1_000_000) as disk:
        digest = bundles.save(disk / "b")
        room = os.statvfs(disk)
        (disk / "other").write_bytes(b"0" * (room.f_bavail * room.f_frsize - rest))
        with pytest.raises(BundleError, match=r"cannot write .*unchanged"):
            bundles.save(disk / "b", model)
        assert load_bundle(disk / "b").digest == digest
        assert sorted(path.name for path in disk.iterdir()) == ["b", "other"]
        (disk / "other").unlink()
        digest = bundles.save(disk / "b", model)
        assert load_bundle(disk / "b").digest == digest
