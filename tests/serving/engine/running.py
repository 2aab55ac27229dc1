"""A running engine on the embedded model, and what the tests of it share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from robustzs_serving.engine import Engine, ErrorRow
from robustzs_serving.ingest.calls import ImagePart
from robustzs_serving.observe.metrics import Metrics
from robustzs_serving.settings import ServiceSettings

from robustzs.answer import Answer
from robustzs.labels.label_set import LabelSet

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
T = TypeVar("T")


class Counted(Metrics):
    def __init__(self) -> None:
        self.prompts = 0
        self.lookups: list[bool] = []
        self.held = 0
        self.rows: list[int] = []
        self.answered = [0, 0]

    def texts(self, prompts: int, seconds: float) -> None:
        self.prompts += prompts

    def looked_up(self, cache: str, *, hit: bool) -> None:
        self.lookups.append(hit)

    def cached(self, cache: str, n_bytes: int) -> None:
        self.held = n_bytes

    def batch(self, rows: int, padded: int, seconds: float) -> None:
        self.rows.append(rows)

    def images(self, *, ok: int = 0, error: int = 0) -> None:
        self.answered[0] += ok
        self.answered[1] += error


def soon(seconds: float = 120.0) -> float:
    return time.monotonic() + seconds


@asynccontextmanager
async def running(metrics: Metrics | None = None, **changes: object) -> AsyncIterator[Engine]:
    settings = ServiceSettings(threads=1, decoders=1, **changes)  # type: ignore[arg-type]
    engine = Engine(settings, metrics=metrics)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def run(test: Callable[[Engine], Awaitable[T]], **options: object) -> T:
    async def main() -> T:
        async with running(**options) as engine:  # type: ignore[arg-type]
            return await test(engine)

    return asyncio.run(main())


def photo(name: str = "chelsea.png") -> ImagePart:
    return ImagePart((PHOTOS / name).read_bytes())


def labels(*names: str) -> LabelSet:
    return LabelSet.from_names(names)


CATS = labels("cat", "cup of coffee", "rocket")


def fine(rows: list[Answer | ErrorRow]) -> list[Answer]:
    assert not [row for row in rows if isinstance(row, ErrorRow)]
    return [row for row in rows if isinstance(row, Answer)]
