from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertTokenizer

from tests import bundles, tiny
from vat_explain.bundle import check_target, load_bundle, load_judge, save_bundle
from vat_explain.card import FORMAT_VERSION, Card, read_licence
from vat_explain.errors import BundleError
from vat_explain.loading import own_memory
from vat_explain.models import text_encoder

SPECIFICATION = Path(__file__).parents[2] / "docs" / "bundle-format.md"


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_architecture_comes_back_bit_identical(tmp_path: Path, architecture: str) -> None:
    model = bundles.vat_model(architecture, num_labels=3)
    digest = bundles.save(tmp_path / "b", model)
    loaded = load_bundle(tmp_path / "b")
    assert loaded.digest == digest
    assert loaded.card == bundles.card(model)
    assert not any(module.training for module in loaded.model.modules())
    assert bundles.same_outputs(model, loaded.model)
    text = "The film wasn't dull, but slow."
    encoders = [text_encoder(t, model.learner, 128) for t in (tiny.tokenizer(), loaded.tokenizer)]
    one, other = (encoder.encode(text) for encoder in encoders)
    assert one.tokens == other.tokens
    assert (one.spans == other.spans).all()


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "copy"},
        {"backbone": "copy", "architecture": "deberta-v2"},
        {"backbone": "copy", "architecture": "modernbert", "objective": "paper"},
        {"objective": "paper", "num_labels": 4},
        {"multi_label": True, "num_labels": 3},
        {"multi_label": True, "num_labels": 1},
        {"masked": False},
    ],
    ids=str,
)
def test_every_kind_comes_back_bit_identical(tmp_path: Path, options: dict[str, Any]) -> None:
    model = bundles.vat_model(**options)
    bundles.save(tmp_path / "b", model)
    loaded = load_bundle(tmp_path / "b").model
    assert bundles.same_outputs(model, loaded)
    assert torch.equal(loaded.learner.mask_embedding(), model.learner.mask_embedding())
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_the_dtype_stays(tmp_path: Path, architecture: str, dtype: torch.dtype) -> None:
    model = bundles.vat_model(architecture, backbone="copy").to(dtype)
    bundles.save(tmp_path / "b", model)
    loaded = load_bundle(tmp_path / "b").model
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert bundles.same_outputs(model, loaded)


def test_learner_and_compressor_may_differ_in_dtype(tmp_path: Path) -> None:
    model = bundles.vat_model()
    model.compressor.to(torch.float64)
    bundles.save(tmp_path / "b", model)
    loaded = load_bundle(tmp_path / "b").model
    assert {p.dtype for p in loaded.compressor.parameters()} == {torch.float64}
    assert {p.dtype for p in loaded.learner.parameters()} == {torch.float32}


def test_the_attention_implementation_stays(tmp_path: Path) -> None:
    model = bundles.vat_model()
    model.learner.model.set_attn_implementation("eager")
    bundles.save(tmp_path / "b", model)
    assert load_bundle(tmp_path / "b").model.learner.model.config._attn_implementation == "eager"


def test_the_learner_is_a_model_folder_for_transformers(tmp_path: Path) -> None:
    model = bundles.vat_model("roberta", num_labels=3)
    bundles.save(tmp_path / "b", model)
    learner = AutoModelForSequenceClassification.from_pretrained(tmp_path / "b" / "learner").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "b" / "learner")
    batch = tokenizer("a dull film", return_tensors="pt")
    assert batch["input_ids"].tolist() == [tiny.tokenizer()("a dull film")["input_ids"]]
    ids, mask = batch["input_ids"], batch["attention_mask"]
    own_memory(learner)
    assert torch.equal(learner(input_ids=ids, attention_mask=mask).logits, model.learner(ids, mask))


def test_a_judge_is_kept_apart(tmp_path: Path) -> None:
    model, judge = bundles.vat_model(masked=False), bundles.vat_model(masked=False, seed=3).learner
    assert judge.placeholder is not None
    torch.nn.init.normal_(judge.placeholder)
    bundles.save(tmp_path / "b", model, judge)
    assert bundles.same_outputs(model, load_bundle(tmp_path / "b").model)
    loaded = load_judge(tmp_path / "b")
    ids = torch.tensor([[2, 20, 30, 3]])
    assert torch.equal(loaded(ids), judge(ids))
    assert torch.equal(loaded.mask_embedding(), judge.mask_embedding())
    bundles.save(tmp_path / "b", model)
    with pytest.raises(BundleError, match="has no judge"):
        load_judge(tmp_path / "b")


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    model = bundles.vat_model("deberta-v2", backbone="copy")
    first = bundles.save(tmp_path / "one", model, model.learner)
    tiny.tokenizer()(["a", "a dull film"], padding=True, truncation=True, max_length=8)  # sets state in the tokenizer
    second = bundles.save(tmp_path / "two", model, model.learner)
    assert first == second
    assert bundles.contents(tmp_path / "one") == bundles.contents(tmp_path / "two")
    tokenizer = Tokenizer.from_file(str(tmp_path / "two" / "learner" / "tokenizer.json"))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path: Path, architecture: str) -> None:
    model = bundles.vat_model(architecture, backbone="copy", num_labels=3)
    first = bundles.save(tmp_path / "one", model, model.learner)
    loaded = load_bundle(tmp_path / "one")
    judge = load_judge(tmp_path / "one")
    assert save_bundle(tmp_path / "two", loaded.model, loaded.tokenizer, loaded.card, judge) == first
    assert bundles.contents(tmp_path / "one") == bundles.contents(tmp_path / "two")


def test_the_tokenizer_tells_the_texts_of_a_pair_apart(tmp_path: Path) -> None:
    tokenizer = BertTokenizer(vocab=tiny.tokenizer().get_vocab())
    model = bundles.vat_model()
    save_bundle(tmp_path / "b", model, tokenizer, bundles.card(model))
    expected = tokenizer("a dull film", "it is")
    assert sorted(expected) == ["attention_mask", "input_ids", "token_type_ids"]
    for loaded in (load_bundle(tmp_path / "b").tokenizer, AutoTokenizer.from_pretrained(tmp_path / "b" / "learner")):
        assert loaded("a dull film", "it is") == expected
        assert loaded.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_saving_and_loading_leave_model_and_random_state_alone(tmp_path: Path) -> None:
    model = bundles.vat_model(backbone="copy").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    bundles.save(tmp_path / "b", model)
    load_bundle(tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundles.save(tmp_path / "b")
    load_bundle(tmp_path / "b")
    assert capfd.readouterr() == ("", "")


def test_the_compressor_file_holds_its_own_names_and_the_placeholder(tmp_path: Path) -> None:
    model = bundles.vat_model(masked=False)
    bundles.save(tmp_path / "b", model)
    names = load_file(tmp_path / "b" / "compressor.safetensors").keys()
    assert names == model.compressor.state_dict().keys() | {"learner.placeholder"}


def test_card_json_begins_with_the_format(tmp_path: Path) -> None:
    bundles.save(tmp_path / "b")
    text = (tmp_path / "b" / "card.json").read_text()
    assert list(json.loads(text))[:3] == ["format_version", "readable_from", "files"]


def test_the_specification_names_every_file_and_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bundles.vat_model()
    digest = bundles.save(tmp_path / "my-bundle", model, model.learner)
    text = SPECIFICATION.read_text(encoding="utf-8")
    card = json.loads((tmp_path / "my-bundle" / "card.json").read_text())
    listed = re.findall(r"^\| `(\w+)` \|", text.split("## card.json")[1].split("\n## ")[0], re.MULTILINE)
    assert listed == list(card)
    assert all(f"`{name}`" in text for part in ("special", "compressor") for name in card[part])
    tree = text.split("```")[1]
    assert {line.split()[0] for line in tree.strip().splitlines()} == bundles.contents(tmp_path / "my-bundle").keys()
    assert f"version {FORMAT_VERSION}\n" in text.splitlines(keepends=True)[0]
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(text.split("```python\n")[1].split("```")[0], {})
    assert printed.getvalue() == f"bundle {digest}\n"


def test_an_older_bundle_an_empty_directory_and_a_link_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for seed in (0, 1):
        digest = bundles.save(tmp_path / "link", bundles.vat_model(seed=seed))
        assert load_bundle(tmp_path / "link").digest == digest
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_parents_are_made(tmp_path: Path) -> None:
    bundles.save(tmp_path / "a" / "b" / "c")
    load_bundle(tmp_path / "a" / "b" / "c")


@pytest.mark.parametrize("name", ["notes.txt", "card.json", "b/notes.txt"])
def test_other_files_are_never_deleted(tmp_path: Path, name: str) -> None:
    target = tmp_path / "b"
    if "/" in name:
        bundles.save(target)
    target.mkdir(exist_ok=True)
    (tmp_path / "b" / Path(name).name).write_text("{}")
    before = bundles.contents(target)
    for refuse in (check_target, bundles.save):
        with pytest.raises(BundleError, match=r"not part of a bundle.*name a new or empty directory"):
            refuse(target)
    assert bundles.contents(target) == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_and_the_current_directory_are_no_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="is a file"):
        bundles.save(tmp_path / "file")
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")
    with pytest.raises(BundleError, match="current directory"):
        check_target(".")


def test_a_card_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = bundles.vat_model()
    other = bundles.vat_model(objective="paper").compressor.config
    cases: list[tuple[dict[str, Any], str]] = [
        ({"labels": ("a", "b")}, "card.labels is"),
        ({"task": "multi_label"}, "card.task is"),
        ({"task": "regression"}, "card.task must be"),
        ({"max_length": 9999}, "card.max_length is 9999"),
        ({"max_length": 3}, "max_length must be"),
        ({"compressor": other}, "card.compressor is"),
        ({"training": {"path": Path()}}, "training is not plain JSON"),
        ({"training": {"loss": float("nan")}}, "training is not plain JSON"),
        ({"data": {"rows": {1: "a"}}}, "data is not plain JSON"),
        ({"training": {"name": "\ud800"}}, "training is not plain JSON"),
        ({"metrics": {"accuracy": "high"}}, "card.metrics must be"),
        ({"overlap": True}, "card.overlap must be of type int"),
    ]
    for changes, message in cases:
        with pytest.raises(BundleError, match=message):
            bundles.save(tmp_path / "b", model, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_two_dtypes_or_with_too_few_embeddings_is_refused(tmp_path: Path) -> None:
    model = bundles.vat_model()
    model.learner.model.classifier.to(torch.bfloat16)
    with pytest.raises(BundleError, match=r"mixes .*bfloat16.*\.to\(dtype\)"):
        bundles.save(tmp_path / "b", model)
    model = bundles.vat_model()
    model.learner.model.resize_token_embeddings(100)
    with pytest.raises(BundleError, match="resize_token_embeddings"):
        bundles.save(tmp_path / "b", model)
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    model = bundles.vat_model()
    model.learner.model.config.auto_map = {"AutoModelForSequenceClassification": "evil.Model"}
    with pytest.raises(BundleError, match="auto_map"):
        bundles.save(tmp_path / "b", model)
    assert list(tmp_path.iterdir()) == []


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    model = bundles.vat_model()

    class Slow:
        def __len__(self) -> int:
            return 10

    with pytest.raises(BundleError, match=r"Slow is no fast tokenizer"):
        save_bundle(tmp_path / "b", model, Slow(), bundles.card(model))  # type: ignore[arg-type]


def test_the_card_comes_back_from_its_dict() -> None:
    card = bundles.card(bundles.vat_model())
    assert Card.from_dict(json.loads(json.dumps(card.to_dict()))) == card


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\n", "apache-2.0"),
        ("---\nlicense: 'mit'\n---", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("# Model\nlicense: mit\n", None),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("---\nlicense:\n---\n", None),
        (None, None),
    ],
)
def test_the_licence_is_read_from_the_front_matter(tmp_path: Path, readme: str | None, licence: str | None) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_bytes(readme.encode())
    assert read_licence(tmp_path) == licence
