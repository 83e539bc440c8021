from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from tests import bundles
from tests.serve.bodies import BAD, GOOD, TEXT, assert_close, v2
from vat_explain.attribution.vat import VATAttribution
from vat_explain.errors import InputError
from vat_explain.text import collate
from vat_serve.backends import BUNDLE
from vat_serve.schema import schema
from vat_serve.service import PHRASES, Request, Service
from vat_serve.settings import Settings

ANSWER = Draft202012Validator(schema("answer"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    folder = tmp_path_factory.mktemp("unpacked")
    bundles.save(folder / BUNDLE, bundles.vat_model(num_labels=3))
    return Service.load(folder, name="tiny")


def ask(service: Service, *requests: Request):
    answers = service.answer(requests)
    assert len(answers) == len(requests)
    for answer in answers:
        assert answer.status in PHRASES
        ANSWER.validate(json.loads(answer.body))
    return [(answer.status, json.loads(answer.body)) for answer in answers]


@pytest.mark.parametrize("explains", [False, True])
@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_good_bodies_are_answered_in_their_shape(service, body, explains):
    [(status, answer)] = ask(service, Request(body, explains=explains))
    assert status == 200, answer
    if isinstance(body, list):
        assert len(answer) == len(body)
    elif isinstance(body, dict) and "instances" in body:
        assert len(answer["predictions"]) == len(body["instances"])
        assert ("explanations" in answer) == explains
    elif isinstance(body, dict) and "inputs" in body:
        assert answer["model_name"] == "tiny"
        assert answer.get("id") == body.get("id")
    else:
        assert answer["explanation"]["method"] == "vat"
        assert answer["label"] in service._backend.origin.labels


@pytest.mark.parametrize(("body", "code"), BAD.values(), ids=BAD)
def test_bad_bodies_are_refused_and_their_neighbours_answered(service, body, code):
    good = Request({"text": TEXT})
    alone = ask(service, good)[0]
    before, (status, answer), after = ask(service, good, Request(body), good)
    assert_close(before, alone)
    assert_close(after, alone)
    assert status == (413 if code == "too_large" else 400)
    assert answer["code"] == code


def test_what_the_model_would_read_is_bounded(service):
    dots = {"text": ". " * 1500, "text_pair": ". " * 1500}  # few characters, many windows
    before, (status, answer) = ask(service, Request({"text": TEXT}), Request(dots))
    assert before[0] == 200
    assert (status, answer["code"]) == (413, "too_large")
    assert "tokens in their windows" in answer["error"]


@pytest.mark.parametrize("shape", ["list", "v1", "v2"])
def test_too_many_texts_are_refused_before_they_are_read(service, shape):
    texts = ["a"] * 300_000
    body = {"list": texts, "v1": {"instances": texts}, "v2": v2(*texts)}[shape]
    tracemalloc.start()
    [(status, answer)] = ask(service, Request(body))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (status, answer["code"]) == (413, "too_large")
    assert "300000 texts" in answer["error"]
    assert peak < 10_000_000


@pytest.mark.parametrize("body", [{"return": ["class_scores"]}, {"return": ["class_scores", "words"], "method": "ig"}])
def test_class_scores_that_there_are_not_are_refused(service, body):
    [(status, answer)] = ask(service, Request({"text": TEXT, **body}))
    assert status == 400
    assert "only the method vat has" in answer["error"]


def test_batches_give_what_requests_get_alone(service):
    requests = [Request(body, explains=number % 2 == 0) for number, body in enumerate(GOOD.values())]
    together = ask(service, *requests)
    for request, (status, answer) in zip(requests, together, strict=True):
        [(alone_status, alone)] = ask(service, request)
        assert status == alone_status
        assert_close(answer, alone)


def test_answers_agree_with_vat_attribution(service, tmp_path):
    attribution = VATAttribution(service._backend._explainer)
    encoded = service._backend.encoder.encode(TEXT)
    batch = collate(encoded.windows, 0)
    arguments = tuple(torch.from_numpy(batch[name]) for name in ("input_ids", "attention_mask", "token_type_ids"))
    [(_, whole), (_, part)] = ask(service, Request({"text": TEXT}), Request({"text": TEXT, "target": 2}))
    for answer, target in ((whole, None), (part, 2)):
        expected = attribution.attribute(arguments[0], target=target, additional_forward_args=arguments[1:])[0, 1:-1]
        got = [token["score"] for token in answer["explanation"]["tokens"]]
        np.testing.assert_allclose(got, expected.detach(), atol=1e-6)


def test_parts_of_the_probability_add_up(service):
    [(_, answer)] = ask(
        service, Request({"text": TEXT, "return": ["words", "tokens", "class_scores", "reference", "scores"]}, "", True)
    )
    explanation = answer["explanation"]
    assert explanation["target"] == answer["label"]
    assert explanation["unit"] == "probability"
    for unit in ("words", "tokens"):
        for label, score in answer["scores"].items():
            total = sum(span["class_scores"][label] for span in explanation[unit])
            assert total + explanation["reference"][label] == pytest.approx(score, abs=1e-5)
        assert sum(span["score"] for span in explanation[unit]) + explanation["reference"][
            answer["label"]
        ] == pytest.approx(answer["score"], abs=1e-5)


def test_offsets_count_characters_of_each_text(service):
    body = {"text": "a 👩‍👩‍👧 good film", "text_pair": "the plot"}
    [(_, answer)] = ask(service, Request(body))
    for word in answer["explanation"]["words"]:
        source = body["text_pair"] if word["segment"] else body["text"]
        assert source[word["start"] : word["end"]] == word["text"]


def test_top_k_gives_the_strongest(service):
    [(_, all_), (_, two)] = ask(
        service, Request({"text": TEXT, "target": 1}), Request({"text": TEXT, "target": 1, "top_k": 2})
    )
    for unit in ("words", "tokens"):
        strongest = sorted(all_["explanation"][unit], key=lambda span: -abs(span["score"]))[:2]
        assert_close(two["explanation"][unit], strongest)


def test_explanations_can_be_switched_off(service):
    [(_, answer)] = ask(service, Request({"text": TEXT, "explain": False, "return": ["scores"]}))
    assert "explanation" not in answer
    assert sum(answer["scores"].values()) == pytest.approx(1)
    [(_, explained)] = ask(service, Request({"text": TEXT}))
    assert answer["score"] == pytest.approx(explained["score"], abs=1e-6)


@pytest.mark.parametrize("method", Settings().methods)
def test_other_methods_explain_with_the_torch_model(service, method):
    [(status, answer), (_, other)] = ask(
        service, Request({"text": TEXT, "method": method, "target": 1}), Request({"text": TEXT}, explains=True)
    )
    assert status == 200, answer
    explanation = answer["explanation"]
    assert explanation["method"] == method
    assert explanation["unit"] == "score"
    assert explanation["target"] in ("LABEL_1", None)
    assert len(explanation["tokens"]) == len(other["explanation"]["tokens"])
    assert any(token["score"] for token in explanation["tokens"])
    assert other["explanation"]["method"] == "vat"


def test_long_texts_are_read_in_windows(service):
    [answer] = service.answer([Request({"text": "good film " * 500})])
    explanation = json.loads(answer.body)["explanation"]
    assert explanation["windows"] > 1
    assert not explanation["truncated"]
    assert len(explanation["words"]) == 1000
    assert answer.windowed == 1


def test_an_answer_that_would_be_too_long_is_refused(service):
    small = Service(service._backend, Settings(max_answer_bytes=2000))
    (status, refused), (other, _) = ask(small, Request({"text": "good " * 50}), Request({"text": "good"}))
    assert (status, other) == (413, 200)
    assert "top_k" in refused["error"]


def test_a_text_that_breaks_the_model_fails_alone(service, monkeypatch):
    score = service._backend.score

    def broken(encoded):
        if any(text.text == "break it" for text in encoded):
            raise RuntimeError("/secret/path and a traceback")
        return score(encoded)

    monkeypatch.setattr(service._backend, "score", broken)
    first, (status, answer), last = ask(service, Request("good"), Request("break it"), Request("good"))
    assert first[0] == last[0] == 200
    assert status == 500
    assert answer["code"] == "internal"
    assert "secret" not in answer["error"]


def test_scores_that_are_no_numbers_never_leave(service, monkeypatch):
    score = service._backend.score

    def broken(encoded):
        results = score(encoded)
        for text, windows in zip(encoded, results, strict=True):
            if text.text == "break it":
                windows[0].importance[1] = np.nan
        return results

    monkeypatch.setattr(service._backend, "score", broken)
    (good, _), (bad, answer) = ask(service, Request("good"), Request("break it"))
    assert (good, bad) == (200, 500)
    assert answer["code"] == "internal"


def test_multi_label_models_name_all_classes_that_hold(tmp_path):
    bundles.save(tmp_path / BUNDLE, bundles.vat_model(num_labels=3, multi_label=True))
    service = Service.load(tmp_path)
    [(_, answer)] = ask(service, Request({"text": TEXT, "return": ["scores"]}))
    assert answer["predicted"] == [label for label, score in answer["scores"].items() if score >= 0.5]
    [(_, one), (_, many)] = ask(service, Request(v2(TEXT, TEXT, outputs=[{"name": "scores"}])), Request([TEXT, TEXT]))
    assert one["outputs"][0]["shape"] == [2, 3]
    assert len(many) == 2


@pytest.mark.parametrize(
    "values", [{"max_texts": 0}, {"threads": True}, {"max_characters": "5"}, {"methods": ["ig"]}, {"max_text": 5}, [1]]
)
def test_wrong_settings_are_refused(values):
    with pytest.raises(InputError, match="vat"):
        Settings.from_dict(values)


def test_the_settings_that_are_packaged_are_the_defaults():
    import yaml

    from vat_serve.archive import SETTINGS, config_text

    assert Settings.from_dict(yaml.safe_load(config_text(SETTINGS))["vat"]) == Settings()
