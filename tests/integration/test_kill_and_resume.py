"""A fit that is killed for real at a random step goes on to the weights of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests import tiny

SCRIPT = """
import sys
from pathlib import Path
from vat_explain.data import load_examples
from vat_explain.fitting import FitConfig, fit, known_labels
from vat_explain.vat.compressor import CompressorConfig
from vat_explain.vat.trainer import LoopConfig
folder, output = Path(sys.argv[1]), Path(sys.argv[2])
loop = LoopConfig(batch_size=4, checkpoint_seconds=0, quiet=True)
config = FitConfig(CompressorConfig(width=16, heads=2), loop=loop, rounds=2, learner_epochs=2, epochs=3, judge=True)
data = load_examples(folder / "train.jsonl", labels=known_labels(folder / "model"))
fit(folder / "model", data, config=config, output=output, resume=True)
"""


def start(folder, output, cwd=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(output)]
    return subprocess.Popen(command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process):
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    model = tiny.model(id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1})
    model.save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    generator = random.Random(0)
    with (folder / "train.jsonl").open("w") as stream:
        for number in range(40):
            label = ("bad", "good")[number % 2]
            text = " ".join([*generator.sample(tiny.WORDS[:12], 5), label, str(number)])
            stream.write(json.dumps({"text": text, "label": label}) + "\n")
    finish(start(folder, folder / "undisturbed"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kill", [0, 1])
def test_a_killed_fit_goes_on_to_the_same_weights(folder, tmp_path, kill):
    output = tmp_path / "bundle"
    checkpoints = tmp_path / ".bundle.training"
    generator = random.Random(kill)
    process = start(folder, output)
    deadline = time.monotonic() + 120
    while not (checkpoints / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(generator.uniform(0, 2))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the fit was over before it could be killed"
    assert not output.exists()
    finish(start(".", output, cwd=folder))  # the same model by another path
    assert not checkpoints.exists()
    for name in ("learner/model.safetensors", "judge/model.safetensors", "compressor.safetensors"):
        assert (output / name).read_bytes() == (folder / "undisturbed" / name).read_bytes()
