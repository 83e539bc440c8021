"""Run TorchServe on this machine: write its configuration, wait until it is ready, stop all of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vat_explain.errors import VatExplainError
from vat_explain.files import write_atomically
from vat_serve.archive import SUFFIX, config_text, copy_archive, model_name, read_settings

HOST = "127.0.0.1"
LOAD_FAILURE = "vat-serve cannot load the archive"
"""Begins the line of the log that says why a worker does not start."""

_POLL = 0.25  # seconds


class ServerError(VatExplainError, RuntimeError):
    """TorchServe cannot be started, or has stopped."""


@dataclass(frozen=True)
class Ports:
    """The ports of a server, all on `HOST`."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int

    @classmethod
    def free(cls, inference: int | None = None) -> Self:
        """Choose ports that are free now; the first may be given."""
        with_sockets = [socket.socket() for _ in range(5)]
        try:
            for number, one in enumerate(with_sockets):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind((HOST, inference if number == 0 and inference is not None else 0))
            return cls(*(one.getsockname()[1] for one in with_sockets))
        except OSError as error:
            raise ServerError(f"port {inference} cannot be used: {error.strerror}; choose another --port") from error
        finally:
            for one in with_sockets:
                one.close()


@dataclass
class Server:
    """A TorchServe process with its workers; a context manager that starts and stops it.

    Parameters
    ----------
    store : Path
        Folder with archives that `vat_serve.package` has made.
    directory : Path
        A folder of its own for configuration, logs, keys and temporary files.
    port : int, optional
        For predictions and explanations; a free one unless given.
    settings : mapping
        Settings of TorchServe (``minWorkers``, ``batchSize``, ...) that replace those in the archives.
    properties : mapping of str to str
        Further lines of config.properties.
    patience : float
        Seconds that starting may take.

    Raises
    ------
    ServerError
        If Java or TorchServe is missing, the store is empty, or the server does not start.
    """

    store: Path
    directory: Path
    port: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    patience: float = 180.0

    def __post_init__(self) -> None:
        self.models: dict[str, Path] = {}
        self.ports = Ports.free(self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start TorchServe and wait until every worker is ready.

        Raises
        ------
        ServerError
            If that fails; nothing is left running then.
        """
        self._check()
        try:
            self._launch()
            self._wait()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Address for predictions and explanations."""
        return f"http://{HOST}:{self.ports.inference}"

    @property
    def metrics_url(self) -> str:
        """Address of the metrics, which need no key."""
        return f"http://{HOST}:{self.ports.metrics}/metrics"

    @property
    def management_url(self) -> str:
        """Address that tells the state of the models, and gives new keys."""
        return f"http://{HOST}:{self.ports.management}"

    @property
    def key_file(self) -> Path:
        """The file that holds the keys, which TorchServe writes when it starts."""
        return self.directory / "key_file.json"

    def key(self, use: str = "inference") -> str:
        """Return the key for ``"inference"``, ``"management"``, or ``"API"``, which renews the others."""
        entry = json.loads(self.key_file.read_text())[use]
        return str(entry["key"])

    def workers(self, model: str) -> list[dict[str, Any]]:
        """Return what TorchServe says about the workers of a model: ``pid``, ``status``, ..."""
        request = urllib.request.Request(
            f"{self.management_url}/models/{model}",
            headers={"Authorization": f"Bearer {self.key('management')}"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            workers: list[dict[str, Any]] = json.load(response)[0]["workers"]
        return workers

    def is_ready(self) -> bool:
        """Tell whether every worker of every model is ready."""
        try:
            return all(self._is_ready(model) for model in self.models)
        except (OSError, ValueError, KeyError, IndexError):  # not up yet, or a file half written
            return False

    def poll(self) -> int | None:
        """Return the exit status of TorchServe, None while it runs."""
        return None if self._process is None else self._process.poll()

    def last_words(self, lines: int = 10) -> str:
        """Return the end of what TorchServe has written to its console."""
        text = (self.directory / "console.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """Stop TorchServe and its workers, and wait until they are gone."""
        process = self._process
        if process is None:
            return
        # The command alone would leave java and the workers behind: all of them are in one group.
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                process.poll()
                if not _group_exists(process.pid):
                    self._process = None  # not before: an interrupted stop can be called again
                    return
                time.sleep(0.05)

    def _check(self) -> None:
        if find_spec("ts") is None:
            raise ServerError("TorchServe is not installed; pip install 'vat-explain[serve]'")
        if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
            raise ServerError(
                "Java is not installed, and TorchServe needs it (17 or newer); install openjdk-17-jre-headless"
            )
        archives = sorted(self.store.glob(f"*{SUFFIX}")) if self.store.is_dir() else []
        if not archives:
            raise ServerError(f"{self.store} holds no archive; make one with vat-explain package")
        self.models = {}
        for path in archives:
            if (other := self.models.setdefault(model_name(path), path)) is not path:
                raise ServerError(f"{other} and {path} both hold a model {model_name(path)!r}; move one of them away")

    def _launch(self) -> None:
        temporary = self.directory / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        store = self.store.resolve()
        if self.settings:
            store = self.directory / "store"
            store.mkdir(exist_ok=True)
            for path in self.models.values():
                copy_archive(path, store / path.name, self.settings)
        write_atomically(self.directory / "metrics.yaml", config_text("metrics.yaml"))
        write_atomically(self.directory / "config.properties", self._configuration(store))
        # Its own settings in the environment would win over the file.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TS_")}
        environment |= {
            "TMPDIR": str(temporary),  # the file with its process id
            "TEMP": str(temporary),  # sockets of workers, unpacked archives
            "LOG_LOCATION": str(self.directory / "logs"),
            "METRICS_LOCATION": str(self.directory / "logs"),
        }
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
        with (self.directory / "console.log").open("wb") as console:
            self._process = subprocess.Popen(
                [*command, "--ts-config", str(self.directory / "config.properties")],
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _configuration(self, store: Path) -> str:
        """Return the file ``config.properties`` as it comes, with our addresses, paths and properties."""
        ports = self.ports
        changed = {
            "inference_address": self.url,
            "management_address": self.management_url,
            "metrics_address": f"http://{HOST}:{ports.metrics}",
            "grpc_inference_port": str(ports.grpc_inference),
            "grpc_management_port": str(ports.grpc_management),
            "model_store": str(store),
            "metrics_config": str(self.directory / "metrics.yaml"),
            **self.properties,
        }
        kept = [
            line
            for line in config_text("config.properties").splitlines()
            if line and not line.startswith("#") and line.partition("=")[0] not in changed
        ]
        return "\n".join([*kept, *(f"{name}={value}" for name, value in changed.items()), ""])

    def _wait(self) -> None:
        deadline = time.monotonic() + self.patience
        while not self.is_ready():
            if self.poll() is not None:
                raise ServerError(f"TorchServe has stopped while starting. It said:\n{self.last_words()}")
            if reason := self._load_failure():
                raise ServerError(f"a worker does not start: {reason}")
            if time.monotonic() > deadline:
                raise ServerError(
                    f"TorchServe was not ready after {self.patience:.0f} s. It said:\n{self.last_words(30)}"
                )
            time.sleep(_POLL)

    def _is_ready(self, model: str) -> bool:
        settings = {**read_settings(self.models[model]), **self.settings}
        workers = self.workers(model)
        return len(workers) >= settings["minWorkers"] and all(worker["status"] == "READY" for worker in workers)

    def _load_failure(self) -> str | None:
        log = self.directory / "logs" / "model_log.log"
        if log.is_file():
            for line in log.read_text(errors="replace").splitlines():
                if LOAD_FAILURE in line:
                    return line.partition(LOAD_FAILURE)[2].lstrip(": ")
        return None


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
