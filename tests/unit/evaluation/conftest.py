from __future__ import annotations

import pytest

from tests import tiny
from vat_explain.models import text_encoder


@pytest.fixture(scope="package")
def bert():
    model = tiny.classifier("bert", 2)
    return model, text_encoder(tiny.tokenizer(), model)
