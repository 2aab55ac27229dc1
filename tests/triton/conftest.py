"""A shared Triton server, and services that run their model on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.serving.conftest import Service, end_service, start_service
from tests.triton.server import Triton, export, launch, shared_server


@pytest.fixture(scope="session")
def triton(tiny_bundle: Path) -> Triton:
    """One server of the tiny bundle; left as it is."""
    return shared_server(tiny_bundle)


@pytest.fixture
def own_triton(tiny_bundle: Path, tmp_path: Path) -> Iterator[Triton]:
    """A server to be killed."""
    server = launch(export(tiny_bundle, tmp_path), tmp_path)
    yield server
    server.kill()


@pytest.fixture
def serve_on(tiny_bundle: Path, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services whose model runs on the servers at these URLs."""
    with ExitStack() as stack:

        def start(*urls: str, wait: bool = True, **variables: str) -> Service:
            running = start_service(
                tmp_path,
                tiny_bundle,
                ROBUSTZS_BACKEND="triton",
                ROBUSTZS_TRITON_URLS=",".join(urls),
                **{"ROBUSTZS_THREADS": "", "ROBUSTZS_TRITON_SECONDS": "5", **variables},
            )
            stack.callback(end_service, running)
            if wait:
                running.wait_ready()
            return running

        yield start
