"""Serve a page that colours the words of a text, and pass its questions on to an endpoint with the key added.

    python examples/page.py --url http://127.0.0.1:8080 --model NAME --key-file KEY_FILE

The key stays here: TorchServe lets no page of another origin call it, and a key in a page is a key given away. Only
this machine can reach the page, and only the two addresses of the one model are passed on. The standard library is all
that it needs.
"""

from __future__ import annotations

import argparse
import json
import sys
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlsplit

HOST = "127.0.0.1"
MAX_BODY = 1 << 18  # bytes; what vat.max_characters allows fits
PATIENCE = 120  # seconds to wait for the endpoint

_HERE = Path(__file__).parent
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PageServer(ThreadingHTTPServer):
    """The page, and the way from it to one model.

    Parameters
    ----------
    url : str
        Address of TorchServe, ``http://HOST:PORT``.
    model : str
    key_file : Path
        TorchServe's key_file.json; read for each request, for keys are renewed.
    port : int
        Of the page; 0 for a free one.
    """

    daemon_threads = True

    def __init__(self, url: str, model: str, key_file: Path, port: int) -> None:
        super().__init__((HOST, port), Handler)
        self.endpoint = urlsplit(url)
        self.paths = {f"/{kind}": f"/{kind}/{quote(model, safe='')}" for kind in ("predictions", "explanations")}
        self.key_file = key_file
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}


class Handler(BaseHTTPRequestHandler):
    """Answer one request."""

    server: PageServer
    timeout = 30  # seconds that a client may be silent

    def do_GET(self) -> None:
        """Give a file of the page."""
        if not self._is_for_us():
            return
        if self.path not in FILES:
            self._refuse(404, "there is nothing at this address")
            return
        name, kind = FILES[self.path]
        self._answer(200, (_HERE / name).read_bytes(), kind)

    def do_POST(self) -> None:
        """Pass a question on to the model."""
        if not self._is_for_us():
            return
        length = self.headers.get("Content-Length", "")
        if self.path not in self.server.paths:
            self._refuse(404, "there is nothing at this address")
        elif self.headers.get_content_type() != "application/json":  # which pages of others cannot send unasked
            self._refuse(415, "the body has to be application/json")
        elif not (length.isascii() and length.isdigit()):
            self._refuse(411, "the length of the body has to be given")
        elif len(length) > 9 or int(length) > MAX_BODY:
            self._refuse(413, f"the text is too long; {MAX_BODY} bytes are allowed")
        else:
            self._forward(self.rfile.read(int(length)))

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _is_for_us(self) -> bool:
        """Refuse requests under other names, which pages of others can let point to this machine (DNS rebinding)."""
        if self.headers.get("Host") in self.server.hosts:
            return True
        self._refuse(403, "this address is not served here")
        return False

    def _forward(self, body: bytes) -> None:
        endpoint = self.server.endpoint
        try:
            key = json.loads(self.server.key_file.read_text())["inference"]["key"]
        except (OSError, ValueError, LookupError, TypeError):
            self._refuse(502, "the key file cannot be read; is the endpoint still running?")
            return
        connection = HTTPConnection(endpoint.hostname or HOST, endpoint.port, timeout=PATIENCE)
        try:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request("POST", self.server.paths[self.path], body, headers)
            response = connection.getresponse()
            status, content = response.status, response.read()
        except (OSError, HTTPException):
            self._refuse(502, f"the endpoint at {endpoint.geturl()} does not answer")
            return
        finally:
            connection.close()
        self._answer(status, content, "application/json")

    def _refuse(self, status: int, why: str) -> None:
        self._answer(status, json.dumps({"error": why}).encode(), "application/json")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Read the command line and serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="address of TorchServe; %(default)s")
    parser.add_argument("--model", required=True, help="what vat-explain serve calls it")
    parser.add_argument("--key-file", type=Path, required=True, help="what vat-explain serve names")
    parser.add_argument("--port", type=int, default=8000, help="of the page; %(default)s")
    options = parser.parse_args()
    if urlsplit(options.url).scheme != "http":
        parser.error(f"--url is {options.url}; give an address as http://127.0.0.1:8080")
    with PageServer(options.url, options.model, options.key_file, options.port) as server:
        sys.stdout.write(f"http://{HOST}:{server.server_port}\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stderr.write("stopped\n")


if __name__ == "__main__":
    main()
