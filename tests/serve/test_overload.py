"""More requests than a real server can queue, while its worker does not move."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import pytest

from tests.serve.bodies import TEXT
from tests.serve.client import Client, Response
from tests.serve.test_server import LEAKS
from vat_serve.archive import read_settings
from vat_serve.server import Server

pytestmark = pytest.mark.serve

QUEUE = 100  # job_queue_size of config.properties
BEYOND = 30


def test_clients_beyond_the_queue_are_told_at_once(server: Server, client: Client):
    [worker] = server.workers("tiny")
    # What may be on its way beside the queue: a batch with the worker and one that is being gathered.
    accepted = QUEUE + 2 * read_settings(server.models["tiny"])["batchSize"]
    os.kill(worker["pid"], signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(accepted + BEYOND) as pool:
            waiting = {pool.submit(ask, server) for _ in range(accepted + BEYOND)}
            refused: set[Future[Response]] = set()
            deadline = time.monotonic() + 60
            while len(refused) < BEYOND:
                done, waiting = wait(waiting, deadline - time.monotonic(), FIRST_COMPLETED)
                assert done, f"{len(refused)} clients were told that the queue is full, and {len(waiting)} hang"
                refused |= done
            os.kill(worker["pid"], signal.SIGCONT)
            answers = [one.result() for one in waiting]
    finally:
        os.kill(worker["pid"], signal.SIGCONT)
    for response in (one.result() for one in refused):
        assert response.status == 503
        assert response.json["code"] == 503
        assert "no worker" in response.json["message"]
        assert not LEAKS.search(response.json["message"])
    assert [response.status for response in answers].count(200) >= QUEUE
    assert {response.status for response in answers} <= {200, 503}
    assert client.post("/predictions/tiny", TEXT).status == 200
    assert [one["pid"] for one in server.workers("tiny")] == [worker["pid"]]


def ask(server: Server) -> Response:
    client = Client(server.ports.inference, server.key(), timeout=300)
    try:
        return client.post("/predictions/tiny", TEXT)
    finally:
        client.close()
