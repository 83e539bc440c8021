"""TorchServe's own loader, service and protocol, in this process."""

from __future__ import annotations

import io
import json
import logging
import struct
import sys
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.serve.bodies import BAD, GOOD, RAW, TEXT, as_json
from vat_serve.archive import config_text
from vat_serve.server import LOAD_FAILURE
from vat_serve.service import PHRASES

pytestmark = pytest.mark.usefixtures("torchserve")

if find_spec("ts"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file with its version to the collector
        import ts  # noqa: F401
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.model_loader import TsModelLoader
    from ts.protocol.otf_message_handler import retrieve_msg


class Socket:
    """What the worker reads its messages from."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def recv(self, length: int) -> bytes:
        return self._stream.read(length)


def number(value: int) -> bytes:
    return struct.pack("!i", value)


def framed(value: bytes) -> bytes:
    return number(len(value)) + value


def encode_batch(requests: list[tuple[bytes, str, bool]]) -> bytes:
    """Write a batch as TorchServe's frontend sends it to a worker."""
    message = b"I"
    for i, (body, content_type, explains) in enumerate(requests):
        message += framed(f"request-{i}".encode())
        message += framed(b"explain") + framed(str(explains).encode()) + number(-1)
        message += framed(b"body") + framed(content_type.encode()) + framed(body) + number(-1)
    return message + number(-1)


def decode_answers(message: bytes) -> list[dict[str, Any]]:
    """Read what a worker sends back, as the frontend does."""
    stream = io.BytesIO(message)

    def take() -> int:
        return int(struct.unpack("!i", stream.read(4))[0])

    def text() -> str:
        return stream.read(take()).decode()

    assert take() == 200
    assert text() == "Prediction success"
    answers = []
    while (length := take()) != -1:
        answer: dict[str, Any] = {
            "id": stream.read(length).decode(),
            "type": text(),
            "status": take(),
            "phrase": text(),
        }
        answer["headers"] = {text(): text() for _ in range(take())}
        answer["body"] = stream.read(take())
        answers.append(answer)
    assert not stream.read()
    return answers


@pytest.fixture(scope="module")
def unpacked(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(store / "tiny.mar") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> MetricsCacheYamlImpl:
    path = tmp_path_factory.mktemp("metrics") / "metrics.yaml"
    path.write_text(config_text("metrics.yaml"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # and this file too
        cache = MetricsCacheYamlImpl(config_file_path=str(path))
    cache.initialize_cache()
    cache.model_name = "tiny"
    return cache


@pytest.fixture(scope="module")
def worker(unpacked: Path, metrics: MetricsCacheYamlImpl) -> Any:
    manifest = json.loads((unpacked / "MAR-INF" / "MANIFEST.json").read_text())
    service = TsModelLoader().load("tiny", str(unpacked), manifest["model"]["handler"], None, 8, metrics_cache=metrics)
    service.set_cl_socket(None)
    return service


def ask(worker: Any, *requests: tuple[bytes, str, bool]) -> list[dict[str, Any]]:
    command, batch = retrieve_msg(Socket(encode_batch(list(requests))))
    assert command == b"I"
    answers = decode_answers(worker.predict(batch))
    assert [answer["id"] for answer in answers] == [f"request-{i}" for i in range(len(requests))]
    for answer in answers:
        assert answer["type"] == "application/json"
        assert answer["phrase"] == PHRASES[answer["status"]]
        assert answer["phrase"].isascii()
    return answers


GOOD_REQUEST = (as_json({"text": TEXT}), "application/json", False)


@pytest.mark.parametrize("explains", [False, True])
def test_good_bodies_in_one_batch(worker, explains):
    answers = ask(worker, *((as_json(body), "application/json", explains) for body in GOOD.values()))
    assert {answer["status"] for answer in answers} == {200}


def test_bad_bodies_in_one_batch_with_good_ones(worker):
    requests, statuses = [], []
    for body, code in BAD.values():
        requests += [(as_json(body), "application/json", False), GOOD_REQUEST]
        statuses += [413 if code == "too_large" else 400, 200]
    assert [answer["status"] for answer in ask(worker, *requests)] == statuses


@pytest.mark.parametrize(("body", "content_type", "code"), RAW.values(), ids=RAW)
def test_undecodable_bodies_with_a_good_one(worker, body, content_type, code, caplog):
    caplog.set_level(logging.CRITICAL)  # TorchServe logs a traceback for each
    bad, good = ask(worker, (body, content_type, False), GOOD_REQUEST)
    assert (bad["status"], good["status"]) == (400, 200)
    assert json.loads(bad["body"])["code"] == code


def test_each_request_of_a_mixed_batch_gets_its_own_answer(worker):
    predicted, explained, again = ask(worker, GOOD_REQUEST, (*GOOD_REQUEST[:2], True), GOOD_REQUEST)
    assert json.loads(predicted["body"])["explanation"]["target"] is None
    assert json.loads(explained["body"])["explanation"]["target"] == json.loads(explained["body"])["label"]
    assert predicted["body"] == again["body"]


def test_plain_text(worker):
    for content_type in ("text/plain", "text/plain; charset=utf-8", "application/octet-stream", ""):
        [answer] = ask(worker, (TEXT.encode(), content_type, False))
        assert answer["status"] == 200, content_type


def test_bodies_that_the_frontend_takes_apart(worker):
    request = {"requestId": b"request-0", "headers": [], "parameters": []}
    [answer] = decode_answers(worker.predict([request]))
    assert answer["status"] == 400
    forged = {"name": "explain", "contentType": "text/plain", "value": "True"}
    body = {"name": "data", "contentType": "text/plain", "value": TEXT}
    [answer] = decode_answers(worker.predict([request | {"parameters": [forged, body]}]))
    assert json.loads(answer["body"])["explanation"]["target"] is None


def test_metrics_are_counted(worker, metrics, caplog):
    caplog.set_level(logging.INFO)
    long = as_json({"text": "good " * 500})
    ask(worker, GOOD_REQUEST, (b"{", "application/json", False), (long, "application/json", True))
    counted = [record.getMessage() for record in caplog.records if "[METRICS]" in record.getMessage()]
    expected = {"VatTexts": 2, "VatExplanations": 2, "VatTextsInWindows": 1, "VatBadRequests": 1}
    for name, count in expected.items():
        assert any(f"{name}.Count:{count}" in line for line in counted), counted
    assert any("VatTokens.Count" in line for line in counted)
    assert any("VatExplanationSeconds" in line for line in counted)


def test_failures_are_counted(worker, monkeypatch, caplog):
    def broken(encoded: object) -> None:
        raise RuntimeError("/secret/path")

    for name in ("score", "predict"):
        monkeypatch.setattr(worker._entry_point.__self__._service._backend, name, broken)
    caplog.set_level(logging.INFO)
    [answer] = ask(worker, GOOD_REQUEST)
    assert answer["status"] == 500
    assert b"secret" not in answer["body"]
    assert any("VatFailures.Count:1" in record.getMessage() for record in caplog.records)


def test_one_thread_is_used(worker):
    import torch

    assert torch.get_num_threads() == 1


def test_a_broken_archive_says_why(unpacked, metrics, tmp_path, caplog):
    manifest = tmp_path / "MAR-INF" / "MANIFEST.json"
    manifest.parent.mkdir()
    manifest.write_bytes((unpacked / "MAR-INF" / "MANIFEST.json").read_bytes())
    (tmp_path / "model-config.yaml").write_text("vat: {max_text: 3}\n")
    with pytest.raises(Exception, match="max_text"):
        TsModelLoader().load("tiny", str(tmp_path), "vat_serve.handler", None, 8, metrics_cache=metrics)
    assert LOAD_FAILURE in caplog.text
    assert "max_text is no setting" in caplog.text


def test_the_handler_is_the_only_file_that_needs_torchserve():
    assert "vat_serve.handler" in sys.modules
