"""`vat-explain serve` as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from tests import exported
from tests.serve.bodies import TEXT
from tests.serve.client import Client
from vat_explain.cli import app
from vat_export import OnnxExplainer
from vat_serve.package import package
from vat_serve.server import Ports

pytestmark = pytest.mark.serve


def test_an_empty_store_is_refused(torchserve, tmp_path):
    result = CliRunner().invoke(app, ["serve", str(tmp_path), "--port", str(Ports.free().inference)])
    assert result.exit_code == 2
    assert "holds no archive" in result.stderr


def test_two_archives_of_one_name_are_refused(torchserve, store, tmp_path):
    for name in ("tiny.mar", "tiny-old.mar"):
        shutil.copy(store / "tiny.mar", tmp_path / name)
    result = CliRunner().invoke(app, ["serve", str(tmp_path), "--port", str(Ports.free().inference)])
    assert result.exit_code == 2
    assert "both hold a model 'tiny'" in result.stderr


def start(store: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Run the command with all of its files below a folder."""
    command = [sys.executable, "-c", "from vat_explain.cli import main; main()", "serve", str(store), *options]
    environment = os.environ | {"TMPDIR": str(folder)}
    return subprocess.Popen([*command, "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


@pytest.mark.slow
def test_it_serves_int8_and_leaves_nothing_behind(torchserve, tmp_path):
    model = exported.export(int8=True).directory
    package(model, tmp_path / "store", "int8")
    port = Ports.free().inference
    options = ["--port", str(port), "--batch-size", "3", "--max-batch-delay", "7", "--json"]
    process = start(tmp_path / "store", tmp_path, *options)
    try:
        report = ""
        while not report.endswith("}\n") or report.count("{") != report.count("}"):
            line = process.stdout.readline().decode()
            assert line, process.stderr.read().decode()
            report += line
        facts = json.loads(report)
        key_file = Path(facts["key_file"])
        assert key_file.is_relative_to(tmp_path)
        client = Client(port, json.loads(key_file.read_text())["inference"]["key"])
        answer = client.post("/predictions/int8", TEXT).json
        client.close()
        [expected] = OnnxExplainer(model).explain([TEXT])
        assert answer["model"]["backend"] == "onnx"
        assert answer["score"] == pytest.approx(expected.scores[expected.label], abs=1e-5)
        scores = [word["score"] for word in answer["explanation"]["words"]]
        assert scores == pytest.approx([word.score for word in expected.words], abs=1e-5)
        assert f"management_address={facts['management']}" in (key_file.parent / "config.properties").read_text()
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3  # the launcher, java and a worker
        assert "batchSize: 3" in _settings(key_file.parent)
        process.send_signal(signal.SIGHUP)  # the terminal is closed
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)  # a second signal does not keep it from cleaning up
        assert process.wait(timeout=60) == 0
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
        assert not key_file.exists()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        process.stdout.close()
        process.stderr.close()


@pytest.mark.slow
def test_a_damaged_archive_stops_it_with_the_reason(torchserve, store, tmp_path):
    """TorchServe itself would say "healthy" and try again for minutes."""
    damaged = tmp_path / "store" / "tiny.mar"
    damaged.parent.mkdir()
    with zipfile.ZipFile(store / "tiny.mar") as good, zipfile.ZipFile(damaged, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, good.read(name) + (b" " if name.endswith("learner/config.json") else b""))
    process = start(damaged.parent, tmp_path, "--port", str(Ports.free().inference))
    try:
        _, told = process.communicate(timeout=150)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert process.returncode == 2
    assert "SHA-256" in told.decode()
    assert "Traceback" not in told.decode()
    left = [
        one.info for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])
    ]
    assert not left
    assert os.listdir(tmp_path) == ["store"]


def _settings(folder: Path) -> str:
    with zipfile.ZipFile(folder / "store" / "int8.mar") as archive:
        return archive.read("model-config.yaml").decode()
