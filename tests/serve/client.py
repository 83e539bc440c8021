"""A plain HTTP client for tests: one connection, a time limit on everything."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vat_serve.server import HOST


@dataclass(frozen=True)
class Response:
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class Client:
    def __init__(self, port: int, key: str, timeout: float = 60) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
        self._headers = {"Authorization": f"Bearer {key}"}

    def send(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, content_type: str | None = None
    ) -> Response:
        headers = self._headers | ({} if content_type is None else {"Content-Type": content_type})
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return Response(response.status, response.reason, dict(response.getheaders()), response.read())
        except BaseException:
            self._connection.close()  # the next request opens it anew
            raise

    def post(self, path: str, body: object) -> Response:
        return self.send("POST", path, json.dumps(body).encode(), "application/json")

    def close(self) -> None:
        self._connection.close()
