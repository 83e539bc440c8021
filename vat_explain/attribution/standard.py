"""The attributors that users know, by name, ready for text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from captum.attr import Attribution

from vat_explain.attribution.attention import AttentionRollout, RawAttention
from vat_explain.attribution.base import Random
from vat_explain.attribution.gradients import (
    DeepLiftOfText,
    GradientL2,
    GradientShapOfText,
    GradientXInput,
    IntegratedGradientsOfText,
)
from vat_explain.attribution.perturbation import (
    KernelShapOfText,
    LeaveOneOut,
    LimeOfText,
    Occlusion,
    ShapleySampling,
)
from vat_explain.errors import InputError
from vat_explain.models import Classifier

Factory = Callable[..., Attribution]


@dataclass(frozen=True)
class Method:
    """An attributor under the name it is asked for by.

    Attributes
    ----------
    name : str
    attribution : Attribution
        Called as ``attribution.attribute(ids, target=..., additional_forward_args=(attention_mask, token_type_ids))``.
    targeted : bool
        Whether it explains a class, without a target the predicted one; otherwise its scores are class-free.
    """

    name: str
    attribution: Attribution
    targeted: bool

    @property
    def identity(self) -> str:
        """The name with a digest of class and plain settings, which tells methods of the same name apart."""
        kind = type(self.attribution)
        plain = {k: v for k, v in vars(self.attribution).items() if v is None or isinstance(v, str | int | float)}
        content = json.dumps([kind.__module__, kind.__qualname__, self.targeted, plain], sort_keys=True)
        return f"{self.name} {hashlib.sha256(content.encode()).hexdigest()[:8]}"


_FACTORIES: dict[str, Factory] = {
    "random": Random,
    "attention": RawAttention,
    "rollout": AttentionRollout,
    "grad-l2": GradientL2,
    "grad-x-input": GradientXInput,
    "ig": IntegratedGradientsOfText,
    "ig-pad": partial(IntegratedGradientsOfText, baseline="pad"),
    "ig-zero": partial(IntegratedGradientsOfText, baseline="zero"),
    "deeplift": DeepLiftOfText,
    "gradient-shap": GradientShapOfText,
    "leave-one-out": LeaveOneOut,
    "occlusion": Occlusion,
    "lime": LimeOfText,
    "kernel-shap": KernelShapOfText,
    "shapley-sampling": ShapleySampling,
}

STANDARD: tuple[str, ...] = tuple(_FACTORIES)
"""Names of the methods that come with the package."""


def standard_method(name: str, classifier: Classifier, **options: Any) -> Method:
    """Make an attributor for a classifier.

    Parameters
    ----------
    name : str
        One of `STANDARD`, or a name given to `register`.
    classifier : Classifier
        The model to explain.
    **options
        What its class takes, such as ``steps``, ``samples``, ``window``, ``probabilities`` or ``max_tokens``.

    Returns
    -------
    Method

    Raises
    ------
    InputError
        If there is no such method, or it does not take one of the options.
    ModelError
        If the model does not allow it.
    VatExplainError
        If scikit-learn, which LIME and KernelSHAP need, is missing.

    Examples
    --------
    >>> method = standard_method("ig", classifier, steps=20)
    >>> scores = method.attribution.attribute(ids, additional_forward_args=(attention_mask, token_type_ids))
    """
    if name not in _FACTORIES:
        raise InputError(f"there is no method {name!r}; choose from {', '.join(_FACTORIES)}, or register it first")
    try:
        attribution = _FACTORIES[name](classifier, **options)
    except TypeError as error:
        if options:
            raise InputError(f"method {name!r} does not take the options {', '.join(options)}: {error}") from error
        raise
    return Method(name, attribution, getattr(attribution, "targeted", True))


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, registered ones included."""
    return tuple(_FACTORIES)


def register(name: str, factory: Factory) -> None:
    """Add a method of your own, so that it is evaluated beside the standard ones.

    Parameters
    ----------
    name : str
        A name that is not taken.
    factory : callable
        Takes the `Classifier`, and what options you like, and returns a captum ``Attribution`` whose ``attribute``
        takes ids, ``target`` and ``additional_forward_args``. Set an attribute ``targeted = False`` on it if its
        scores do not depend on the class.

    Raises
    ------
    InputError
        If the name is taken.

    Examples
    --------
    >>> register("mine", lambda classifier: MyAttribution(classifier))
    """
    if name in _FACTORIES:
        raise InputError(f"there is a method {name!r} already; register yours under another name")
    _FACTORIES[name] = factory
