"""The example page in a headless browser, talking to a real server; and what its own server passes on."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from vat_serve.server import HOST

pytestmark = pytest.mark.serve

SCRIPT = Path(__file__).parents[2] / "examples" / "page.py"
TEXTS = [
    "a 👩‍👩‍👧 good film 🎬 but\nnot  great",
    "the plot <script>document.title = 'broken'</script><b>was</b> dull",
    "film טוב מאד, good",
]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def key_file(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, for tests that spoil it."""
    return Path(shutil.copy(server.key_file, tmp_path_factory.mktemp("keys")))


@pytest.fixture(scope="module")
def site(server: Any, key_file: Path) -> Iterator[str]:
    """Address of the page, served as a user does it."""
    command = [sys.executable, str(SCRIPT), "--url", server.url, "--model", "tiny"]
    process = subprocess.Popen([*command, "--key-file", str(key_file), "--port", "0"], stdout=subprocess.PIPE)
    yield process.stdout.readline().decode().strip()
    listening = {connection.laddr.ip for connection in psutil.Process(process.pid).net_connections()}
    process.terminate()
    process.wait(timeout=30)
    process.stdout.close()
    assert listening == {HOST}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None or find_spec("playwright") is None:
        report = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        report("chromium or playwright is not installed; sh tests/system-packages.sh")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, site: str) -> Iterator[Any]:
    opened = browser.new_page()
    opened.set_default_timeout(60_000)
    failures: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.goto(site)
    yield opened
    opened.close()
    assert not failures


@pytest.fixture
def spoiled(key_file: Path) -> Iterator[Path]:
    good = key_file.read_bytes()
    yield key_file
    key_file.write_bytes(good)


def ask(page: Any, text: str) -> str:
    """Send a text; return what the page says then."""
    page.fill("#text", text)
    page.click("#ask")
    page.wait_for_selector("#ask:enabled")
    return str(page.text_content("#status"))


def send(
    site: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] = JSON
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(HOST, urlsplit(site).port, timeout=60)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


@pytest.mark.browser
@pytest.mark.parametrize("text", TEXTS)
def test_words_are_coloured_where_they_stand(page, client, text):
    expected = client.post("/explanations/tiny", {"text": text}).json
    words = expected["explanation"]["words"]
    assert ask(page, text) == f"{expected['label']}, {100 * expected['score']:.1f} %"
    assert page.text_content("#words") == text
    spans = page.locator("#words span")
    assert spans.all_text_contents() == [word["text"] for word in words]
    assert spans.evaluate_all("all => all.map(s => s.title)") == [f"{word['score']:.3f}" for word in words]
    signs = spans.evaluate_all("all => all.map(s => s.className)")
    assert signs == ["against" if word["score"] < 0 else "for" for word in words]
    strengths = [float(s) for s in spans.evaluate_all("all => all.map(s => s.style.getPropertyValue('--strength'))")]
    largest = max(abs(word["score"]) for word in words)
    assert strengths == pytest.approx([abs(word["score"]) / largest for word in words])
    colours = spans.evaluate_all("all => all.map(s => getComputedStyle(s).backgroundColor)")
    assert len(set(colours)) > 2
    strongest = page.locator("#strongest tr td:first-child").all_text_contents()
    assert strongest[0] == max(words, key=lambda word: abs(word["score"]))["text"]
    assert page.title() == "Which words decided?"
    assert page.locator("#words :not(span)").count() == 0


@pytest.mark.browser
def test_the_class_to_explain_can_be_chosen(page, client):
    ask(page, "good film")
    assert "Part of the probability of LABEL_" in page.text_content("#unit")
    assert page.locator("#target option").all_text_contents()[2:] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    for choice, target in (("LABEL_2", "LABEL_2"), ("the prediction, class-free", None)):
        page.select_option("#target", choice)
        ask(page, "good film")
        expected = client.post("/predictions/tiny", {"text": "good film", "target": target}).json["explanation"]
        titles = page.locator("#words span").evaluate_all("all => all.map(s => s.title)")
        assert titles == [f"{word['score']:.3f}" for word in expected["words"]]


@pytest.mark.browser
def test_what_goes_wrong_is_said_in_words(page, spoiled):
    assert "white space" in ask(page, "   \u00a0")
    assert page.is_hidden("#answer")
    keys = json.loads(spoiled.read_text())
    spoiled.write_text(json.dumps(keys | {"inference": {"key": "wrong"}}))
    assert "Token Authorization failed" in ask(page, "good")
    spoiled.write_text("{")
    assert "key file" in ask(page, "good")
    page.route("**/explanations", lambda route: route.abort())
    assert ask(page, "good") == "The server of this page does not answer."
    page.unroute("**/explanations")
    page.route("**/explanations", lambda route: route.fulfill(status=503, body="{}"))
    assert "busy" in ask(page, "good")
    page.route("**/explanations", lambda route: route.fulfill(status=413, body=""))
    assert "413" in ask(page, "good")


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/explanations", b'{"text": "good"}', JSON, 200),
        ("POST", "/explanations", b'{"text": "good"}', JSON | {"Host": "evil.example:8000"}, 403),
        ("GET", "/", None, {"Host": "evil.example"}, 403),
        ("POST", "/explanations", b'{"text": "good"}', {"Content-Type": "text/plain"}, 415),
        ("POST", "/explanations", b" " * 300_000, JSON, 413),
        ("POST", "/explanations", None, JSON | {"Content-Length": "9" * 5000}, 413),
        ("POST", "/explanations", None, JSON | {"Content-Length": "-1"}, 411),
        ("POST", "/explanations/tiny-onnx", b"{}", JSON, 404),
        ("POST", "/predictions/../models", b"{}", JSON, 404),
        ("POST", "http://127.0.0.1:8081/models", b"{}", JSON, 403),
        ("GET", "/page.py", None, {}, 404),
        ("GET", "/../README.md", None, {}, 404),
        ("OPTIONS", "/explanations", None, {"Origin": "http://evil.example"}, 501),
    ],
)
def test_nothing_else_is_passed_on(site, method, path, body, headers, status):
    assert send(site, method, path, body, headers)[0] == status


def test_the_key_never_reaches_the_page(site, server):
    contents = [send(site, "GET", path)[1] for path in ("/", "/page.js", "/page.css")]
    contents.append(send(site, "POST", "/predictions", b'{"text": ""}')[1])
    assert all(contents)
    assert not any(server.key().encode() in content for content in contents)


def test_an_endpoint_that_is_gone_is_reported(key_file):
    command = [sys.executable, str(SCRIPT), "--url", f"http://{HOST}:1", "--model", "m", "--key-file", str(key_file)]
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE)
    try:
        status, content = send(process.stdout.readline().decode().strip(), "POST", "/predictions", b"{}")
        assert status == 502
        assert "does not answer" in json.loads(content)["error"]
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()
