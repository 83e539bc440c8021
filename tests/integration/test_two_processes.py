"""A fit shared by two processes, as `accelerate launch` starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.opinions import opinions, write_csv
from vat_explain.explainer import VATExplainer


@pytest.mark.slow
def test_two_processes_fit_one_bundle(tmp_path: Path, tiny_classifier: Path) -> None:
    data = write_csv(tmp_path / "train.csv", opinions(40))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = Path(sys.executable).parent
    launch = ["accelerate", "launch", "--cpu", "--num_machines", "1", "--num_processes", "2", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", str(port), str(programs / "vat-explain")]
    fit = ["fit", "--model", str(tiny_classifier), "--train", str(data), "--output", str(tmp_path / "bundle")]
    fit += ["--text-column", "text", "--label-column", "label", "--freeze-learner", "--epochs", "2", "--quiet"]
    done = subprocess.run(
        [str(programs / launch[0]), *launch[1:], *fit],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "train.csv"]
    [explanation] = VATExplainer.from_pretrained(tmp_path / "bundle").explain(["a good film"])
    assert explanation.label
    before, after = (load_file(path / "model.safetensors") for path in (tiny_classifier, tmp_path / "bundle/learner"))
    assert all((before[name] == after[name]).all() for name in before)
