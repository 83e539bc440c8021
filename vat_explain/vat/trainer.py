"""The training loop: phases, length-bucketed batches, development scores, checkpoints; accelerate moves the tensors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from torch import Tensor, nn

from vat_explain.errors import TrainingError
from vat_explain.progress import Bar, progress_bar
from vat_explain.vat.batches import TrainingSet
from vat_explain.vat.checkpoint import Position, State, load_state, save_state
from vat_explain.vat.objectives import Objective

BATCH_DIVISORS = (1, 2, 4)
"""By how much batches are made smaller where a phase would have too few steps."""


@dataclass(frozen=True)
class Phase:
    """One stretch of training with one objective.

    Attributes
    ----------
    name : str
    objective : Objective
    learning_rates : sequence of (Module or Parameter, float)
        What is trained, with its peak learning rate; all else is frozen.
    epochs : int
    kept : Module
        What the phase is for.
    score : callable, optional
        Development figures of every epoch, or of the last one if the best is not selected.
    select : bool
        Keep the state of the epoch whose first figure is largest, the later one of equals. Otherwise the last one
        remains, which is the better choice where figures are noisy, since the learning rate has come down by then.
    begin : callable, optional
        Called once before the first step.
    data : TrainingSet, optional
        What to train on, if not on all.
    steps : int
        Where data are so few that there are fewer steps than this, batches are divided by `BATCH_DIVISORS`.
    """

    name: str
    objective: Objective
    learning_rates: Sequence[tuple[nn.Module, float]]
    epochs: int
    kept: nn.Module
    score: Callable[[], dict[str, float]] | None = None
    select: bool = True
    begin: Callable[[], None] | None = None
    data: TrainingSet | None = None
    steps: int = 0


@dataclass(frozen=True)
class LoopConfig:
    """How the loop runs.

    Attributes
    ----------
    batch_size, batch_tokens : int
        Most rows, and most cells with padding, of one step on one device.
    seed : int
    mixed_precision : {"no", "bf16", "fp16"}
    warmup : float
        Share of the steps over which the learning rate rises; it then falls linearly to 0.
    clip : float
        Largest gradient norm.
    checkpoint_seconds : float
        Time between checkpoints.
    quiet : bool
        No progress bar.
    """

    batch_size: int = 32
    batch_tokens: int = 4096
    seed: int = 0
    mixed_precision: str = "no"
    warmup: float = 0.1
    clip: float = 1.0
    checkpoint_seconds: float = 60.0
    quiet: bool = False


def fastest_precision() -> str:
    """Return "bf16" where the device of the training multiplies such numbers faster than float32, otherwise "no"."""
    if PartialState().device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bf16" if any(getattr(torch.cpu, name, bool)() for name in asked) else "no"


@dataclass
class Trainer:
    """Run phases over one training set, resumably and reproducibly.

    Every step draws its randomness from a seed of its own, made of the run's seed and the step's place, so that a
    resumed run repeats what an uninterrupted one does.

    Attributes
    ----------
    modules : mapping of str to Module
        All modules whose weights may change; their state is what checkpoints hold.
    data : TrainingSet
    config : LoopConfig
    directory : Path, optional
        Where checkpoints go; none are written without it.
    key : str
        Identifies data and settings in checkpoints.
    """

    modules: Mapping[str, nn.Module]
    data: TrainingSet
    config: LoopConfig
    directory: Path | None = None
    key: str = ""
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        # Frozen parts and rows without a gradient are normal here, so unused parameters must be looked for.
        handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
        try:
            self.accelerator = Accelerator(mixed_precision=self.config.mixed_precision, kwargs_handlers=handlers)
        except ValueError as error:  # accelerate keeps its first setting for the life of the process
            raise TrainingError(
                f"cannot train with mixed_precision={self.config.mixed_precision!r}: {error}; start a new process to "
                "train with another precision than before"
            ) from error
        for module in self.modules.values():
            module.to(self.accelerator.device)
        self._last_checkpoint = time.monotonic()

    @property
    def device(self) -> torch.device:
        """Where the modules are."""
        device: torch.device = self.accelerator.device
        return device

    def run(self, phases: Sequence[Phase], *, resume: bool = False) -> list[dict[str, Any]]:
        """Train, and return the figures of the epochs that were scored.

        Raises
        ------
        TrainingError
            If the loss is not finite, or a checkpoint does not fit.
        """
        if resume and self.directory is not None:
            loaded = load_state(self.directory, self.key)
            if loaded is not None:
                self.state = loaded
                for name, module in self.modules.items():
                    module.load_state_dict(loaded.group(f"weights.{name}."))
        total = sum(phase.epochs for phase in phases)
        quiet = self.config.quiet or not self.accelerator.is_local_main_process
        with progress_bar("training", total, quiet=quiet) as bar:
            position = self.state.position
            if position.finished:
                position = self.state.position = Position(phase=position.phase + 1)
            for number in range(position.phase, len(phases)):
                self._run_phase(phases[number], number, bar)
                self.state.position = Position(phase=number, finished=True)
                self._checkpoint(force=True)
                self.state.position = Position(phase=number + 1)
        return self.state.history

    def _run_phase(self, phase: Phase, number: int, bar: Bar) -> None:
        position = self.state.position
        for module in self.modules.values():
            module.requires_grad_(False)
            module.zero_grad()  # left over from the phase before, it would count when gradients are clipped
        groups = []
        for module, rate in phase.learning_rates:
            module.requires_grad_(True)
            groups.append({"params": list(module.parameters()), "lr": rate})
        fresh = (position.epoch, position.step) == (0, 0) and position.best_score is None
        if fresh and phase.begin is not None:
            with self.accelerator.autocast():
                phase.begin()
        data = phase.data or self.data
        for divisor in BATCH_DIVISORS:
            epochs = [self._batches(data, number, epoch, divisor) for epoch in range(phase.epochs)]
            total = sum(map(len, epochs))
            if total >= phase.steps:
                break
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        _restore_optimizer(optimizer, self.state.group("optimizer."))
        objective, prepared = self.accelerator.prepare(phase.objective, optimizer)
        if self.state.scalars and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self.state.scalars)
        rates = [rate for _, rate in phase.learning_rates]
        for epoch in range(position.epoch, phase.epochs):
            done = sum(map(len, epochs[:epoch]))
            bar.restart(f"{phase.name} {epoch + 1}/{phase.epochs}", len(epochs[epoch]), position.step)
            objective.train()
            for step in range(position.step, len(epochs[epoch])):
                share = (done + step) / max(total, 1)
                self._seed(number, epoch, step)
                phase.objective.progress.fill_(share)
                for group, rate in zip(prepared.param_groups, rates, strict=True):
                    group["lr"] = rate * _schedule(share, self.config.warmup, 1 / max(total, 1))
                figures = self._step(objective, prepared, data.batch(epochs[epoch][step], self.device))
                bar.advance(1, **figures)
                self.state.position = Position(number, epoch, step + 1, position.best_score)
                if step + 1 < len(epochs[epoch]):
                    self._checkpoint(optimizer=prepared)
            self._end_epoch(phase, number, epoch)
            position = self.state.position
            self._checkpoint(optimizer=prepared)
        if phase.score is not None and phase.select:
            phase.kept.load_state_dict(self.state.group("best."))
        self.state.put("best.", {})
        self.state.put("optimizer.", {})
        self.state.scalars = {}
        self.accelerator.free_memory()

    def _step(self, objective: nn.Module, optimizer: Any, batch: dict[str, Tensor]) -> dict[str, float]:
        with self.accelerator.autocast():
            terms = objective(batch)
        loss = terms["loss"]
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()}; train without mixed precision, or with lower rates in FitConfig"
            )
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(objective.parameters(), self.config.clip)
        optimizer.step()
        return {name: value.item() for name, value in terms.items()}

    def _end_epoch(self, phase: Phase, number: int, epoch: int) -> None:
        """Score the epoch, and keep the state if it is the best."""
        position = self.state.position
        best = position.best_score
        if phase.score is not None and (phase.select or epoch + 1 == phase.epochs):
            was_training = phase.objective.training
            phase.objective.eval()
            with self.accelerator.autocast():
                figures = phase.score()
            phase.objective.train(was_training)
            self.state.history.append({"phase": phase.name, "epoch": epoch + 1, **figures})
            score = next(iter(figures.values()))
            if phase.select and (best is None or score >= best):
                best = score
                self.state.put("best.", {k: v.clone() for k, v in phase.kept.state_dict().items()})
        self.state.position = Position(number, epoch + 1, 0, best)

    def _batches(self, data: TrainingSet, phase: int, epoch: int, divisor: int) -> list[list[int]]:
        """Shuffle rows, group those of similar length, and take this process's share of the batches."""
        most_rows, most_cells = (max(1, n // divisor) for n in (self.config.batch_size, self.config.batch_tokens))
        generator = random.Random(f"{self.config.seed}/{phase}/{epoch}")
        rows = list(range(len(data.windows)))
        generator.shuffle(rows)
        pool = 50 * self.config.batch_size
        batches: list[list[int]] = []
        for start in range(0, len(rows), pool):
            batch: list[int] = []
            for row in sorted(rows[start : start + pool], key=lambda r: len(data.windows[r])):
                cells = (len(batch) + 1) * len(data.windows[row])
                if batch and (len(batch) == most_rows or cells > most_cells):
                    batches.append(batch)
                    batch = []
                batch.append(row)
            batches.append(batch)
        generator.shuffle(batches)
        processes: int = self.accelerator.num_processes
        even = -(-len(batches) // processes) * processes  # all processes make as many steps
        return (batches * processes)[:even][self.accelerator.process_index :: processes]

    def _seed(self, phase: int, epoch: int, step: int) -> None:
        place = (self.config.seed, phase, epoch, step, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1))

    def _checkpoint(self, optimizer: Any = None, *, force: bool = False) -> None:
        due = force or time.monotonic() - self._last_checkpoint >= self.config.checkpoint_seconds
        if self.directory is None or not due or not self.accelerator.is_main_process:
            return
        for name, module in self.modules.items():
            self.state.put(f"weights.{name}.", module.state_dict())
        if optimizer is not None:
            self.state.put("optimizer.", _flat_optimizer(optimizer))
            if self.accelerator.scaler is not None:
                self.state.scalars = self.accelerator.scaler.state_dict()
        save_state(self.directory, self.state, self.key)
        self._last_checkpoint = time.monotonic()


def _schedule(share: float, warmup: float, floor: float) -> float:
    """Rise linearly over the warm-up, then fall linearly to 0; never 0 at the first step."""
    return max(min(share / warmup if warmup > 0 else 1.0, (1 - share) / (1 - warmup)), floor)


def _flat_optimizer(optimizer: Any) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": torch.as_tensor(value) for index, entry in state.items() for key, value in entry.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    if not tensors:
        return
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
