"""Real services for tests: a process of its own, real sockets.

``ROBUSTZS_TEST_URL`` has the suites that need nothing but a URL run against any server that serves
the tiny bundle; ``ROBUSTZS_TEST_COMMAND`` starts services by another command than
``robustzs serve`` (the bento's own, in ``make test-bento``).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

_START_SECONDS = 120.0
Environment = dict[str, str]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Service:
    """A running service: the supervisor's process, and what it says."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    port: int
    environment: Environment = field(repr=False)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def lines(self) -> list[dict[str, object]]:
        """The log's JSON lines."""
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "_bentoml_impl.worker.service" in _command(child)]

    def decoders(self) -> list[psutil.Process]:
        return [child for worker in self.workers() for child in worker.children()]

    def tree(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(
                f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()
            ):
                total += float(found[2])
        return total

    def stop(self, seconds: float = 60.0) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=seconds)

    def wait_ready(self, seconds: float = _START_SECONDS) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, self.text()
            time.sleep(0.1)
        pytest.fail(f"not ready in {seconds} s: {self.text()}")


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def start_service(folder: Path, model: Path, *options: str, **variables: str) -> Service:
    """Start a service of the model; the caller waits, and ends it with `end_service`."""
    port = free_port()
    log = folder / f"service-{port}.log"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PROMETHEUS_")},
        "BENTOML_HOME": str(folder / "bentoml"),
        "OMP_NUM_THREADS": "1",
        "ROBUSTZS_THREADS": "1",
        "ROBUSTZS_DECODERS": "1",
        "ROBUSTZS_LOG_FORMAT": "json",
        **variables,
    }
    started = os.environ.get("ROBUSTZS_TEST_COMMAND")
    if started:
        environment["ROBUSTZS_MODEL"] = str(model)
        environment["ROBUSTZS_PORT"] = str(port)
        command = shlex.split(started.format(port=port))
    else:
        command = [sys.executable, "-m", "robustzs", "serve", "--model", str(model)]
        command += ["--port", str(port), *options]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=environment, cwd=folder, start_new_session=True
        )
    return Service(process, f"http://127.0.0.1:{port}", log, port, environment)


def end_service(service: Service) -> None:
    """End it and whatever it left, by force if need be."""
    left = service.tree() if service.process.poll() is None else []
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGTERM)
        try:
            service.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            service.process.kill()
            service.process.wait(timeout=10)
    for process in left:
        with suppress(psutil.Error):
            process.kill()


@pytest.fixture(scope="session")
def service(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("service")
    running = start_service(
        folder,
        tiny_bundle,
        ROBUSTZS_STORE_DIR=str(folder / "store"),
        ROBUSTZS_BODY_SECONDS="10",
        ROBUSTZS_HEADER_SECONDS="3",
    )
    try:
        running.wait_ready()
        yield running
    finally:
        end_service(running)


@pytest.fixture(scope="session")
def service_url(request: pytest.FixtureRequest) -> str:
    """Address of a service of the tiny bundle."""
    elsewhere = os.environ.get("ROBUSTZS_TEST_URL")
    if elsewhere:
        return elsewhere.rstrip("/")
    running: Service = request.getfixturevalue("service")
    return running.url


@pytest.fixture
def serve(tiny_bundle: Path, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services of one's own; they are ended after the test."""
    with ExitStack() as stack:

        def start(*options: str, wait: bool = True, **variables: str) -> Service:
            running = start_service(tmp_path, tiny_bundle, *options, **variables)
            stack.callback(end_service, running)
            if wait:
                running.wait_ready()
            return running

        yield start
