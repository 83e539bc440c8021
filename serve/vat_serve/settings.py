"""What the operator of an endpoint decides, apart from TorchServe's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from vat_explain.errors import InputError

# Captum's methods to compare with, and how far they go: each bounded to a fraction of what the default would cost.
_METHODS: dict[str, dict[str, Any]] = {
    "attention": {},
    "rollout": {},
    "grad-l2": {},
    "grad-x-input": {},
    "ig": {"steps": 20},
    "deeplift": {},
    "gradient-shap": {"samples": 10},
    "leave-one-out": {},
    "occlusion": {},
    "lime": {"samples": 100},
    "kernel-shap": {"samples": 100},
}


@dataclass(frozen=True)
class Settings:
    """Bounds on what one request may cost, and what it may ask for.

    Attributes
    ----------
    threads : int
        Threads of one worker. More than 1 slows all workers down unless each has the cores to itself.
    max_texts : int
        Most texts in one body.
    max_characters : int
        Most characters in one body, over all its texts.
    max_tokens : int
        Most tokens that the model reads for one body, those that several windows share counted in each.
    max_comparison_tokens : int
        The same for the texts that ask for another method than VAT.
    max_answer_bytes : int
        Longest answer; TorchServe kills the worker over one that is longer than its own limit (6,553,500).
    methods : mapping of str to mapping
        Methods to compare VAT with, by name, each with its options (`vat_explain.attribution.standard`).

    Raises
    ------
    InputError
        If a number is not a whole number of 1 or more, or methods is no mapping of mappings.
    """

    threads: int = 1
    max_texts: int = 64
    max_characters: int = 50_000
    max_tokens: int = 20_000
    max_comparison_tokens: int = 256
    max_answer_bytes: int = 6_000_000
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: dict(_METHODS))

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name != "methods" and (type(value) is not int or value < 1):
                raise InputError(f"vat.{entry.name} is {value!r}; give a whole number of 1 or more")
        if not isinstance(self.methods, Mapping) or not all(isinstance(v, Mapping) for v in self.methods.values()):
            raise InputError("vat.methods must map names of methods to their options, as in {ig: {steps: 20}}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Settings:
        """Read the section ``vat`` of a model-config.yaml.

        Raises
        ------
        InputError
            If it is no mapping, or has a setting that does not exist.
        """
        if values is not None and not isinstance(values, Mapping):
            raise InputError(f"vat is {values!r}; give a mapping of settings")
        known = [entry.name for entry in fields(cls)]
        for name in values or {}:
            if name not in known:
                raise InputError(f"vat.{name} is no setting; there are {', '.join(known)}")
        return cls(**(values or {}))
