"""The whole application in this process, with the embedded model, behind httpx."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from robustzs_serving.app import create_app
from robustzs_serving.settings import ServiceSettings
from starlette.applications import Starlette

_Result = TypeVar("_Result")
PHOTO = Path(__file__).parents[3] / "examples" / "photos" / "chelsea.png"


class Served:
    """An application that runs in a thread's event loop; calls are synchronous."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.app: Starlette = create_app(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._life = self.app.router.lifespan_context(self.app)
        self.run(self._life.__aenter__())
        transport = httpx.ASGITransport(app=self.app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=120)

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.run(self._client.request(method, path, timeout=120, **request))

    def close(self) -> None:
        self.run(self._client.aclose())
        self.run(self._life.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30)
        self._loop.close()


@pytest.fixture(scope="session")
def photo() -> bytes:
    return PHOTO.read_bytes()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The embedded model, with the limits that are set by default."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("served")
        patch.setenv("ROBUSTZS_CACHE", str(folder / "cache"))
        service = Served(ServiceSettings(store_dir=folder / "stored", decoders=1, threads=1))
    try:
        yield service
    finally:
        service.close()


@pytest.fixture
def tiny(tiny_bundle: Path, tmp_path: Path) -> Iterator[type[Served] | Any]:
    """Makes services of the tiny bundle with settings of one's own."""
    made: list[Served] = []

    def make(**settings: Any) -> Served:
        values = {"store_dir": tmp_path / "stored", "decoders": 1, "threads": 1, **settings}
        made.append(Served(ServiceSettings(model=str(tiny_bundle), **values)))
        return made[-1]

    yield make
    for service in made:
        service.close()
