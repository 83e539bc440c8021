"""A real TorchServe: every address, every shape of body, every kind of bad input."""

from __future__ import annotations

import http.client
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from tests.serve.bodies import BAD, GOOD, RAW, TEXT, as_json, assert_close, v2
from tests.serve.client import Client, Response
from vat_explain.attribution.vat import VATAttribution
from vat_explain.explainer import VATExplainer
from vat_explain.text import collate
from vat_serve.schema import schema
from vat_serve.server import HOST, Server

pytestmark = pytest.mark.serve

ANSWER = Draft202012Validator(schema("answer"))
ADDRESSES = {
    "/predictions/{}": False,
    "/predictions/{}/1.0": False,
    "/explanations/{}": True,
    "/invocations?model_name={}": False,
    "/v1/models/{}:predict": False,
    "/v1/models/{}:explain": True,
    "/v2/models/{}/infer": False,
    "/v2/models/{}/explain": True,
}
MODELS = ["tiny", "tiny-onnx"]
LEAKS = re.compile(r"Traceback|\.py\b|File \"|/(?:tmp|root|home|work|usr)/|vat_serve|Exception")


def check(response: Response) -> object:
    """Check what holds for every answer of ours; return it."""
    assert response.status in (200, 400, 413), response
    assert response.headers["content-type"] == "application/json"
    assert response.reason.isascii()
    ANSWER.validate(response.json)
    if response.status != 200:
        assert not LEAKS.search(response.body.decode()), response.body
    return response.json


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("address", "explains"), ADDRESSES.items())
def test_every_shape_at_every_address(client, model, address, explains):
    for name, body in GOOD.items():
        response = client.post(address.format(model), body)
        assert response.status == 200, (name, response)
        answer = check(response)
        if isinstance(body, dict) and "instances" in body:
            assert ("explanations" in answer) == explains, name
        elif name == "object":
            assert (answer["explanation"]["target"] is not None) == explains
            assert answer["model"]["backend"] == ("onnx" if "onnx" in model else "torch")


@pytest.mark.parametrize("model", MODELS)
def test_every_bad_body_is_refused(client, model):
    for name, (body, code) in BAD.items():
        if name == "too much to compare" and "onnx" in model:
            continue  # it has nothing to compare with
        response = client.post(f"/predictions/{model}", body)
        assert check(response)["code"] == code, name
        assert response.status == (413 if code == "too_large" else 400), name


def test_every_undecodable_body_is_refused(client):
    for name, (body, content_type, code) in RAW.items():
        response = client.send("POST", "/predictions/tiny", body, content_type)
        assert check(response)["code"] == code, name
        assert response.status == 400, name


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=utf-8", "application/octet-stream", None])
def test_plain_text(client, content_type):
    response = client.send("POST", "/predictions/tiny", TEXT.encode(), content_type)
    assert response.status == 200
    assert len(check(response)["explanation"]["words"]) == 8


def test_a_body_in_chunks(client):
    response = client.send("POST", "/predictions/tiny", iter([b'{"text": "go', b'od film"}']), "application/json")
    assert len(check(response)["explanation"]["words"]) == 2


def test_clients_that_hang_up_harm_nobody(client, server):
    before = worker_pids(server)
    body = as_json({"text": TEXT})
    head = f"POST /predictions/tiny HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {server.key()}\r\n"
    whole = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    for sent in (whole, whole[:-5], whole[:60]) * 10:
        with socket.create_connection((HOST, server.ports.inference), timeout=60) as connection:
            connection.sendall(sent)
    assert client.send("POST", "/predictions/tiny", body, "application/json").status == 200
    assert worker_pids(server) == before


def test_requests_without_a_body_are_refused(client):
    for method, path, content_type in (
        ("GET", "/predictions/tiny", None),
        ("GET", "/explanations/tiny?text=good", None),
        ("POST", "/predictions/tiny?text=good", None),
        ("POST", "/predictions/tiny", "application/json"),
    ):
        response = client.send(method, path, None, content_type)
        assert response.status == 400
        check(response)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"text=good&explain=True", "application/x-www-form-urlencoded"),
        (as_json({"text": TEXT}), "application/x-www-form-urlencoded"),
        (
            b'--B\r\nContent-Disposition: form-data; name="text"\r\n\r\ngood\r\n--B--\r\n',
            "multipart/form-data; boundary=B",
        ),
    ],
)
def test_forms_are_refused(client, body, content_type):
    response = client.send("POST", "/predictions/tiny", body, content_type)
    assert response.status == 400
    assert "application/json" in check(response)["error"]


def test_a_body_beyond_torchserves_limit(server, client):
    response = client.send("POST", "/predictions/tiny", b"x" * 6_600_000, "text/plain")
    assert response.status == 413
    assert client.post("/predictions/tiny", TEXT).status == 200


def test_a_long_text_is_read_in_windows(client):
    answer = check(client.post("/predictions/tiny", {"text": "good film " * 4000, "top_k": 3}))
    assert answer["explanation"]["windows"] > 50
    assert len(answer["explanation"]["words"]) == 3


def test_an_answer_beyond_torchserves_limit_is_refused(client, server):
    before = worker_pids(server)
    body = {"text": "a b " * 7_200, "return": ["words", "tokens", "class_scores"]}
    response = client.post("/predictions/tiny", body)
    assert response.status == 413
    assert "top_k" in check(response)["error"]
    assert worker_pids(server) == before


def test_wrong_keys_and_models(server, client):
    stranger = Client(server.ports.inference, "wrong")
    assert stranger.post("/predictions/tiny", TEXT).status == 400
    stranger.close()
    assert client.post("/predictions/missing", TEXT).status == 404


def test_the_model_api_is_off(server):
    manager = Client(server.ports.management, server.key("management"))
    assert manager.send("POST", "/models?url=tiny.mar").status == 405
    assert manager.send("DELETE", "/models/tiny").status == 405
    manager.close()


def test_a_client_cannot_forge_an_explanation_at_predictions(server):
    connection = http.client.HTTPConnection(HOST, server.ports.inference, timeout=60)
    headers = {"Authorization": f"Bearer {server.key()}", "Content-Type": "application/json", "explain": "True"}
    connection.request("POST", "/predictions/tiny", as_json({"text": TEXT}), headers)
    assert json.loads(connection.getresponse().read())["explanation"]["target"] is None
    connection.close()


def test_mixed_requests_at_once_get_what_they_get_alone(server):
    calls = [
        (address.format(model), as_json(body), "application/json")
        for model in MODELS
        for address in ADDRESSES
        for body in (*GOOD.values(), {"text": ""}, {"text": TEXT, "target": 99})
    ]
    calls += [("/predictions/tiny", body, content_type) for body, content_type, _ in RAW.values()]

    def ask(share: list[tuple[str, bytes, str]]) -> list[Response]:
        client = Client(server.ports.inference, server.key())
        try:
            return [client.send("POST", *call) for call in share]
        finally:
            client.close()

    alone = ask(calls)
    with ThreadPoolExecutor(16) as pool:
        shares = list(pool.map(ask, [calls[i::16] for i in range(16)]))
    for i, share in enumerate(shares):
        for response, expected in zip(share, alone[i::16], strict=True):
            assert response.status == expected.status
            assert_close(check(response), expected.json)


def test_metrics_stand_at_the_metrics_address(server, client):
    client.post("/explanations/tiny", TEXT)
    client.post("/predictions/tiny", {"text": ""})
    reader = Client(server.ports.metrics, "")
    text = reader.send("GET", "/metrics").body.decode()
    reader.close()
    for name in ("VatTexts", "VatExplanations", "VatTokens", "VatTextsInWindows", "VatBadRequests"):
        assert re.search(rf'^{name}{{ModelName="tiny".* [1-9]', text, re.MULTILINE), name
    assert re.search(r'^VatExplanationSeconds_count{ModelName="tiny"', text, re.MULTILINE)


def test_other_methods_need_the_torch_model(client):
    body = {"text": TEXT, "method": "ig"}
    assert check(client.post("/explanations/tiny", body))["explanation"]["method"] == "ig"
    response = client.post("/explanations/tiny-onnx", body)
    assert response.status == 400
    assert "torch backend" in check(response)["error"]


def test_both_backends_and_vat_attribution_agree(client, bundle):
    explainer = VATExplainer.from_pretrained(bundle)
    attribution = VATAttribution(explainer)
    for text in (TEXT, "good", "we never like the slow service at this hotel, not one bit"):
        batch = collate(explainer.encoder.encode(text).windows, explainer.learner.special.pad)
        ids, *arguments = (torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask", "token_type_ids"))
        for target in (None, 0, 2):
            expected = attribution.attribute(ids, target=target, additional_forward_args=tuple(arguments))[0, 1:-1]
            for model in MODELS:
                answer = check(client.post(f"/predictions/{model}", {"text": text, "target": target}))
                scores = [token["score"] for token in answer["explanation"]["tokens"]]
                np.testing.assert_allclose(scores, expected.detach(), atol=1e-4)


def test_v2_answers_hold_the_explanation_as_json(client):
    answer = check(client.post("/v2/models/tiny/infer", v2(TEXT, "good")))
    explanations = next(output for output in answer["outputs"] if output["name"] == "explanation")
    assert [len(json.loads(one)["words"]) for one in explanations["data"]] == [8, 1]


def worker_pids(server: Server) -> list[int]:
    return [worker["pid"] for model in server.models for worker in server.workers(model)]
