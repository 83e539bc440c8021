"""Short opinions, for tests that fit something."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from tests import tiny

LABELS = ("bad", "good")


def opinions(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Distinct short texts of which one word gives the label."""
    draw = random.Random(seed)
    words = {"good": ["great", "brilliant", "lovely"], "bad": ["awful", "terrible", "dull"]}
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        label = LABELS[len(rows) % 2]
        filler = draw.choices(tiny.WORDS, k=6)
        text = " ".join(
            ["the", draw.choice(["film", "plot", "room", "food"]), "was", draw.choice(words[label]), *filler]
        )
        rows[text] = {"text": text, "label": label}
    return list(rows.values())


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as a CSV file with a header."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
