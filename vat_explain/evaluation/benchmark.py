"""Evaluate explanation methods beside each other: the same texts, the same code, intervals, and what they cost."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

import vat_explain
from vat_explain.attribution.standard import Method, method_names, standard_method
from vat_explain.attribution.vat import VATAttribution
from vat_explain.data import Example
from vat_explain.errors import DataError, InputError, ModelError, VatExplainError
from vat_explain.evaluation.journal import Journal
from vat_explain.evaluation.plausibility import marked_words
from vat_explain.evaluation.report import write_report
from vat_explain.evaluation.results import Evaluation, collect
from vat_explain.evaluation.texts import TEXT, Batch, Bench, Settings
from vat_explain.explainer import VATExplainer
from vat_explain.files import make_folder
from vat_explain.models import Classifier
from vat_explain.progress import progress_bar
from vat_explain.text import Encoded, TextEncoder

VAT_METHODS = ("vat", "vat-class")
BATCH_TEXTS = 32
Spans = Sequence[tuple[int, int]]


def evaluate(
    model: VATExplainer | Classifier,
    examples: Sequence[Example],
    *,
    methods: Sequence[str | Method] | None = None,
    encoder: TextEncoder | None = None,
    judge: Classifier | None = None,
    planted: Sequence[Spans] | None = None,
    limit: int | None = None,
    settings: Settings | None = None,
    output: Path | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Judge explanations of a classifier by every metric, with intervals and cost.

    Memory does not grow with the number of texts, apart from one number for each metric.

    Parameters
    ----------
    model : VATExplainer or Classifier
        The model that is explained; an explainer is judged on its learner.
    examples : sequence of Example
        Texts that nothing was fitted to. Rationales, where they have them, are compared with the explanations.
    methods : sequence of str or Method, optional
        Names (``"vat"``, ``"vat-class"``, those of `vat_explain.attribution.standard` and registered ones) or methods
        of your own. When left out: all that the model and the installed packages allow; the provenance says which
        could not run.
    encoder : TextEncoder, optional
        Needed for a bare classifier; an explainer brings its own.
    judge : Classifier, optional
        Trained on random masks only (EVAL-X), for ``encoding_gap`` and ``class_leak``; an explainer may bring one.
    planted : sequence of spans, optional
        For each example the characters of planted shortcuts, for ``shortcut_precision`` and ``shortcut_rank``.
    limit : int, optional
        Evaluate so many examples, drawn by the seed.
    settings : Settings, optional
    output : Path, optional
        Folder for ``results.json``, ``results.csv``, ``report.html`` and the interim results that a second call goes
        on from.
    quiet : bool
        Show no progress bar.

    Raises
    ------
    InputError
        If a method is unknown or named twice, the encoder is missing, or the model is neither of these.
    ModelError
        If a method that was named cannot run with this model.
    VatExplainError
        If a method that was named needs a package that is not installed.
    DataError
        If there are no examples, a text cannot be explained, or the folder cannot be written.
    """
    settings = settings or Settings()
    explainer = model if isinstance(model, VATExplainer) else None
    classifier = explainer.learner if explainer else model
    if not isinstance(classifier, Classifier):
        raise InputError(
            f"cannot evaluate a {type(model).__name__}; pass an explainer, or vat_explain.models.Classifier(model, "
            "SpecialTokens.from_tokenizer(tokenizer)) with encoder=text_encoder(tokenizer, classifier)"
        )
    encoder = encoder or (explainer.encoder if explainer else None)
    judge = judge or (explainer.judge if explainer else None)
    if encoder is None:
        raise InputError("a bare classifier comes without tokenizer; pass encoder=text_encoder(tokenizer, classifier)")
    if not examples or (limit is not None and limit < 1):
        raise DataError("there is no text to evaluate on; pass at least one example, and a limit of at least 1")
    if planted is not None and len(planted) != len(examples):
        raise DataError(f"there are planted spans for {len(planted)} of {len(examples)} examples; give them for each")
    left_out: dict[str, str] = {}
    chosen = (
        _all_methods(classifier, explainer, left_out) if methods is None else _named(methods, classifier, explainer)
    )
    models = (classifier,) if explainer is None else (explainer.model,)
    bench = Bench(classifier, settings, judge, models)
    numbers = _choose(len(examples), limit, settings.seed)
    share = _rationale_share(encoder, examples, numbers)
    digests = {"model": _model_digest(explainer.model if explainer else classifier, judge)}
    digests["data"] = _data_digest(examples, planted)
    key = json.dumps([digests, encoder.digest(), classifier.task, asdict(settings), numbers, vat_explain.__version__])
    with ExitStack() as stack:
        folder = make_folder(stack.enter_context(tempfile.TemporaryDirectory()) if output is None else output)
        journal = Journal(folder / f"interim-{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl")
        stack.callback(journal.close)
        bar = stack.enter_context(progress_bar("evaluating", len(numbers) * (len(chosen) + 1), quiet=quiet))
        for start in range(0, len(numbers), BATCH_TEXTS):
            part = numbers[start : start + BATCH_TEXTS]
            todo = [method for method in chosen if any((method.identity, number) not in journal for number in part)]
            described = all((TEXT, number) in journal for number in part)
            bar.advance(len(part) * (len(chosen) - len(todo) + described))
            if described and not todo:
                continue
            batch = Batch(
                part,
                [_encode(encoder, examples[number]) for number in part],
                [examples[number].rationale for number in part],
                [planted[number] if planted is not None else () for number in part],
                share,
            )
            if not described:
                journal.append(bench.describe(batch))
                bar.advance(len(part))
            records = [journal.read(TEXT, number) for number in part]
            for method in todo:
                try:
                    journal.append(bench.measure(batch, method, records))
                except ModelError as error:
                    if methods is not None or method.name in VAT_METHODS:
                        raise
                    left_out[method.name] = str(error)
                    chosen.remove(method)
                bar.advance(len(part), method=method.name)
        provenance = {
            "vat_explain": vat_explain.__version__,
            "torch": torch.__version__,
            "device": str(classifier.embedding_layer.weight.device),
            "model_sha256": digests["model"],
            "data_sha256": digests["data"],
            "task": classifier.task,
            "labels": list(classifier.labels),
            "texts": len(numbers),
            "settings": asdict(settings) | {"operators": list(settings.operators)},
            "units": "tokens; words (sums of their tokens) for token_f1, iou_f1, auprc and shortcut metrics",
        }
        if left_out:
            provenance["left_out"] = left_out
        evaluation = collect(journal, chosen, numbers, settings.seed, provenance)
        if output is not None:
            evaluation.save(folder)
            write_report(folder / "report.html", evaluation, examples, encoder)
    return evaluation


def _all_methods(classifier: Classifier, explainer: VATExplainer | None, left_out: dict[str, str]) -> list[Method]:
    """Return the methods that can be made, and note why others cannot."""
    chosen = _named(VAT_METHODS, classifier, explainer) if explainer else []
    for name in method_names():
        try:
            chosen.append(standard_method(name, classifier))
        except VatExplainError as error:
            left_out[name] = str(error)
    return chosen


def _named(methods: Sequence[str | Method], classifier: Classifier, explainer: VATExplainer | None) -> list[Method]:
    chosen: list[Method] = []
    for method in methods:
        if isinstance(method, Method):
            chosen.append(method)
        elif method in VAT_METHODS:
            if explainer is None:
                raise InputError(
                    f"method {method!r} needs a fitted compressor; pass a VATExplainer instead of the model"
                )
            chosen.append(Method(method, VATAttribution(explainer), method == "vat-class"))
        else:
            chosen.append(standard_method(method, classifier))
    names = [method.name for method in chosen]
    if not names or len(set(names)) < len(names) or TEXT in names:
        raise InputError(f"methods are {', '.join(names) or 'none'}; name at least one, and each once")
    return chosen


def _choose(total: int, limit: int | None, seed: int) -> list[int]:
    if limit is None or limit >= total:
        return list(range(total))
    drawn = np.random.default_rng(seed).choice(total, limit, replace=False)
    return sorted(int(number) for number in drawn)


def _encode(encoder: TextEncoder, example: Example) -> Encoded:
    try:
        return encoder.encode(example.text, example.text_pair)
    except InputError as error:
        raise DataError(f"row {example.row}: {error}") from None


def _rationale_share(encoder: TextEncoder, examples: Sequence[Example], numbers: Sequence[int]) -> float:
    """Return the mean share of words of the first text that people marked, over the texts where they marked any."""
    shares = []
    for number in numbers:
        if examples[number].rationale:
            encoded = _encode(encoder, examples[number])
            marked = marked_words(encoded, examples[number].rationale)[encoded.word_segments == 0]
            if marked.any():
                shares.append(float(marked.mean()))
    return float(np.mean(shares)) if shares else 0.0


def _model_digest(model: nn.Module, judge: Classifier | None) -> str:
    digest = hashlib.sha256()
    for module in (model, *([] if judge is None else [judge])):
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _data_digest(examples: Sequence[Example], planted: Sequence[Spans] | None) -> str:
    digest = hashlib.sha256()
    for number, example in enumerate(examples):
        spans = [list(map(list, example.rationale)), list(map(list, planted[number])) if planted is not None else []]
        digest.update(json.dumps([example.text, example.text_pair, spans]).encode() + b"\n")
    return digest.hexdigest()
