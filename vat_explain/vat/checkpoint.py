"""The state of an unfinished training on disk: safetensors and JSON, replaced as a whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vat_explain.errors import TrainingError

FORMAT = 3


@dataclass
class Position:
    """How far training is.

    Attributes
    ----------
    phase, epoch, step
        Number of the phase, of the epoch in it, and of the next step in that.
    best_score
        Best development score of the phase so far.
    finished
        Whether the phase is over, its best state restored.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    best_score: float | None = None
    finished: bool = False


@dataclass
class State:
    """All that a training needs to go on as if it had not been stopped.

    Attributes
    ----------
    position : Position
    tensors : dict of str to Tensor
        Weights, best weights and optimizer state under prefixed names.
    history : list of dict
        Figures of the epochs that were scored.
    scalars : dict of str to float
        State of the gradient scaler, if there is one.
    """

    position: Position = field(default_factory=Position)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    scalars: dict[str, Any] = field(default_factory=dict)

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under a prefix, by the rest of their names."""
        return {name[len(prefix) :]: t for name, t in self.tensors.items() if name.startswith(prefix)}

    def put(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Replace the tensors under a prefix."""
        for name in [name for name in self.tensors if name.startswith(prefix)]:
            del self.tensors[name]
        self.tensors.update({prefix + name: t.detach().cpu() for name, t in tensors.items()})


def save_state(directory: Path, state: State, key: str) -> None:
    """Write a state; the one before it stays until the new one is complete.

    Parameters
    ----------
    directory : Path
        Made if missing.
    state : State
    key : str
        Says what is trained with which settings; a state is only loaded for the same key.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    # Safetensors refuses tensors that share memory, which tied weights do.
    tensors = {name: t.clone(memory_format=torch.contiguous_format) for name, t in state.tensors.items()}
    record = {
        "format": FORMAT,
        "key": key,
        "position": asdict(state.position),
        "history": state.history,
        "scalars": state.scalars,
    }
    temporary = directory / "state.tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata={"state": json.dumps(record)})
        os.replace(temporary, directory / "state.safetensors")
    except (OSError, safetensors.SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink()
            directory.rmdir()  # unless it holds an earlier state
        raise TrainingError(
            f"cannot write a checkpoint to {directory}: {error}; make room or choose another output"
        ) from error


def load_state(directory: Path, key: str) -> State | None:
    """Read the last complete state, or return None if there is none.

    Raises
    ------
    TrainingError
        If it was written for other data or settings, or cannot be read.
    """
    path = directory / "state.safetensors"
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as stream:
            record = json.loads(stream.metadata()["state"])
        tensors = load_file(path)
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"the checkpoint {path} cannot be read ({error}); delete {directory} and start anew"
        ) from error
    if record["format"] != FORMAT or record["key"] != key:
        raise TrainingError(
            f"the checkpoint in {directory} belongs to other data or settings, or to another version; resume with "
            "those of the interrupted run, or delete it and start anew"
        )
    return State(Position(**record["position"]), tensors, record["history"], record["scalars"])


def discard(directory: Path) -> None:
    """Delete the states of a finished training."""
    shutil.rmtree(directory, ignore_errors=True)
