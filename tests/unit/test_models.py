"""The adapter on a small random model of every architecture."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

from tests import tiny
from vat_explain.errors import InputError, ModelError
from vat_explain.loading import load_classifier, load_tokenizer
from vat_explain.models import Classifier, text_encoder
from vat_explain.text import SpecialTokens, collate

TEXTS = [("the film was not good but the plot was great", None), ("a dull story", None)]
PAIRS = [("the film was good", "i never saw a film"), ("a dull story", "bad plot and slow scene")]


def batch(classifier: Classifier, texts: list[tuple[str, str | None]]) -> dict[str, torch.Tensor]:
    encoder = text_encoder(tiny.tokenizer(), classifier)
    windows = [encoder.encode(*text).windows[0] for text in texts]
    return {name: torch.from_numpy(a) for name, a in collate(windows, classifier.special.pad).items()}


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["single", "pair"])
def test_ids_and_embeddings_give_the_same_logits_and_states(architecture, texts):
    classifier = tiny.classifier(architecture, 3)
    classifier.verify()
    b = batch(classifier, texts)
    arguments = (b["attention_mask"], b["token_type_ids"])
    with torch.no_grad():
        by_ids = classifier.run(b["input_ids"], *arguments)
        by_embeddings = classifier.run(classifier.embed(b["input_ids"]), *arguments)
        plain = classifier(b["input_ids"], *arguments)
        direct = classifier.model(
            input_ids=b["input_ids"],
            attention_mask=b["attention_mask"],
            **({"token_type_ids": b["token_type_ids"]} if architecture in ("bert", "electra") else {}),
        ).logits
    assert by_ids.logits.shape == (2, 3)
    assert len(by_ids.states) == classifier.num_layers + 1
    assert by_ids.embeddings.shape[-1] == classifier.embedding_size
    assert by_ids.states[-1].shape[-1] == classifier.hidden_size
    assert torch.equal(by_ids.logits, plain)
    assert torch.equal(plain, direct)
    torch.testing.assert_close(by_ids.logits, by_embeddings.logits, atol=1e-5, rtol=1e-5)
    for a, c in zip(by_ids.states, by_embeddings.states, strict=True):
        valid = b["attention_mask"].bool()
        torch.testing.assert_close(a[valid], c[valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_padding_does_not_change_a_row(architecture):
    classifier = tiny.classifier(architecture)
    b = batch(classifier, TEXTS)
    alone = batch(classifier, TEXTS[1:])
    with torch.no_grad():
        together = classifier(b["input_ids"], b["attention_mask"])[1]
        single = classifier(alone["input_ids"], alone["attention_mask"])[0]
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)


def test_left_padded_embeddings_of_a_roberta_count_positions_as_ids_do():
    classifier = tiny.classifier("roberta")
    ids = torch.tensor([[0, 0, 2, 7, 9, 3]])
    mask = (ids != 0).long()
    with torch.no_grad():
        torch.testing.assert_close(classifier(ids, mask), classifier(classifier.embed(ids), mask), atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_longest_row_fits(architecture):
    classifier = tiny.classifier(architecture)
    ids = torch.full((1, classifier.max_length), 7)
    with torch.no_grad():
        assert classifier(ids, torch.ones_like(ids)).isfinite().all()


def test_masking_everything_equals_a_row_of_mask_tokens():
    classifier = tiny.classifier()
    b = batch(classifier, TEXTS)
    scorable = classifier.scorable(b["input_ids"], b["attention_mask"])
    assert torch.equal(scorable, b["scorable"])
    ids = torch.where(scorable, classifier.special.mask, b["input_ids"])
    with torch.no_grad():
        masked = classifier.mask_inputs(classifier.embed(b["input_ids"]), ~scorable)
        torch.testing.assert_close(classifier(masked, b["attention_mask"]), classifier(ids, b["attention_mask"]))


def test_a_model_without_mask_token_gets_a_placeholder_that_learns():
    special = SpecialTokens.from_tokenizer(tiny.tokenizer())
    classifier = Classifier(tiny.model(), SpecialTokens(None, special.pad, special.fixed))
    embeddings = classifier.embed(torch.tensor([[2, 7, 9, 3]]))
    classifier(classifier.mask_inputs(embeddings, torch.tensor([[1, 0, 1, 1]]))).sum().backward()
    assert classifier.placeholder is not None
    assert classifier.placeholder.grad is not None
    assert classifier.placeholder.grad.abs().sum() > 0


def test_task_and_probabilities():
    single, multi = tiny.classifier(num_labels=3), tiny.classifier(num_labels=3, multi_label=True)
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert (single.task, multi.task) == ("single_label", "multi_label")
    torch.testing.assert_close(single.probabilities(logits).sum(), torch.tensor(1.0))
    torch.testing.assert_close(multi.probabilities(logits), logits.sigmoid())


def test_what_cannot_be_a_learner_is_refused_in_words():
    special = SpecialTokens.from_tokenizer(tiny.tokenizer())
    with pytest.raises(ModelError, match="regression"):
        Classifier(tiny.model(problem_type="regression"), special)
    gpt = GPT2ForSequenceClassification(GPT2Config(vocab_size=80, n_embd=8, n_layer=1, n_head=1, pad_token_id=0))
    with pytest.raises(ModelError, match="other logits for embeddings"):
        Classifier(gpt, special).verify()
    with pytest.raises(InputError, match="between 4 and 512"):
        text_encoder(tiny.tokenizer(), tiny.classifier(), max_length=1000)


def test_loading_reads_safetensors_and_tells_encoders_from_classifiers(tmp_path):
    tiny.tokenizer().save_pretrained(tmp_path / "finished")
    tiny.model(num_labels=3).save_pretrained(tmp_path / "finished")
    tiny.model().base_model.save_pretrained(tmp_path / "encoder")
    special = SpecialTokens.from_tokenizer(load_tokenizer(tmp_path / "finished"))
    assert load_classifier(tmp_path / "finished", special, ["x", "y"]).num_labels == 3
    with pytest.raises(ModelError, match="plain encoder"):
        load_classifier(tmp_path / "encoder", special)
    made = load_classifier(tmp_path / "encoder", special, ["x", "y"], "multi_label")
    assert (made.labels, made.task) == (("x", "y"), "multi_label")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_bytes((tmp_path / "finished" / "config.json").read_bytes())
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"not to be read")
    with pytest.raises(ModelError, match="safetensors only"):
        load_classifier(tmp_path / "pickled", special)
    with pytest.raises(ModelError, match="no tokenizer"):
        load_tokenizer(tmp_path / "nowhere")
