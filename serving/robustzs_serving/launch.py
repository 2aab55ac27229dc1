"""`robustzs serve`: what is checked before the service starts, and how it is started."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from robustzs.errors import RobustZSError, UsageError
from robustzs_serving.edge.keys import read_keys
from robustzs_serving.settings import ServiceSettings

_SERVICE = "robustzs_serving.service:RobustZS"


class AddressError(RobustZSError):
    """The address cannot be listened on."""

    code = "address"


class FileAccessError(RobustZSError):
    """A folder that the service needs cannot be used."""

    code = "file-access"


def resolve_host(host: str) -> str:
    """The numeric address of ``host``; BentoML takes no names.

    Raises:
        AddressError: nothing of that name is here.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise AddressError(
            f"{host!r} is no address of this machine",
            hint="use 127.0.0.1, or 0.0.0.0 for all addresses",
        ) from error
    return str(sorted(found, key=lambda one: one[0] != socket.AF_INET)[0][4][0])


def check_address(host: str, port: int) -> None:
    """Bind once and let go.

    Args:
        host: A numeric address.
        port: A port.

    Raises:
        AddressError: it is in use, not of this machine, or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason, hint = {
                errno.EADDRINUSE: ("is in use", "stop what uses it, or choose another --port"),
                errno.EADDRNOTAVAIL: ("is not an address of this machine", "choose another --host"),
                errno.EACCES: ("needs privileges", "choose a --port of 1024 or more"),
            }.get(error.errno or 0, ("cannot be listened on", "choose another --host or --port"))
            shown = f"[{host}]" if ":" in host else host
            raise AddressError(f"{shown}:{port} {reason}", hint=hint) from error


def check_files(settings: ServiceSettings) -> None:
    """Read the keys and write to the store once.

    Raises:
        FileAccessError: the store cannot be used.
        UsageError: the keys file cannot be read, or is not what `robustzs keys` makes.
    """
    if settings.keys_file is not None:
        read_keys(settings.keys_file)
    if settings.store_dir is not None:
        try:
            settings.store_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileAccessError(
                f"the store {settings.store_dir} cannot be made: {error.strerror}",
                hint="choose a folder that the service's user may write to",
            ) from error
        if not os.access(settings.store_dir, os.W_OK | os.X_OK):
            raise FileAccessError(
                f"the store {settings.store_dir} cannot be written to",
                hint="choose a folder that the service's user may write to",
            )


def service_environment(
    environ: Mapping[str, str], chosen: Mapping[str, str | int | Path | None]
) -> dict[str, str]:
    """The environment of the service: ours, with what was chosen, and paths made absolute.

    Args:
        environ: This process's.
        chosen: By setting's name; ``None`` leaves it to the environment.
    """
    environment = dict(environ)
    for name, value in chosen.items():
        if value is not None:
            environment[f"ROBUSTZS_{name.upper()}"] = str(value)
    # The service does not run in this folder.
    paths = ("KEYS_FILE", "STORE_DIR", "TRITON_CA_FILE", "TRITON_CERT_FILE", "TRITON_KEY_FILE")
    for name in map("ROBUSTZS_{}".format, paths):
        if environment.get(name):
            environment[name] = str(Path(environment[name]).absolute())
    environment["BENTOML_DO_NOT_TRACK"] = "True"
    # Nothing is imported from the folder that the service happens to be started in.
    environment["PYTHONSAFEPATH"] = "1"
    # Set by a service around this one, they would mix up both.
    for name in ("ROBUSTZS_METRICS_DIR", "PROMETHEUS_MULTIPROC_DIR", "BENTOML_CONTAINERIZED"):
        environment.pop(name, None)
    return environment


def service_command(settings: ServiceSettings) -> list[str]:
    """The command that serves with these settings."""
    if settings.host in ("", "*"):
        raise UsageError(f"{settings.host!r} is no address", hint="use 0.0.0.0 for all addresses")
    return [
        *(sys.executable, "-m", "bentoml", "serve", _SERVICE),
        *("--host", settings.host, "--port", str(settings.port)),
        # BentoML would import from it.
        *("--working-dir", "/"),
        *("--timeout-keep-alive", str(settings.limits.keep_alive_seconds)),
        *("--timeout-graceful-shutdown", str(settings.limits.drain_seconds)),
    ]
