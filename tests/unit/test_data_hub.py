"""Examples from data sets that the library `datasets` knows, and what bad ones get."""

from __future__ import annotations

import pytest

from tests.unit.test_data import jsonl, refusal
from vat_explain.data import LabelSet, load_examples


@pytest.fixture
def dataset(monkeypatch, tmp_path):
    """Return a function that makes `datasets.load_dataset` know one dataset, and a list of what it was asked for."""
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[object, ...]] = []

    def serve(columns, features=None, known=("reviews",)):
        made = datasets.Dataset.from_dict(columns, features)

        def load_dataset(*name, split):
            asked.append((*name, split))
            if name != known:
                raise datasets.exceptions.DatasetNotFoundError(f"no {name}")
            if split == "none":
                raise ValueError("Unknown split 'none'.")
            return made

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return serve


def test_hub_datasets_bring_their_class_names(dataset):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg", "off"])}
    )
    asked = dataset({"text": ["a", "b"], "label": [1, 0]}, features, known=("reviews", "small"))
    data = load_examples("hf:reviews/small:test")
    assert asked == [("reviews/small", "test"), ("reviews", "small", "test")]
    assert data.labels == LabelSet(("pos", "neg", "off"))
    assert [(one.label, one.row) for one in data.examples] == [((1,), 1), ((0,), 2)]
    assert load_examples("hf:reviews/small", labels=LabelSet(("NEG", "POS", "OFF"))).examples[0].label == (0,)
    assert load_examples("hf:reviews/small", labels=LabelSet(("LABEL_0", "LABEL_1"))).examples[0].label == (1,)
    assert "unknown label 'neg'" in refusal("hf:reviews/small", labels=LabelSet(("good", "poor")))


def test_hub_datasets_may_have_several_labels_a_config_and_no_labels(dataset):
    import datasets

    several = datasets.Sequence(datasets.ClassLabel(names=["x", "y"]))
    features = datasets.Features({"text": datasets.Value("string"), "label": several})
    asked = dataset({"text": ["a", "b"], "label": [[1, 0], []]}, features, known=("me/reviews", "big"))
    data = load_examples("hf:me/reviews/big")
    assert asked == [("me/reviews", "big", "train")]
    assert data.labels == LabelSet(("x", "y"), multi_label=True)
    assert [one.label for one in data.examples] == [(0, 1), ()]


def test_hub_refusals_name_what_was_asked_for(dataset):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y"])})
    dataset({"text": ["a", "b"], "label": [0, -1]}, features)
    assert "'hf:other'" in refusal("hf:other")
    assert "Unknown split" in refusal("hf:reviews:none")
    assert "no column 'body'; there are 'text', 'label'" in refusal("hf:reviews", text_column="body")
    assert "row 2, column 'label': -1 is no class" in refusal("hf:reviews")


def test_hub_also_reads_a_local_folder(monkeypatch, tmp_path):
    config = pytest.importorskip("datasets.config")
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "folder"
    folder.mkdir()
    jsonl(folder, {"text": "a", "label": "x"}, {"text": "b", "label": "y"}, name="train.jsonl")
    assert [one.text for one in load_examples(f"hf:{folder}:train").examples] == ["a", "b"]
