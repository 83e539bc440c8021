"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Models are tiny, here and in the processes that tests start: threads would only wait for each other. Before torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests import tiny
from tests.opinions import LABELS, opinions


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished, random classifier with the classes of `LABELS`."""
    folder = tmp_path_factory.mktemp("models") / "classifier"
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    tiny.model("bert", 2, **names).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random encoder without a class head."""
    folder = tmp_path_factory.mktemp("models") / "encoder"
    tiny.model("bert").base_model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path) -> Path:
    """Folder of a bundle, fitted for a few steps; read it, never change it."""
    from vat_explain.data import Dataset, Example, LabelSet
    from vat_explain.fitting import FitConfig, fit
    from vat_explain.vat.trainer import LoopConfig

    rows = [Example(row["text"], None, (LABELS.index(row["label"]),), i) for i, row in enumerate(opinions(40), 1)]
    data = Dataset(tuple(rows), LabelSet(LABELS), "opinions", "0" * 64)
    config = FitConfig(loop=LoopConfig(quiet=True), rounds=1, learner_epochs=1, epochs=1, max_length=64)
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    fit(tiny_classifier, data, config=config, output=folder)
    return folder
