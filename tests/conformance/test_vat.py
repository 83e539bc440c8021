"""Every row of captum's contract on VATAttribution and LayerVATAttribution, for three families of models."""

from __future__ import annotations

import pytest

from tests.conformance import small
from vat_explain.attribution.vat import LayerVATAttribution, VATAttribution
from vat_explain.errors import InputTypeError
from vat_explain.models import Classifier
from vat_explain.testing import check_attributor
from vat_explain.testing.matrix import EXEMPTIONS


def failures(make, classifier: Classifier, exemptions=None):
    results = check_attributor(make, classifier, exemptions)
    exempt = {result.row for result in results if result.status == "exempt"}
    assert exempt == {25, *(exemptions or {})}  # scores come from one pass: there is nothing to perturb together
    return [f"{result.row}: {result.reason}" for result in results if result.status == "failed"]


@pytest.mark.parametrize("architecture", small.FAMILIES)
@pytest.mark.parametrize("backbone", ["readout", "copy"])
def test_vat_conforms(architecture, backbone):
    made = small.explainer(architecture, backbone)
    assert failures(lambda _: VATAttribution(made), made.learner) == []


@pytest.mark.parametrize("architecture", small.FAMILIES)
def test_layer_vat_conforms(architecture):
    made = small.explainer(architecture)
    layer = made.learner.model.base_model.embeddings
    assert failures(lambda _: LayerVATAttribution(made, layer), made.learner, EXEMPTIONS["LayerVATAttribution"]) == []


def test_a_model_without_compressor_is_refused_with_what_to_do():
    with pytest.raises(InputTypeError, match=r"got Classifier; fit one to the model first: vat_explain\.fit"):
        VATAttribution(small.explainer("bert").learner)
