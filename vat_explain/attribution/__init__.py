"""Attributors behind captum's interface: VAT, the standard ones by name, and your own."""

from __future__ import annotations

from vat_explain.attribution.standard import STANDARD, Method, method_names, register, standard_method
from vat_explain.attribution.vat import LayerVATAttribution, VATAttribution

__all__ = ["STANDARD", "LayerVATAttribution", "Method", "VATAttribution", "method_names", "register", "standard_method"]
