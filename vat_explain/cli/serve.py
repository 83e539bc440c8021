"""`vat-explain serve`: TorchServe on this machine, from its configuration to its end."""

from __future__ import annotations

import json as json_module
import shlex
import signal
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vat_explain.cli import options
from vat_explain.cli.output import print_json

if TYPE_CHECKING:
    from vat_serve.server import Server


_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder with archives of `vat-explain package`.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for predictions and explanations.")] = 8080,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes for each model.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Most requests answered together.")] = None,
    max_batch_delay: Annotated[
        int | None, typer.Option(min=0, help="Milliseconds to wait for a batch to fill.")
    ] = None,
    quiet: options.Quiet = False,
    json: options.OutputJson = False,
    debug: options.Debug = False,
) -> None:
    """Start TorchServe on 127.0.0.1 with all archives of a folder; Ctrl-C stops all of it.

    Clients need a key, and models cannot be changed from outside.
    """
    from vat_explain.progress import progress_bar
    from vat_serve.server import Server

    for number in _ENDINGS:  # SIGINT too: a parent that ignores it must not pass that on
        signal.signal(number, _interrupt)
    settings: dict[str, Any] = {}
    if workers is not None:
        settings |= {"minWorkers": workers, "maxWorkers": workers}
    if batch_size is not None:
        settings["batchSize"] = batch_size
    if max_batch_delay is not None:
        settings["maxBatchDelay"] = max_batch_delay
    with tempfile.TemporaryDirectory(prefix="vat-explain-serve-") as folder:
        server = Server(store, Path(folder), port, settings)
        try:
            with progress_bar("starting", quiet=quiet):
                server.start()
            _report(server, json=json)
            while server.poll() is None:
                time.sleep(0.5)
            typer.echo(f"Error: TorchServe has stopped by itself. It said:\n{server.last_words()}", err=True)
            raise typer.Exit(1)
        except KeyboardInterrupt:
            typer.echo("stopping", err=True)
            return
        finally:
            for number in _ENDINGS:  # a second one must not leave processes behind
                signal.signal(number, signal.SIG_IGN)
            server.stop()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report(server: Server, *, json: bool) -> None:
    urls = {
        model: {
            "predictions": f"{server.url}/predictions/{model}",
            "explanations": f"{server.url}/explanations/{model}",
        }
        for model in server.models
    }
    if json:
        addresses = {"metrics": server.metrics_url, "management": server.management_url}
        print_json({"models": urls, **addresses, "key_file": str(server.key_file)})
        return
    for model, addresses in urls.items():
        typer.echo(f"{model}\n  {addresses['predictions']}\n  {addresses['explanations']}")
    typer.echo(f"metrics\n  {server.metrics_url}\nmanagement, and new keys\n  {server.management_url}")
    typer.echo(f"keys (each valid for 60 minutes)\n  {server.key_file}\n\nTry:")
    body = shlex.quote(json_module.dumps({"text": "a short text", "top_k": 3}))
    key = f'$(python3 -c \'import json; print(json.load(open("{server.key_file}"))["inference"]["key"])\')'
    typer.echo(
        f'  curl -H "Authorization: Bearer {key}" -H "Content-Type: application/json" '
        f"-d {body} {next(iter(urls.values()))['explanations']}"
    )
