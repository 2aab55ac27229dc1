"""`robustzs serve`: the HTTP service on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from robustzs.cli.options import (
    Backend,
    BackendOption,
    CaOption,
    CertOption,
    DeviceOption,
    KeyOption,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
    UrlOption,
)
from robustzs.errors import MissingExtraError


def serve(
    context: typer.Context,
    model: ModelOption = "robustzs-lite",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes, each with its model.")
    ] = 1,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    image_precision: PrecisionOption = None,
    backend: BackendOption = Backend.onnx,
    url: UrlOption = None,
    tls_ca: CaOption = None,
    tls_cert: CertOption = None,
    tls_key: KeyOption = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys, made by `robustzs keys`.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder to keep label sets and hierarchies in.")
    ] = None,
    warm: Annotated[
        str | None,
        typer.Option(help="Trees to make ready first, such as wordnet,wordnet-nouns."),
    ] = None,
    trusted_proxies: Annotated[
        str | None,
        typer.Option(help="Addresses of proxies whose X-Forwarded-For names the client."),
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
) -> None:
    """Serve a model over HTTP: POST /v1/classify, and a page at /.

    Every other setting is a variable ROBUSTZS_...: see docs/service-limits.md. The model, the
    address and the files are checked first, so that what is wrong is told at once.
    """
    from importlib.util import find_spec

    if find_spec("bentoml") is None:
        raise MissingExtraError("bentoml", "serve")
    from robustzs_serving import launch
    from robustzs_serving.settings import ServiceSettings

    from robustzs.bundle.precisions import encoder_file
    from robustzs.bundle.registry import resolve_model
    from robustzs.bundle.store import Bundle

    options: dict[str, str | int | Path | None] = {
        "model": model,
        "host": host,
        "port": port,
        "workers": workers,
        "device": device,
        "threads": threads,
        "image_precision": None if image_precision is None else image_precision.value,
        "backend": backend.value,
        "triton_urls": ",".join(url or ()),
        "triton_ca_file": tls_ca,
        "triton_cert_file": tls_cert,
        "triton_key_file": tls_key,
        "keys_file": keys,
        "store_dir": store,
        "warm": warm,
        "trusted_proxies": trusted_proxies,
        "log_format": log_format,
    }
    given = {
        "keys_file": "keys",
        "store_dir": "store",
        "triton_urls": "url",
        "triton_ca_file": "tls_ca",
        "triton_cert_file": "tls_cert",
        "triton_key_file": "tls_key",
    }
    # A default of this command does not outweigh a variable.
    chosen = {
        name: value
        for name, value in options.items()
        if (source := context.get_parameter_source(given.get(name, name)))
        and source.name == "COMMANDLINE"
    }
    environment = launch.service_environment(os.environ, chosen)
    settings = ServiceSettings.from_env(environment)
    settings = settings.model_copy(update={"host": launch.resolve_host(settings.host)})
    environment["ROBUSTZS_HOST"] = settings.host
    launch.check_address(settings.host, settings.port)
    launch.check_files(settings)
    bundle = Bundle.load(resolve_model(settings.model))
    if settings.backend == "onnx" and settings.image_precision is not None:
        encoder_file(bundle.manifest.image_encoders, settings.image_precision, "image")
    environment["ROBUSTZS_MODEL"] = str(bundle.path.absolute())
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    sys.stderr.write(
        f"robustzs serves {bundle.manifest.name} ({bundle.digest[:12]}) "
        f"on http://{shown}:{settings.port}\n"
    )
    sys.stderr.flush()
    # The same process goes on as the service, so that signals reach it.
    os.execve(sys.executable, launch.service_command(settings), environment)
