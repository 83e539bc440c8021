"""Compressor and model: zeros, sums, independence of rows, every parameter trained."""

from __future__ import annotations

import pytest
import torch

from tests import tiny
from tests.unit.test_models import PAIRS, TEXTS, batch
from vat_explain.assemble import TEMPERATURE
from vat_explain.vat.compressor import Compressor, CompressorConfig
from vat_explain.vat.model import VATModel
from vat_explain.vat.objectives import (
    FaithfulObjective,
    LearnerObjective,
    PaperLearnerObjective,
    PaperObjective,
    Weights,
)


def vat_model(architecture: str = "bert", classes: int = 3, *, multi_label: bool = False, **config) -> VATModel:
    torch.manual_seed(0)
    learner = tiny.classifier(architecture, classes, multi_label=multi_label)
    return VATModel(learner, Compressor(learner, CompressorConfig(width=16, heads=2, **config))).eval()


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("backbone", ["readout", "copy"])
@pytest.mark.parametrize("objective", ["faithful", "paper"])
@torch.no_grad()
def test_one_pass_predicts_and_explains(architecture, backbone, objective):
    model = vat_model(architecture, backbone=backbone, objective=objective)
    for texts in (TEXTS, PAIRS):
        b = batch(model.learner, texts)
        output = model(b["input_ids"], b["attention_mask"], b["token_type_ids"])
        assert torch.equal(output.logits, model.learner(b["input_ids"], b["attention_mask"], b["token_type_ids"]))
        off = ~b["scorable"]
        for scores in (output.scores, output.importance, output.class_importance):
            assert (scores[off] == 0).all()
            assert scores.isfinite().all()
        torch.testing.assert_close(output.importance.sum(1), torch.ones(2))
        total = output.class_importance.sum(1) + model.compressor.reference
        torch.testing.assert_close(total, output.probabilities)
        embedded = model(model.learner.embed(b["input_ids"]), b["attention_mask"], b["token_type_ids"], b["scorable"])
        torch.testing.assert_close(embedded.importance, output.importance, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("multi_label", [False, True])
@torch.no_grad()
def test_class_free_scores_are_those_of_the_likeliest_class(multi_label):
    model = vat_model(classes=4, multi_label=multi_label)
    b = batch(model.learner, TEXTS)
    output = model(b["input_ids"], b["attention_mask"])
    for row, likeliest in enumerate(output.probabilities.argmax(-1).tolist()):
        scored = b["scorable"][row]
        parts = output.class_importance[row, scored, likeliest]
        scores = output.scores[row, scored] * TEMPERATURE
        torch.testing.assert_close(scores - scores.mean(), parts - parts.mean())
        torch.testing.assert_close(output.importance[row, scored], (parts / TEMPERATURE).softmax(-1))
    sums = output.class_importance.sum(-1).abs().max()
    assert sums > 0.1 if multi_label else sums < 1e-5  # what one class gains the others lose


@pytest.mark.parametrize("backbone", ["readout", "copy"])
@torch.no_grad()
def test_a_row_scores_the_same_alone_and_with_others(backbone):
    model = vat_model(backbone=backbone)
    b, alone = batch(model.learner, TEXTS), batch(model.learner, TEXTS[1:])
    together = model(b["input_ids"], b["attention_mask"])
    single = model(alone["input_ids"], alone["attention_mask"])
    length = alone["input_ids"].shape[1]
    torch.testing.assert_close(together.scores[1, :length], single.scores[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.class_importance[1, :length], single.class_importance[0], atol=1e-5, rtol=1e-5)


def loss_of(objective, model, *, multi_label=False):
    b = batch(model.learner, TEXTS)
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0]]) if multi_label else torch.tensor([0, 2])
    objective.train()
    objective.progress.fill_(1.0)
    return objective({**b, "labels": labels, "rows": torch.arange(2)})


@pytest.mark.parametrize("backbone", ["readout", "copy"])
@pytest.mark.parametrize("objective", ["faithful", "gates", "paper"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_every_parameter_of_the_compressor_gets_a_gradient_and_no_other(backbone, objective, multi_label):
    name = "paper" if objective == "paper" else "faithful"
    model = vat_model(backbone=backbone, objective=name, multi_label=multi_label)
    model.learner.requires_grad_(False)
    if objective == "paper":
        made = PaperObjective(model, Weights())
    else:
        made = FaithfulObjective(model, Weights(gates=3.0 * (objective == "gates")))
    loss = loss_of(made, model, multi_label=multi_label)
    loss["loss"].backward()
    dead = {name for name, p in model.compressor.named_parameters() if p.requires_grad and p.grad is None}
    assert not dead
    still = {
        name
        for name, p in model.compressor.named_parameters()
        if p.requires_grad and not p.grad.abs().sum() > 0 and "token_type" not in name and "key" not in name
    }
    # Moves the parts of all tokens alike, which neither their completed sums nor their shares feel: a gradient of 0, or
    # of rounding errors.
    if name == "faithful":
        still.discard("norm.bias")
        shift = model.compressor.norm.bias.grad
        torch.testing.assert_close(shift, torch.zeros_like(shift), atol=1e-5, rtol=0)
    assert not still
    assert all(p.grad is None for p in model.learner.parameters())
    assert not model.learner.training
    torch.testing.assert_close(loss["loss"].detach(), sum(v for name, v in loss.items() if name != "loss"))


def test_learner_objectives_train_the_learner():
    model = vat_model(objective="paper")
    guide = vat_model()
    for objective, m in (
        (LearnerObjective(model.learner), model),
        (LearnerObjective(guide.learner, 1.0, guide, whole=False), guide),
        (PaperLearnerObjective(model), model),
    ):
        m.zero_grad()
        loss_of(objective, m)["loss"].backward()
        assert all(p.grad is not None for n, p in m.learner.named_parameters() if "position" not in n)


@pytest.mark.parametrize(("copies", "whole", "rows"), [(0.0, True, 2), (0.5, True, 3), (1.0, False, 2)])
def test_a_learner_reads_every_row_whole_and_masked_copies_besides(copies, whole, rows):
    model = vat_model()
    seen = []
    model.learner.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    loss_of(LearnerObjective(model.learner, copies, whole=whole), model)
    assert [len(embeddings) for embeddings in seen] == [rows]
    texts = model.learner.embed(batch(model.learner, TEXTS)["input_ids"])
    assert all((seen[0] == text).all(-1).all(-1).any() for text in texts) == whole


def test_the_copy_has_no_word_embeddings_of_its_own():
    model = vat_model(backbone="copy")
    size = sum(p.numel() for p in model.compressor.backbone.encoder.parameters())
    assert size < sum(p.numel() for p in model.learner.model.base_model.parameters())
    assert "pooler" not in " ".join(name for name, _ in model.compressor.named_parameters())
