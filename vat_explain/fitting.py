"""`fit`: from a classifier or an encoder and labelled texts to an explainer."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from vat_explain.bundle import Card, check_savable, check_target
from vat_explain.card import package_versions, read_licence
from vat_explain.data import Dataset, Example, LabelSet
from vat_explain.errors import DataError, InputError, ModelError, TrainingError
from vat_explain.explainer import VATExplainer
from vat_explain.loading import finished_labels, load_classifier, load_tokenizer
from vat_explain.models import MULTI_LABEL, SINGLE_LABEL, Classifier, text_encoder
from vat_explain.text import SpecialTokens, TextEncoder, Window
from vat_explain.vat.batches import TrainingSet
from vat_explain.vat.checkpoint import discard
from vat_explain.vat.compressor import Compressor, CompressorConfig, Copy
from vat_explain.vat.model import VATModel
from vat_explain.vat.objectives import (
    FaithfulObjective,
    LearnerObjective,
    PaperLearnerObjective,
    PaperObjective,
    Weights,
)
from vat_explain.vat.scoring import accuracy, fidelity, set_reference
from vat_explain.vat.trainer import BATCH_DIVISORS, LoopConfig, Phase, Trainer

LEARNER_STEPS, COMPRESSOR_STEPS = 300, 100
"""Steps that a learner needs in all, and a compressor in each epoch; where texts are few, batches get smaller."""

LEARNER_EPOCHS = (3, 20)
"""Fewest and most epochs of a learner."""

_DEV_SHARE = 0.1


@dataclass(frozen=True)
class FitConfig:
    """Settings of `fit`.

    Attributes
    ----------
    compressor : CompressorConfig
        Objective, backbone and size of the compressor.
    weights : Weights
        Of the terms of the compressor's loss.
    loop : LoopConfig
        Batches, seed, precision, checkpoints.
    freeze_learner : bool
        Leave the classifier exactly as it is and explain it post hoc.
    rounds : int
        How often learner and compressor take turns; a frozen learner has one.
    learner_epochs : int, optional
        Epochs of the learner in the first round; it has one in later rounds. When left out: `LEARNER_EPOCHS`, and more
        for a new head and few texts, until there are about `LEARNER_STEPS` steps.
    epochs : int
        Epochs of the compressor in the last round; it has one in earlier rounds.
    compressor_windows : int
        Most windows of the training texts that the compressor is fitted to; drawn at random where there are more.
    learning_rate, encoder_rate : float
        Peak learning rates of compressors and new heads, and of pre-trained encoders with the heads they came with.
    max_length : int, optional
        Longest window in tokens; longer texts are read in several.
    judge : bool
        Also train an independent judge of masked texts (EVAL-X, Jethani et al., AISTATS 2021), used for checking only.
    """

    compressor: CompressorConfig = field(default_factory=CompressorConfig)
    weights: Weights = field(default_factory=Weights)
    loop: LoopConfig = field(default_factory=LoopConfig)
    freeze_learner: bool = False
    rounds: int = 1
    learner_epochs: int | None = None
    epochs: int = 10
    compressor_windows: int = 10_000
    learning_rate: float = 1e-3
    encoder_rate: float = 4e-5
    max_length: int | None = None
    judge: bool = False


def known_labels(model: str | Path) -> LabelSet | None:
    """Return the classes that a finished classifier was trained on, or None for a plain encoder.

    Raises
    ------
    ModelError
        If the model's configuration cannot be read, or it tells no classes apart.
    """
    found = finished_labels(model)
    if found is None:
        return None
    names, task = found
    if len(names) < 2 and task == SINGLE_LABEL:
        raise ModelError(f"{model} gives one number, as regression and ranking models do; use a model of classes")
    return LabelSet(names, task == MULTI_LABEL)


def fit(
    model: str | Path | PreTrainedModel,
    train: Dataset,
    dev: Dataset | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: FitConfig | None = None,
    output: str | PathLike[str] | None = None,
    resume: bool = False,
) -> VATExplainer:
    """Fit a compressor, and unless it is frozen the learner too.

    Parameters
    ----------
    model : str, Path or PreTrainedModel
        Folder or name of a finished classifier, or of a plain encoder that gets a new head; or a classifier in memory
        in float32, which is trained in place unless it is frozen.
    train, dev : Dataset
        Labelled texts. Without `dev`, a tenth of `train` is set aside.
    tokenizer : PreTrainedTokenizerBase, optional
        Needed for a model in memory, otherwise loaded beside it.
    config : FitConfig, optional
    output : str or PathLike, optional
        Where the bundle is written. Checkpoints lie beside it until it is complete.
    resume : bool
        Go on from the checkpoint of an interrupted run with the same data and settings.

    Returns
    -------
    VATExplainer

    Raises
    ------
    DataError, ModelError, TrainingError, BundleError
        If data, model, checkpoint or output cannot be used.
    InputError
        If the windows of the configuration are longer than the model takes.
    """
    config = config or FitConfig()
    if output is not None:
        check_target(output)
    if train.labels is None or (dev is not None and dev.labels != train.labels):
        raise DataError("training and development data need labels, and the same ones; read both with a label column")
    torch.manual_seed(config.loop.seed)
    tokenizer = _tokenizer(model, tokenizer)
    learner = _learner(model, tokenizer, train.labels, frozen=config.freeze_learner)
    if output is not None:
        check_savable(learner, tokenizer)
    encoder = text_encoder(tokenizer, learner, config.max_length)
    examples, dev_examples = _split(train, dev, config.loop.seed)
    data = _training_set(examples, train.source, encoder, train.labels)
    dev_data = _training_set(dev_examples, (dev or train).source, encoder, train.labels)

    new_head = isinstance(model, str | Path) and finished_labels(model) is None
    plan = _Plan(learner, data, dev_data, config, new_head=new_head)
    directory = None if output is None else _checkpoints(Path(output), resume=resume)
    digests = [train.digest, dev.digest if dev else ""]
    key = _key(config, digests, model if isinstance(model, str | Path) else type(model).__name__)
    trainer = Trainer(plan.modules, data, config.loop, directory, key)
    trainable = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    try:
        history = trainer.run(plan.phases(), resume=resume)
    finally:
        for parameter in trainable:  # a model in memory may be trained further
            parameter.requires_grad_(True)

    card = Card(
        task=learner.task,
        labels=learner.labels,
        max_length=encoder.max_length,
        overlap=encoder.overlap,
        special=learner.special,
        compressor=config.compressor,
        training={**asdict(replace(config, loop=replace(config.loop, quiet=False))), "history": history},
        data={"train": train.digest, "dev": digests[1] or None, "texts": len(examples), "dev_texts": len(dev_examples)},
        metrics={**accuracy(learner, dev_data), **fidelity(plan.model, dev_data)},
        base_model=_base_model(model),
        versions=package_versions(),
    )
    explainer = VATExplainer(plan.model, tokenizer, card, plan.judge)
    if output is not None and trainer.accelerator.is_main_process:
        explainer.save_pretrained(output)
    if directory is not None:
        trainer.accelerator.wait_for_everyone()
        discard(directory)
    return explainer


class _Plan:
    """The modules of a run and the phases that they go through."""

    def __init__(
        self, learner: Classifier, data: TrainingSet, dev: TrainingSet, config: FitConfig, *, new_head: bool
    ) -> None:
        self.learner = learner
        self.new_head = new_head
        self.data = data
        self.dev = dev
        self.config = config
        self.model = VATModel(learner, Compressor(learner, config.compressor))
        nn.init.zeros_(self.model.compressor.class_scorer.weight)  # sums of random parts are far from any probability
        self.judge = copy.deepcopy(learner) if config.judge else None
        self.sample = data.sample(config.compressor_windows, config.loop.seed)
        modules = {"model": self.model, "judge": self.judge}
        self.modules = {name: module for name, module in modules.items() if module is not None}

    def phases(self) -> list[Phase]:
        """Return the phases in their order."""
        config = self.config
        phases: list[Phase] = []
        if config.freeze_learner:
            phases.append(self._compressor_phase("compressor", config.epochs))
        else:
            for number in range(config.rounds):
                name = f"round {number + 1}:"
                last = number == config.rounds - 1
                phases.append(self._learner_phase(f"{name} learner", number))
                phases.append(self._compressor_phase(f"{name} compressor", config.epochs if last else 1))
        if self.judge is not None:
            epochs = max(LEARNER_EPOCHS[0], self._learner_epochs())
            phases.append(
                self._masked_phase("judge", self.judge, LearnerObjective(self.judge, 1.0, whole=False), epochs)
            )
        return phases

    def _masked_phase(self, name: str, classifier: Classifier, objective: Any, epochs: int) -> Phase:
        rates: list[tuple[nn.Module, float]] = [(classifier, self.config.encoder_rate)]
        if self.new_head:
            encoder = classifier.model.base_model
            heads = [module for module in classifier.model.children() if module is not encoder]
            rates = [(encoder, self.config.encoder_rate), *((head, self.config.learning_rate) for head in heads)]
            if classifier.placeholder is not None:
                rates.append((nn.ParameterList([classifier.placeholder]), self.config.encoder_rate))
        return Phase(
            name,
            objective,
            rates,
            epochs,
            classifier,
            lambda: accuracy(classifier, self.dev),
            steps=LEARNER_STEPS,
        )

    def _learner_phase(self, name: str, number: int) -> Phase:
        objective: LearnerObjective | PaperLearnerObjective
        if self.config.compressor.objective == "paper":
            objective = PaperLearnerObjective(self.model) if number else LearnerObjective(self.learner, 0.0)
        else:
            objective = LearnerObjective(self.learner, guide=self.model if number else None)
        return self._masked_phase(name, self.learner, objective, 1 if number else self._learner_epochs())

    def _learner_epochs(self) -> int:
        if self.config.learner_epochs is not None:
            return self.config.learner_epochs
        smallest = max(1, self.config.loop.batch_size // BATCH_DIVISORS[-1])
        needed = math.ceil(LEARNER_STEPS * smallest / len(self.data.windows)) if self.new_head else 0
        return max(LEARNER_EPOCHS[0], min(LEARNER_EPOCHS[1], needed))

    def _compressor_phase(self, name: str, epochs: int) -> Phase:
        kind = PaperObjective if self.config.compressor.objective == "paper" else FaithfulObjective
        objective = kind(self.model, self.config.weights)
        compressor = self.model.compressor
        backbone = compressor.backbone
        rates: list[tuple[nn.Module, float]] = [
            (module, self.config.learning_rate) for module in compressor.children() if module is not backbone
        ]
        if isinstance(backbone, Copy):
            rates += [(backbone.encoder, self.config.encoder_rate), (backbone.readout, self.config.learning_rate)]
        else:
            rates.append((backbone, self.config.learning_rate))
        return Phase(
            name,
            objective,
            rates,
            epochs,
            compressor,
            lambda: fidelity(self.model, self.dev),
            select=False,
            begin=lambda: set_reference(self.model, self.data),
            data=self.sample,
            steps=COMPRESSOR_STEPS * epochs,
        )


def _tokenizer(
    model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> PreTrainedTokenizerBase:
    if tokenizer is not None:
        return tokenizer
    if isinstance(model, PreTrainedModel):
        raise ModelError("a model in memory comes without tokenizer; pass tokenizer=...")
    return load_tokenizer(model)


def _learner(
    model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase, labels: LabelSet, *, frozen: bool
) -> Classifier:
    special = SpecialTokens.from_tokenizer(tokenizer)
    if isinstance(model, PreTrainedModel):
        kind = type(model).__name__
        if "ForSequenceClassification" not in kind:
            raise ModelError(f"{kind} is no sequence classifier; pass one, or the folder of an encoder to train")
        if model.dtype != torch.float32:
            raise ModelError(f"the {kind} is in {model.dtype}, which rounds small effects away; call .float() on it")
        learner = Classifier(model, special)
    else:
        if frozen and finished_labels(model) is None:
            raise ModelError(
                f"{model} is a plain encoder, whose class head is still to be trained; freeze a finished classifier, "
                "or fit without freezing the learner"
            )
        task = MULTI_LABEL if labels.multi_label else SINGLE_LABEL
        learner = load_classifier(model, special, labels.names, task)
    if learner.labels != labels.names or (learner.task == MULTI_LABEL) != labels.multi_label:
        raise DataError(
            f"the data have the {'multi-label ' if labels.multi_label else ''}classes {', '.join(labels.names)}; the "
            f"model has {'multi-label ' if learner.task == MULTI_LABEL else ''}{', '.join(learner.labels)}; read the "
            "data with the labels of the model (known_labels)"
        )
    learner.verify()
    return learner


def _split(train: Dataset, dev: Dataset | None, seed: int) -> tuple[Sequence[Example], Sequence[Example]]:
    if dev is not None:
        return train.examples, dev.examples
    examples = list(train.examples)
    random.Random(seed).shuffle(examples)
    aside = max(1, round(len(examples) * _DEV_SHARE))
    if len(examples) <= aside:
        raise DataError(f"{train.source} holds {len(examples)} example; training and development need at least 2")
    return examples[aside:], examples[:aside]


def _training_set(examples: Sequence[Example], source: str, encoder: TextEncoder, labels: LabelSet) -> TrainingSet:
    windows: list[Window] = []
    targets: list[Any] = []
    texts: list[int] = []
    for number, example in enumerate(examples):
        try:
            encoded = encoder.encode(example.text, example.text_pair)
        except InputError as error:
            raise DataError(f"{source}, row {example.row}: {error}") from None
        assert example.label is not None
        if labels.multi_label:
            target: Any = [float(i in example.label) for i in range(len(labels.names))]
        else:
            target = example.label[0]
        windows.extend(encoded.windows)
        targets.extend([target] * len(encoded.windows))
        texts.extend([number] * len(encoded.windows))
    return TrainingSet(windows, torch.tensor(targets), encoder.special.pad, torch.tensor(texts))


def _checkpoints(output: Path, *, resume: bool) -> Path:
    directory = output.absolute().parent / f".{output.name}.training"
    if not directory.exists():
        try:  # before hours of training, not after
            directory.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):  # of several processes, another one may have been first
                directory.rmdir()
        except OSError as error:
            raise TrainingError(f"cannot write to {directory.parent}: {error.strerror}; name another output") from error
    if (directory / "state.safetensors").exists() and not resume:
        raise TrainingError(
            f"an interrupted run left its checkpoint in {directory}; pass --resume to go on with it, or delete it"
        )
    return directory


def _key(config: FitConfig, digests: Sequence[str], model: str | Path) -> str:
    settings = asdict(replace(config, loop=replace(config.loop, quiet=False, checkpoint_seconds=0.0)))
    source = Path(model).resolve() if Path(model).exists() else model
    record = json.dumps([settings, list(digests), str(source)], sort_keys=True)
    return hashlib.sha256(record.encode()).hexdigest()


def _base_model(model: str | Path | PreTrainedModel) -> dict[str, str | None]:
    if isinstance(model, PreTrainedModel):
        return {"name": Path(model.name_or_path or "").name or type(model).__name__, "licence": None}
    return {"name": Path(model).name, "licence": read_licence(model)}
