"""What an explanation costs on a real TorchServe: predictions without, predictions with, integrated gradients.

All kinds of requests go to the same server (1 worker, batch 8, delay 1 ms) in short turns, so that a busy machine slows
all of them; a ratio is that of requests per second over all turns, with the ratios of single turns beside it. The CPU
time of client, TorchServe and worker is counted too: client and server share the cores. A second part compares answers
under load with answers alone, and watches the worker's memory.

    python benchmarks/serving.py                 # a MiniLM-shaped random bundle; about 10 minutes
    python benchmarks/serving.py --bundle DIR --seconds 2 --turns 2 --requests 500
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests import tiny
from vat_explain.files import write_atomically
from vat_serve.package import package
from vat_serve.server import HOST, Server

PLAIN, EXPLAINED, GRADIENTS = "prediction", "prediction and explanation", "integrated gradients, 20 steps"
KINDS: dict[str, dict[str, Any]] = {
    PLAIN: {"explain": False},
    EXPLAINED: {},
    GRADIENTS: {"method": "ig", "target": 0, "return": ["tokens"]},
}
RATIOS = {"prediction over explanation": (PLAIN, EXPLAINED), "explanation over gradients": (EXPLAINED, GRADIENTS)}

Ask = Callable[[int], tuple[str, str]]
"""From the number of a request to its text and its kind."""


def minilm_shaped(folder: Path) -> Path:
    """Save a random bundle of MiniLM's shape (6 layers, 384 wide), for its cost; its answers mean nothing."""
    from transformers import BertConfig, BertForSequenceClassification

    from tests import bundles
    from vat_explain.models import Classifier
    from vat_explain.text import SpecialTokens
    from vat_explain.vat.compressor import Compressor, CompressorConfig
    from vat_explain.vat.model import VATModel

    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    model = BertForSequenceClassification(BertConfig(vocab_size=30_522, num_labels=2, **shape)).eval()
    learner = Classifier(model, SpecialTokens.from_tokenizer(tiny.tokenizer()))
    bundles.save(folder, VATModel(learner, Compressor(learner, CompressorConfig())).eval(), max_length=512)
    return folder


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 8 to 40 words."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(tiny.WORDS, k=chance.randint(8, 40))) for _ in range(count)]


class Client:
    """One connection to the server that is kept, and hardly anything else: what it costs, the server lacks."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection((HOST, server.ports.inference), timeout=300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"POST /predictions/m HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {server.key()}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )

    def ask(self, text: str, kind: str) -> bytes:
        """Return the body of the answer."""
        body = json.dumps({"text": text, **KINDS[kind]})
        self._socket.sendall(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._receive()
        head = answer[:end].lower()
        total = end + 4 + int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(answer) < total:
            answer += self._receive()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"refused: {answer[:500]!r}")
        return answer[end + 4 :]

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        if not (part := self._socket.recv(1 << 16)):
            raise RuntimeError("the server has closed the connection")
        return part


@dataclass
class Turn:
    """What came of some seconds of requests.

    Attributes
    ----------
    latencies : list of float
        Seconds.
    answers : dict of int to bytes
        By the number of the request, where they are kept.
    seconds : float
    cpu : dict of str to float
        Seconds of CPU time that each part has used.
    """

    latencies: list[float] = field(default_factory=list)
    answers: dict[int, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)


def load(server: Server, concurrency: int, enough: Callable[[int, float], bool], ask: Ask, *, keep: bool) -> Turn:
    """Send requests from several clients, each the next one when it has its answer, until it is enough."""
    turn, lock, failures, number = Turn(), threading.Lock(), list[str](), 0
    processes = parts(server)
    before = cpu(processes)

    def run() -> None:
        nonlocal number
        client = Client(server)
        try:
            while True:
                with lock:
                    mine, number = number, number + 1
                sent = time.perf_counter()
                if failures or enough(mine, sent - started):
                    return
                answer = client.ask(*ask(mine))
                turn.latencies.append(time.perf_counter() - sent)
                if keep:
                    turn.answers[mine] = answer
        except Exception as error:
            failures.append(repr(error))
        finally:
            client.close()

    threads = [threading.Thread(target=run) for _ in range(concurrency)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turn.seconds = time.perf_counter() - started
    turn.cpu = {name: after - before[name] for name, after in cpu(processes).items()}
    if failures:
        raise SystemExit(f"requests failed: {failures[0]}")
    return turn


def parts(server: Server) -> dict[str, psutil.Process]:
    worker = psutil.Process(server.workers("m")[0]["pid"])
    return {"client": psutil.Process(), "TorchServe": worker.parent(), "worker": worker}


def cpu(processes: dict[str, psutil.Process]) -> dict[str, float]:
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}


def measure(server: Server, pool: list[str], concurrency: int, seconds: float, turns: int) -> dict[str, Any]:
    """Let the kinds of requests take turns; every second round goes backwards."""
    done: dict[str, list[Turn]] = {kind: [] for kind in KINDS}
    for number in range(turns):
        for kind in list(KINDS)[:: -1 if number % 2 else 1]:
            done[kind].append(
                load(
                    server,
                    concurrency,
                    # gradients are slow: at least two whole batches, or starting and ending would slow them further
                    lambda sent, passed: passed > seconds / turns and sent >= 2 * concurrency,
                    lambda i, kind=kind: (pool[i % len(pool)], kind),
                    keep=False,
                )
            )
    row: dict[str, Any] = {"concurrency": concurrency}
    row["kinds"] = {kind: summary(of_kind) for kind, of_kind in done.items()}
    for name, (fast, slow) in RATIOS.items():
        row[name] = {
            "ratio": rate(done[fast]) / rate(done[slow]),
            "turns": [rate([one]) / rate([other]) for one, other in zip(done[fast], done[slow], strict=True)],
        }
    return row


def rate(turns: Sequence[Turn]) -> float:
    """Requests a second."""
    return sum(len(turn.latencies) for turn in turns) / sum(turn.seconds for turn in turns)


def summary(turns: list[Turn]) -> dict[str, Any]:
    latencies = np.concatenate([turn.latencies for turn in turns])
    return {
        "requests": len(latencies),
        "requests_per_second": rate(turns),
        "latency_ms": {f"p{p}": 1000 * float(np.percentile(latencies, p)) for p in (50, 95, 99)},
        "cpu_ms_per_request": {
            name: 1000 * sum(turn.cpu[name] for turn in turns) / len(latencies) for name in turns[0].cpu
        },
    }


def show(row: dict[str, Any]) -> None:
    print(f"concurrency {row['concurrency']}")
    for kind, facts in row["kinds"].items():
        latency = ", ".join(f"{name} {value:.0f}" for name, value in facts["latency_ms"].items())
        used = ", ".join(f"{name} {value:.2f}" for name, value in facts["cpu_ms_per_request"].items())
        print(f"  {kind}: {facts['requests_per_second']:.1f}/s; ms: {latency}; ms of CPU: {used}")
    for name in RATIOS:
        ratio, singles = row[name]["ratio"], row[name]["turns"]
        print(f"  {name}: {ratio:.3f} (turns {min(singles):.2f} to {max(singles):.2f})", flush=True)


def difference(one: Any, other: Any) -> float:
    """Return the largest difference between numbers at the same place of two answers."""
    if isinstance(one, dict):
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list):
        return max((difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float):
        return abs(one - other)
    return 0.0 if one == other else float("inf")


def steadiness(server: Server, pool: list[str], requests: int) -> dict[str, Any]:
    """Compare answers under load with answers alone, and the worker's memory along the way."""
    client = Client(server)
    alone = [json.loads(client.ask(text, EXPLAINED)) for text in pool]
    client.close()
    worker = parts(server)["worker"]
    memory, worst = [], 0.0
    for _ in range(10):
        turn = load(
            server,
            8,
            lambda sent, _: sent >= requests // 10,
            lambda i: (pool[i % len(pool)], PLAIN if i % 3 == 2 else EXPLAINED),
            keep=True,
        )
        for number, body in turn.answers.items():
            answer, expected = json.loads(body), alone[number % len(pool)]
            worst = max(worst, difference(answer, {key: expected[key] for key in answer}))
        memory.append(worker.memory_info().rss / 2**20)
    return {"requests": requests, "largest_difference": worst, "worker_rss_mb": memory}


def verdicts(result: dict[str, Any]) -> dict[str, bool]:
    """Tell which targets are met."""
    met = {}
    for row in result["speed"]:
        if row["concurrency"] == 8:
            plain, gradients = (row[name]["ratio"] for name in RATIOS)
            met["predictions at most 1.15 times as fast as explanations"] = plain <= 1.15
            met["explanations at least 15 times as fast as integrated gradients"] = gradients >= 15
    steady = result["steadiness"]
    first, second = (statistics.mean(values) for values in np.array_split(steady["worker_rss_mb"], 2))
    met["answers under load within 1e-5 of answers alone"] = steady["largest_difference"] <= 1e-5
    met["memory within 2 % from the first half to the second"] = bool(second <= 1.02 * first)
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a bundle to serve instead of a random one of MiniLM's shape")
    parser.add_argument("--seconds", type=float, default=20, help="for each kind of request and concurrency")
    parser.add_argument("--turns", type=int, default=4, help="how often the kinds take turns within these seconds")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=10_000, help="over which memory and answers are watched")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "serving.json")
    options = parser.parse_args()
    result: dict[str, Any] = {"load_before": os.getloadavg()[0], "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bundle = options.bundle or minilm_shaped(work / "bundle")
        package(bundle, work / "store", "m")
        settings = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8, "maxBatchDelay": 1}
        result["settings"] = settings | {"seconds": options.seconds, "turns": options.turns}
        with Server(work / "store", work / "server", settings=settings) as server:
            pool = texts(64)
            measure(server, pool, 8, min(2.0, options.seconds), 1)  # to warm up
            result["speed"] = []
            for concurrency in options.concurrency:
                result["speed"].append(measure(server, pool, concurrency, options.seconds, options.turns))
                show(result["speed"][-1])
            result["steadiness"] = steadiness(server, pool, options.requests)
    print(f"steadiness: {result['steadiness']}")
    result["met"] = verdicts(result)
    for name, met in result["met"].items():
        print(f"{'met   ' if met else 'MISSED'} {name}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output, json.dumps(result, indent=2) + "\n")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
