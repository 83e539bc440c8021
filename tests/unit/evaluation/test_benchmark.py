from __future__ import annotations

import csv
import io
import json
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from tests import tiny
from tests.unit.evaluation import linear
from tests.unit.evaluation.runs import FAST, examples, run, without_times
from vat_explain.attribution import standard
from vat_explain.attribution.base import Random, TextAttribution
from vat_explain.attribution.gradients import GradientL2
from vat_explain.attribution.standard import Method, standard_method
from vat_explain.attribution.vat import VATAttribution
from vat_explain.card import Card
from vat_explain.data import Example
from vat_explain.errors import DataError, InputError, ModelError
from vat_explain.evaluation import Settings, benchmark, evaluate
from vat_explain.evaluation.scoring import score_texts
from vat_explain.explainer import VATExplainer
from vat_explain.models import text_encoder
from vat_explain.vat.compressor import Compressor, CompressorConfig
from vat_explain.vat.model import VATModel


def explainer(backbone="readout", num_labels=2):
    learner = tiny.classifier("bert", num_labels)
    torch.manual_seed(1)
    config = CompressorConfig(backbone=backbone, width=16)
    card = Card(
        task=learner.task,
        labels=learner.labels,
        max_length=64,
        overlap=8,
        special=learner.special,
        compressor=config,
        training={},
        data={},
        metrics={},
        base_model={},
        versions={},
    )
    return VATExplainer(VATModel(learner, Compressor(learner, config)), tiny.tokenizer(), card)


def test_long_and_short_texts_get_the_shares_that_the_explainer_gives():
    model = explainer()
    model.encoder.max_length, model.encoder.overlap = 10, 3
    texts = [" ".join(tiny.WORDS[:count]) for count in (30, 4, 17)]
    explanations = model.explain(texts)
    assert [explanation.windows > 1 for explanation in explanations] == [True, False, True]
    labels = [model.labels.index(explanation.label) for explanation in explanations]
    method = Method("vat", VATAttribution(model), False)
    scored = score_texts(method, model.learner, model.encode(texts), labels)
    for explanation, scores in zip(explanations, scored.scores, strict=True):
        assert scores == pytest.approx([token.score for token in explanation.tokens], abs=1e-6)
        assert scores.sum() == pytest.approx(1)
    assert scored.forwards == pytest.approx(1, rel=0.01)


def test_the_json_has_the_agreed_form(bert, tmp_path):
    texts = examples(6, rationale=((0, 3),))
    settings = Settings(search_budget=60, soft_samples=1, stability_samples=2)
    result = run(bert, texts, settings=settings, output=tmp_path, planted=[((0, 2),)] * 6)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == json.loads(json.dumps(result.to_dict()))
    assert set(found) == {"methods", "paired", "provenance"}
    assert list(found["methods"]) == ["random", "leave-one-out"]
    per_operator = (
        "comprehensiveness sufficiency log_odds post_hoc_accuracy deletion_auc insertion_auc tau_loo "
        "normalised_comprehensiveness normalised_sufficiency"
    ).split()
    expected = {f"{name}_{operator}" for name in per_operator for operator in ("mask", "delete")}
    expected |= set("soft_ns soft_nc infidelity sensitivity_max token_f1 iou_f1 auprc".split())
    expected |= {"shortcut_precision", "shortcut_rank", "score_spread", "position_correlation", "punctuation_share"}
    for scores in found["methods"].values():
        assert isinstance(scores.pop("forwards_per_text"), float)
        assert isinstance(scores.pop("seconds_per_text"), float)
        assert set(scores) == expected
        for interval in scores.values():
            assert set(interval) == {"mean", "low", "high"}
            assert interval["low"] <= interval["mean"] + 1e-12
            assert interval["mean"] <= interval["high"] + 1e-12
    assert set(found["paired"]) == {"random"}
    assert set(found["paired"]["random"]["leave-one-out"]) == expected
    assert found["provenance"]["texts"] == 6
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert len(rows) == 2 * (len(expected) + 2)


def test_leave_one_out_is_its_own_reference(bert):
    # Scores on probabilities with the mask operator are the drops that tau-LOO compares with.
    method = standard_method("leave-one-out", bert[0], probabilities=True)
    result = run(bert, examples(5), methods=[method, "random"])
    assert result.methods["leave-one-out"]["tau_loo_mask"]["mean"] == pytest.approx(1, abs=1e-6)
    assert result.methods["leave-one-out"]["forwards_per_text"] > 2
    assert result.methods["random"]["forwards_per_text"] == 0


def test_known_attributors_on_a_linear_model():
    weights = {"good": 1.0, "bad": -1.5, "great": 2.0, "lovely": 0.5, "dull": -0.7, "film": 0.2}
    model = linear.classifier(weights)

    class Weights(TextAttribution):
        name = "oracle"
        sign = 1.0

        def _score(self, batch, limit):
            logits = self.classifier.embedding_layer.weight
            return self.sign * (2 * batch.targets[:, None] - 1) * logits[batch.inputs, 1]

    class Constant(TextAttribution):
        name = "constant"

        def _score(self, batch, limit):
            return torch.ones(batch.inputs.shape)

    worst = Weights(model)
    worst.sign = -1.0
    methods = [
        Method("oracle", Weights(model), True),
        Method("constant", Constant(model), False),
        Method("worst", worst, True),
        "random",
    ]
    words = [*weights, "the", "hotel"]
    draw = np.random.default_rng(0)
    texts = [Example(" ".join(draw.choice(words, 10)), None, None, i + 1) for i in range(60)]
    settings = Settings(search_budget=200, soft_samples=0)
    result = evaluate(model, texts, encoder=linear.encoder(model), methods=methods, settings=settings, quiet=True)
    for operator in ("mask", "delete"):
        for metric in ("comprehensiveness", "sufficiency"):
            name = f"normalised_{metric}_{operator}"
            # No order beats the right one, and the search finds it.
            assert result.methods["oracle"][name]["mean"] == pytest.approx(1, abs=1e-4)
            # A constant says nothing, so it does as well as chance: no better than ten random orders, nor worse.
            for blind in ("constant", "random"):
                assert result.methods[blind][name]["low"] < 0.1
                assert result.methods[blind][name]["high"] > -0.1
            assert result.methods["worst"][name]["high"] < -0.2
        assert result.methods["oracle"][f"tau_loo_{operator}"]["mean"] == pytest.approx(1, abs=0.02)
        assert result.methods["worst"][f"tau_loo_{operator}"]["mean"] == pytest.approx(-1, abs=0.02)
        assert result.methods["constant"][f"tau_loo_{operator}"]["mean"] == 0
    assert result.methods["constant"]["score_spread"]["mean"] == 0


@pytest.mark.parametrize(("backbone", "forwards"), [("readout", 1), ("copy", 2)])
def test_an_explainer_brings_both_vat_methods(backbone, forwards):
    model = explainer(backbone)
    result = evaluate(model, examples(4), methods=["random", "vat", "vat-class"], settings=FAST, quiet=True)
    assert result.methods["vat"]["forwards_per_text"] == pytest.approx(forwards)
    assert list(result.paired) == ["vat"]
    assert list(result.paired["vat"]) == ["random", "vat-class"]
    assert "encoding_gap" not in result.methods["vat"]


def test_a_judge_adds_encoding_gap_and_class_leak():
    result = evaluate(
        explainer(),
        examples(4),
        methods=["random", "vat", "vat-class", "leave-one-out"],
        judge=tiny.classifier("bert", 2, seed=3),
        settings=FAST,
        quiet=True,
    )
    assert "encoding_gap" in result.methods["random"]
    of_a_class = {name for name, figures in result.methods.items() if "class_leak" in figures}
    assert of_a_class == {"vat-class", "leave-one-out"}


def test_paired_differences_subtract_text_by_text(bert):
    result = run(bert, examples(8))
    mine, theirs = (result.values[name]["comprehensiveness_mask"] for name in ("random", "leave-one-out"))
    found = result.paired["random"]["leave-one-out"]["comprehensiveness_mask"]
    assert found["mean"] == pytest.approx((mine - theirs).mean())
    assert found["low"] <= found["mean"] <= found["high"]


def test_the_same_call_gives_the_same_result(bert):
    texts = examples(5)
    assert without_times(run(bert, texts)) == without_times(run(bert, texts))


def test_by_default_all_methods_run_that_can(bert, monkeypatch):
    def refuse(self, batch, limit):
        raise ModelError("not this model")

    def missing(classifier):
        raise InputError("a package is missing")

    monkeypatch.setattr(GradientL2, "_score", refuse)
    methods = {"grad-l2": GradientL2, "random": Random, "absent": missing}
    monkeypatch.setattr(standard, "_FACTORIES", methods)
    result = run(bert, examples(3), methods=None)
    assert set(result.methods) == {"random"}
    assert result.provenance["left_out"] == {"grad-l2": "not this model", "absent": "a package is missing"}
    with pytest.raises(ModelError, match="not this model"):
        run(bert, examples(3), methods=["grad-l2", "random"])


def test_the_provenance_says_of_how_many_texts_a_metric_speaks(bert):
    texts = [*examples(4), Example("good " * 30, None, None, 5), Example("good", None, None, 6)]
    found = run(bert, texts, methods=["random"]).provenance["texts_of_metrics"]
    assert found["normalised_sufficiency_mask"] == 5
    assert found["position_correlation"] == 5
    assert "sufficiency_mask" not in found


def test_a_model_of_nan_is_named(bert):
    model = tiny.classifier("bert", 2)
    with torch.no_grad():
        model.embedding_layer.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN"):
        run((model, text_encoder(tiny.tokenizer(), model)), examples(2), methods=["random"])


def test_limit_draws_by_the_seed(bert):
    texts = examples(12)
    assert run(bert, texts, methods=["random"], limit=4).provenance["texts"] == 4
    drawn = [benchmark._choose(12, 4, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(set(drawn[0])) == drawn[0]
    assert benchmark._choose(3, 9, 0) == [0, 1, 2]


def test_memory_does_not_grow_with_the_number_of_texts(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "BATCH_TEXTS", 8)

    def peak(count):
        texts = examples(count)
        tracemalloc.start()
        run(bert, texts, methods=["random"], settings=Settings(operators=("mask",), search_budget=0, soft_samples=0))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(8)  # what is loaded once
    small, large = peak(16), peak(96)
    assert large < 1.3 * small + 100_000


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.ids = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id" and tag == "article"]


def test_the_report_is_one_safe_page(bert, tmp_path):
    texts = [*examples(3), Example("<script>alert(1)</script> good & bad film", None, (0,), 4)]
    settings = Settings(search_budget=60, soft_samples=1)
    run(bert, texts, output=tmp_path, settings=settings)
    html = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(html)
    assert "script" not in page.tags
    assert "<script>alert" not in html
    assert page.tags.count("svg") == 6
    assert page.tags.count("article") == len(set(page.ids)) == 4 * 2
    for heading in ("Faithfulness against cost", "Deletion and insertion", "Spread over the texts", "disagree most"):
        assert heading in html
    assert "src=" not in html
    assert "nan" not in html.split("<h2>Plots")[0]


def test_bad_calls_say_what_is_wrong(bert):
    with pytest.raises(InputError, match=r"cannot evaluate a Linear; pass an explainer"):
        evaluate(torch.nn.Linear(2, 2), examples(1), quiet=True)
    with pytest.raises(InputError, match="encoder="):
        evaluate(bert[0], examples(1), quiet=True)
    with pytest.raises(InputError, match="VATExplainer"):
        run(bert, examples(1), methods=["vat"])
    with pytest.raises(InputError, match="each once"):
        run(bert, examples(1), methods=["random", "random"])
    with pytest.raises(InputError, match="'nonsense'"):
        run(bert, examples(1), methods=["nonsense"])
    with pytest.raises(DataError, match="at least one example"):
        run(bert, [])
    with pytest.raises(DataError, match="row 7"):
        run(bert, [Example("   ", None, None, 7)])
    with pytest.raises(DataError, match="planted"):
        run(bert, examples(2), planted=[()])


def test_pairs_and_multi_label_models_and_long_texts_are_evaluated(tmp_path):
    model = tiny.classifier("bert", 3, multi_label=True)
    encoder = text_encoder(tiny.tokenizer(), model, max_length=16)
    texts = [
        Example("good film", "bad plot", (0,), 1, ((0, 4),)),
        Example("the film was good and the plot was bad and slow " * 3, None, (1, 2), 2),
    ]
    result = evaluate(
        model,
        texts,
        encoder=encoder,
        methods=["random", "grad-x-input"],
        settings=Settings(search_budget=40, stability_samples=1),
        output=tmp_path,
        quiet=True,
    )
    assert np.isnan(result.values["random"]["tau_loo_mask"]).tolist() == [False, True]
    assert np.isfinite(result.values["random"]["comprehensiveness_delete"]).all()


def test_progress_goes_to_stderr_and_can_be_silenced(bert, capsys):
    run(bert, examples(2), methods=["random"])
    assert capsys.readouterr() == ("", "")
    evaluate(bert[0], examples(2), encoder=bert[1], methods=["random"], settings=FAST)
    out, err = capsys.readouterr()
    assert out == ""
    assert "evaluating" in err
