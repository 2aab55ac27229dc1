"""The threads in which texts are encoded: bounded, and shared by callers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
from robustzs_serving.engine import Engine, ErrorRow
from robustzs_serving.engine.lanes import LONG, TextLanes
from robustzs_serving.errors import QueueFullError
from robustzs_serving.ingest.calls import ClassifyCall, ImagePart

from robustzs.answer import Answer
from tests.serving.engine.running import Counted, labels, photo, run, soon


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Work waits until it is open."""
    event = threading.Event()
    yield event
    event.set()


def _held(test: Callable[[TextLanes], Awaitable[None]], gate: threading.Event) -> None:
    async def main() -> None:
        lanes = TextLanes()
        try:
            await test(lanes)
        finally:
            gate.set()
            await lanes.close()

    asyncio.run(main())


def test_no_caller_fills_the_long_lane_alone(gate: threading.Event) -> None:
    async def test(lanes: TextLanes) -> None:
        def start(caller: str, n_texts: int = LONG) -> asyncio.Future[bool]:
            return lanes.start(gate.wait, n_texts=n_texts, caller=caller)

        first = [start("one"), start("one")]
        with pytest.raises(QueueFullError, match="2 sets of texts of yours"):
            start("one")
        short = start("one", LONG - 1)
        others = [start(f"caller {i}") for i in range(6)]
        with pytest.raises(QueueFullError, match="8 sets of texts wait"):
            start("late")
        gate.set()
        assert await asyncio.gather(*first, short, *others) == [True] * 9
        again = start("one"), start("one")
        assert await asyncio.gather(*again) == [True, True]

    _held(test, gate)


def test_work_that_is_cancelled_gives_its_place_back(gate: threading.Event) -> None:
    async def test(lanes: TextLanes) -> None:
        started = [lanes.start(gate.wait, n_texts=LONG, caller="one") for _ in range(2)]
        await asyncio.sleep(0.05)
        started[1].cancel()
        await asyncio.sleep(0)
        lanes.start(gate.wait, n_texts=LONG, caller="one")

    _held(test, gate)


def test_what_is_no_image_has_no_large_set_encoded() -> None:
    metrics = Counted()
    many = labels(*(f"thing {i}" for i in range(LONG)))

    async def ask(engine: Engine) -> None:
        bad = ClassifyCall(images=(ImagePart(b"no image"),) * 2, labels=many)
        rows = await engine.classify(bad, deadline=soon())
        assert [row.code for row in rows if isinstance(row, ErrorRow)] == ["image-format"] * 2
        assert metrics.prompts == 0
        assert metrics.answered == [0, 2]
        good = bad.with_images((photo(), *bad.images))
        first, *others = await engine.classify(good, deadline=soon())
        assert isinstance(first, Answer)
        assert all(isinstance(row, ErrorRow) for row in others)
        assert metrics.prompts == LONG
        # known now: nothing is in the way of answering both at once
        assert len(await engine.classify(bad, deadline=soon())) == 2
        assert metrics.answered == [1, 6]

    run(ask, metrics=metrics)


def test_trees_to_keep_ready_are_there_before_the_first_request() -> None:
    metrics = Counted()

    async def ask(engine: Engine) -> None:
        n_before = metrics.prompts
        (answer,) = await engine.classify(
            ClassifyCall(images=(photo(),), hierarchy=("flat",)), deadline=soon()
        )
        assert isinstance(answer, Answer)
        assert metrics.prompts == n_before
        assert metrics.lookups == [False, True]

    run(ask, metrics=metrics, warm=("flat",))
