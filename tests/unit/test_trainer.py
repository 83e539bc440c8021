"""The training loop: reproducible, resumable at every step, early stopping, clear refusals."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest
import torch

from tests import tiny
from vat_explain.errors import TrainingError
from vat_explain.models import text_encoder
from vat_explain.vat import scoring, trainer
from vat_explain.vat.batches import TrainingSet
from vat_explain.vat.compressor import Compressor, CompressorConfig
from vat_explain.vat.model import VATModel
from vat_explain.vat.objectives import FaithfulObjective, LearnerObjective, Weights
from vat_explain.vat.scoring import accuracy, fidelity, set_reference
from vat_explain.vat.trainer import LoopConfig, Phase, Trainer, fastest_precision

POSITIVE, NEGATIVE = ("good", "great", "lovely", "brilliant"), ("bad", "awful", "dull", "boring")


def training_set(size: int = 40) -> TrainingSet:
    generator = torch.Generator().manual_seed(1)
    encoder = text_encoder(tiny.tokenizer(), tiny.classifier())
    windows, labels = [], []
    for number in range(size):
        filler = [tiny.WORDS[int(i)] for i in torch.randint(0, 5, (3 + number % 7,), generator=generator)]
        words = (NEGATIVE, POSITIVE)[number % 2]
        windows.append(encoder.encode(" ".join([*filler, words[number // 2 % 4]])).windows[0])
        labels.append(number % 2)
    return TrainingSet(windows, torch.tensor(labels), 0)


class Stopped(Exception):
    pass


class Run:
    """A short run of a learner phase and a compressor phase, stopped on demand."""

    def __init__(self, directory=None, seed=0, stop_at=None, rate=1e-3, key="k", checkpoint_seconds=0.0):
        torch.manual_seed(0)
        learner = tiny.classifier()
        self.model = VATModel(learner, Compressor(learner, CompressorConfig(width=16, heads=2)))
        self.data = training_set()
        self.steps = 0
        run = self

        class Counting(FaithfulObjective):
            def forward(self, batch):
                run.steps += 1
                if run.steps == stop_at:
                    raise Stopped
                return super().forward(batch)

        objective = Counting(self.model, Weights(gates_from=0.5))
        self.phases = [
            Phase(
                "learner",
                LearnerObjective(learner),
                [(learner, rate)],
                2,
                learner,
                lambda: accuracy(learner, self.data),
            ),
            Phase(
                "compressor",
                objective,
                [(self.model.compressor, rate)],
                2,
                self.model.compressor,
                lambda: fidelity(self.model, self.data),
                begin=lambda: set_reference(self.model, self.data),
            ),
        ]
        config = LoopConfig(batch_size=8, seed=seed, quiet=True, checkpoint_seconds=checkpoint_seconds)
        self.trainer = Trainer({"model": self.model}, self.data, config, directory, key)

    def __call__(self, *, resume=False):
        self.history = self.trainer.run(self.phases, resume=resume)
        return self

    @property
    def weights(self):
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


@pytest.fixture(scope="module")
def uninterrupted():
    return Run()()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(uninterrupted):
    assert_same(Run()().weights, uninterrupted.weights)
    other = Run(seed=1)().weights
    assert not torch.equal(
        other["compressor.class_scorer.weight"], uninterrupted.weights["compressor.class_scorer.weight"]
    )


def test_checkpoints_change_nothing(uninterrupted, tmp_path):
    assert_same(Run(tmp_path)().weights, uninterrupted.weights)


@pytest.mark.parametrize("stop_at", [1, 2, 5, 6, 9, 10])
def test_resuming_anywhere_gives_the_weights_of_an_uninterrupted_run(uninterrupted, tmp_path, stop_at):
    stopped = Run(tmp_path, stop_at=stop_at)
    with pytest.raises(Stopped):
        stopped()
    resumed = Run(tmp_path)(resume=True)
    assert resumed.steps < 10 + (stop_at == 1)
    assert_same(resumed.weights, uninterrupted.weights)
    assert resumed.history == uninterrupted.history


def test_resuming_from_a_checkpoint_some_steps_old(uninterrupted, tmp_path):
    stopped = Run(tmp_path, stop_at=4, checkpoint_seconds=1e9)  # only the end of the first phase was written
    with pytest.raises(Stopped):
        stopped()
    resumed = Run(tmp_path, checkpoint_seconds=1e9)(resume=True)
    assert resumed.steps == 10
    assert_same(resumed.weights, uninterrupted.weights)


def test_resuming_a_finished_run_trains_no_more(uninterrupted, tmp_path):
    Run(tmp_path)()
    again = Run(tmp_path)(resume=True)
    assert again.steps == 0
    assert_same(again.weights, uninterrupted.weights)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    Run(tmp_path)()
    with pytest.raises(TrainingError, match="other data or settings"):
        Run(tmp_path, key="other")(resume=True)
    (tmp_path / "state.safetensors").write_bytes(b"\x80\x04pickle?")
    with pytest.raises(TrainingError, match="cannot be read"):
        Run(tmp_path)(resume=True)


def test_a_frozen_learner_stays_as_it_is():
    run = Run()
    before = {name: tensor.clone() for name, tensor in run.model.learner.state_dict().items()}
    run.phases = run.phases[1:]
    run()
    assert_same(run.model.learner.state_dict(), before)


def test_training_learns_the_task_and_what_decides(uninterrupted):
    run = Run(rate=3e-3)
    run.phases = [Phase(p.name, p.objective, p.learning_rates, 16, p.kept, p.score, begin=p.begin) for p in run.phases]
    run()
    best = {name: max(h[name] for h in run.history if name in h) for name in ("accuracy", "fidelity")}
    assert best["accuracy"] >= 0.8
    assert fidelity(run.model, run.data)["fidelity"] > fidelity(Run().model, run.data)["fidelity"] + 0.1


@pytest.mark.parametrize(
    ("select", "figures", "remains"),
    [(True, [0.5, 0.9, 0.4, 0.3, 0.2], 1), (True, [0.0, 0.0, 0.0, 0.0, 0.0], 4), (False, [0.2], 0)],
)
def test_the_best_epoch_or_the_last_remains(select, figures, remains):
    run = Run()
    scores = iter(figures)
    kept = []
    module = run.model.compressor

    def score():
        kept.append(module.class_scorer.weight.detach().clone())
        return {"score": next(scores)}

    old = run.phases[1]
    run.phases = [Phase(old.name, old.objective, old.learning_rates, 5, module, score, select, old.begin)]
    run()
    assert run.steps == 25
    assert len(kept) == len(figures)
    assert torch.equal(module.class_scorer.weight, kept[remains])


@pytest.mark.parametrize(("wanted", "made"), [(0, 10), (10, 10), (11, 20), (21, 40), (1000, 40)])
def test_few_data_are_cut_into_smaller_batches(wanted, made):
    run = Run()
    old = run.phases[1]
    run.phases = [Phase(old.name, old.objective, old.learning_rates, 2, old.kept, begin=old.begin, steps=wanted)]
    run()
    assert run.steps == made


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("fast", [True, False])
def test_the_fastest_precision_is_that_of_the_device(monkeypatch, device, fast):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast)
    monkeypatch.setattr(trainer, "PartialState", lambda: SimpleNamespace(device=torch.device(device)))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert fastest_precision() == ("bf16" if fast else "no")


def test_a_loss_that_is_not_finite_stops_the_run():
    run = Run(rate=math.inf)
    with pytest.raises(TrainingError, match="without mixed precision, or with lower rates"):
        run()


def test_accuracy_is_that_of_texts_and_not_of_their_windows():
    data, learner = training_set(12), tiny.classifier()
    alone = accuracy(learner, data)["accuracy"]
    texts = torch.tensor([0, 0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 5])
    labels = torch.tensor([1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1])
    p = [
        learner.probabilities(
            learner(torch.from_numpy(window.ids)[None], None, torch.from_numpy(window.type_ids)[None])
        )
        for window in data.windows
    ]
    means = [torch.cat([p[i] for i in range(12) if texts[i] == text]).mean(0) for text in range(6)]
    right = [int(mean.argmax()) == int(labels[texts == text][0]) for text, mean in enumerate(means)]
    assert accuracy(learner, TrainingSet(data.windows, labels, 0, texts))["accuracy"] == pytest.approx(sum(right) / 6)
    own = [int(one.argmax()) == int(label) for one, label in zip(p, data.labels, strict=True)]
    assert alone == pytest.approx(sum(own) / 12)


def test_what_a_compressor_takes_as_given_comes_from_all_of_the_data(monkeypatch):
    monkeypatch.setattr(scoring, "REFERENCE_ROWS", 20)
    learner = tiny.classifier()
    data = training_set(40)
    order = sorted(range(40), key=lambda row: int(data.labels[row]))
    model = VATModel(learner, Compressor(learner, CompressorConfig(width=16, heads=2, objective="paper")))
    set_reference(model, TrainingSet([data.windows[row] for row in order], data.labels[order], 0))
    states = []
    for row in sorted(random.Random(0).sample(range(40), 20)):
        batch = data.batch([order[row]], torch.device("cpu"))
        pass_ = learner.run(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        states.append(pass_.states[-1][batch["scorable"]])
    every = torch.cat(states)
    assert torch.allclose(model.compressor.scorer.mean, every.mean(0), atol=1e-5)
    assert torch.allclose(model.compressor.scorer.deviation, every.std(0), rtol=0.02)


def test_a_row_alone_gets_no_mask_of_its_own():
    run = Run()
    objective = LearnerObjective(run.model.learner, 1.0, run.model, whole=False)
    monkey = []
    objective._masks_of_others = lambda batch: monkey.append(batch)
    objective(run.data.batch([3], torch.device("cpu")))
    assert not monkey


def test_batches_hold_every_row_once_an_epoch_in_another_order():
    own = Run().trainer
    first, second = (own._batches(own.data, 0, epoch, 1) for epoch in (0, 1))
    for batches in (first, second):
        assert sorted(row for batch in batches for row in batch) == list(range(40))
    assert first != second
    lengths = [[len(own.data.windows[r]) for r in batch] for batch in first]
    spread = sum(max(row) - min(row) for row in lengths) / len(lengths)
    assert spread <= 3
