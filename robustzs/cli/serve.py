"""`robustzs serve`: the HTTP service on this machine."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from robustzs.cli.options import DeviceOption, ModelOption, ThreadsOption
from robustzs.errors import MissingExtraError


def serve(
    model: ModelOption = "robustzs-lite",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes, each with its model.")
    ] = 1,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
) -> None:
    """Serve a model over HTTP with BentoML: POST /v1/classify.

    The model is opened once here first, so that a wrong name or a broken bundle is told at once.
    """
    from importlib.util import find_spec

    if find_spec("bentoml") is None:
        raise MissingExtraError("bentoml", "serve")
    from robustzs.bundle.registry import resolve_model
    from robustzs.bundle.store import Bundle

    path = Bundle.load(resolve_model(model)).path
    environment = {
        **os.environ,
        "BENTOML_DO_NOT_TRACK": "True",
        "ROBUSTZS_MODEL": str(path),
        "ROBUSTZS_DEVICE": device,
        "ROBUSTZS_THREADS": str(threads or 0),
        "ROBUSTZS_WORKERS": str(workers),
    }
    command = [sys.executable, "-m", "bentoml", "serve", "robustzs_serving.service:RobustZS"]
    command += ["--host", host, "--port", str(port)]
    sys.stderr.write(f"robustzs serves {path.name} on http://{host}:{port}\n")
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)  # signals reach the service itself
