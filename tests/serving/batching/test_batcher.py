"""Which rows run together, and what becomes of those that fail, wait too long or leave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robustzs_serving.batching import Batcher
from robustzs_serving.errors import DeadlineError, QueueFullError, ShuttingDownError
from robustzs_serving.observe.metrics import Metrics

from robustzs.errors import InferenceError, UsageError

SHAPE = (3, 4, 4)
Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
T = TypeVar("T")


class Counted(Metrics):
    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.drops: list[str] = []
        self.waiting: list[int] = []

    def batch(self, rows: int, padded: int, seconds: float) -> None:
        self.batches.append((rows, padded))

    def dropped(self, reason: str) -> None:
        self.drops.append(reason)

    def queued(self, rows: int) -> None:
        self.waiting.append(rows)


class Tower:
    """Features are a row's first value; runs are recorded, may be held up, and fail on poison."""

    def __init__(self) -> None:
        self.shapes: list[int] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, pixels: Features) -> Features:
        self.shapes.append(len(pixels))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(30)
        values = np.rint(pixels[:, 0, 0, 0] * 255)
        if (values == POISON).any():
            raise InferenceError("poison")
        return np.stack([values, values + 1], axis=1).astype(np.float32)


POISON = 13


def row(value: int) -> Pixels:
    return np.full(SHAPE, value, np.uint8)


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


def with_batcher(
    test: Callable[[Batcher], Awaitable[T]],
    tower: Callable[[Features], Features],
    **options: object,
) -> T:
    async def run() -> T:
        batcher = Batcher(tower, shape=SHAPE, **options)  # type: ignore[arg-type]
        try:
            return await test(batcher)
        finally:
            await batcher.close()

    return asyncio.run(run())


def test_rows_that_come_together_run_together_padded() -> None:
    tower, metrics = Tower(), Counted()

    async def submit(batcher: Batcher) -> list[Features]:
        return await asyncio.gather(*(batcher.submit(row(i), deadline=soon()) for i in range(5)))

    features = with_batcher(submit, tower, wait_seconds=0.2, metrics=metrics)
    assert [list(vector) for vector in features] == [[i, i + 1] for i in range(5)]
    assert tower.shapes == [8]
    assert metrics.batches == [(5, 3)]
    assert len(tower.threads) == 1


def test_a_full_batch_does_not_wait() -> None:
    tower = Tower()

    async def submit(batcher: Batcher) -> float:
        started = time.monotonic()
        await asyncio.gather(*(batcher.submit(row(i), deadline=soon()) for i in range(8)))
        return time.monotonic() - started

    assert with_batcher(submit, tower, max_rows=4, buckets=(2, 4), wait_seconds=20.0) < 10.0
    assert tower.shapes == [4, 4]


def test_one_row_waits_no_longer_than_it_must() -> None:
    tower = Tower()

    async def submit(batcher: Batcher) -> float:
        await batcher.submit(row(1), deadline=soon())
        started = time.monotonic()
        await batcher.submit(row(1), deadline=soon())
        return time.monotonic() - started

    assert 0.2 <= with_batcher(submit, tower, wait_seconds=0.2) < 5.0
    assert tower.shapes == [1, 1]


def test_what_comes_while_the_model_runs_is_the_next_batch() -> None:
    tower = Tower()

    async def submit(batcher: Batcher) -> None:
        tower.gate.clear()
        first = asyncio.ensure_future(batcher.submit(row(1), deadline=soon()))
        while not tower.shapes:
            await asyncio.sleep(0.005)
        rest = [asyncio.ensure_future(batcher.submit(row(2), deadline=soon())) for _ in range(7)]
        await asyncio.sleep(0.05)
        tower.gate.set()
        await asyncio.gather(first, *rest)

    with_batcher(submit, tower, wait_seconds=0.0)
    assert tower.shapes == [1, 8]


@settings(max_examples=25)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.integers(1, 9))
def test_poison_fails_alone(values: list[int], max_rows: int) -> None:
    async def submit(batcher: Batcher) -> list[Features | BaseException]:
        return await asyncio.gather(
            *(batcher.submit(row(value), deadline=soon()) for value in values),
            return_exceptions=True,
        )

    results = with_batcher(submit, Tower(), max_rows=max_rows, buckets=(max_rows,))
    for value, result in zip(values, results, strict=True):
        if value == POISON:
            assert isinstance(result, InferenceError)
        else:
            assert not isinstance(result, BaseException)
            assert result[0] == value


def test_any_kind_of_failure_reaches_its_row_and_the_next_batch_runs() -> None:
    def broken(pixels: Features) -> Features:
        if pixels.max() > 0.5:
            raise ZeroDivisionError("a bug")
        return np.zeros((len(pixels) - (pixels.max() > 0.25), 2), np.float32)

    async def submit(batcher: Batcher) -> None:
        with pytest.raises(ZeroDivisionError):
            await batcher.submit(row(255), deadline=soon())
        with pytest.raises(InferenceError, match="0 rows for 1"):
            await batcher.submit(row(100), deadline=soon())
        assert (await batcher.submit(row(0), deadline=soon())).shape == (2,)

    with_batcher(submit, broken)


def test_the_queue_is_bounded_and_who_leaves_makes_room() -> None:
    tower, metrics = Tower(), Counted()

    async def submit(batcher: Batcher) -> None:
        tower.gate.clear()
        running = asyncio.ensure_future(batcher.submit(row(0), deadline=soon()))
        while not tower.shapes:
            await asyncio.sleep(0.005)
        waiting = [asyncio.ensure_future(batcher.submit(row(i), deadline=soon())) for i in (1, 2)]
        await asyncio.sleep(0.01)
        assert batcher.free_rows == 0
        with pytest.raises(QueueFullError):
            await batcher.submit(row(3), deadline=soon())
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        await asyncio.sleep(0)
        assert batcher.free_rows == 1
        late = asyncio.ensure_future(batcher.submit(row(4), deadline=soon(0.05)))
        with pytest.raises(DeadlineError):
            await late
        tower.gate.set()
        assert (await running)[0] == 0
        assert (await waiting[1])[0] == 2

    with_batcher(submit, tower, queue_rows=2, metrics=metrics)
    assert tower.shapes == [1, 1], "what nobody waits for is not run"
    assert sorted(metrics.drops) == ["cancelled", "deadline"]
    assert metrics.waiting[-1] == 0


def test_a_deadline_holds_while_the_model_runs() -> None:
    tower = Tower()

    async def submit(batcher: Batcher) -> None:
        tower.gate.clear()
        started = time.monotonic()
        with pytest.raises(DeadlineError):
            await batcher.submit(row(1), deadline=soon(0.2))
        assert time.monotonic() - started < 10.0
        with pytest.raises(DeadlineError):
            await batcher.submit(row(1), deadline=soon(-1.0))
        tower.gate.set()
        assert (await batcher.submit(row(2), deadline=soon()))[0] == 2

    with_batcher(submit, tower, wait_seconds=0.0)


def test_closing_drains_or_refuses() -> None:
    async def close(drain: bool) -> tuple[Features, list[Features | BaseException]]:
        tower = Tower()
        tower.gate.clear()
        batcher = Batcher(tower, shape=SHAPE, max_rows=1, buckets=(1,))
        rows = [asyncio.ensure_future(batcher.submit(row(i), deadline=soon())) for i in range(3)]
        while not tower.shapes:
            await asyncio.sleep(0.005)
        closing = asyncio.ensure_future(batcher.close(drain=drain))
        await asyncio.sleep(0.01)
        with pytest.raises(ShuttingDownError):
            await batcher.submit(row(9), deadline=soon())
        tower.gate.set()
        await closing
        first, *rest = await asyncio.gather(*rows, return_exceptions=True)
        assert not isinstance(first, BaseException)
        return first, rest

    first, rest = asyncio.run(close(True))
    assert [first[0], *(one[0] for one in rest)] == [0, 1, 2]  # type: ignore[index]
    first, rest = asyncio.run(close(False))
    assert first[0] == 0
    assert all(isinstance(one, ShuttingDownError) for one in rest)


def test_so_many_run_at_once_and_no_more() -> None:
    tower = Tower()

    async def submit(batcher: Batcher) -> list[Features]:
        tower.gate.clear()
        rows = []
        for value in range(4):
            rows.append(asyncio.ensure_future(batcher.submit(row(value), deadline=soon())))
            await asyncio.sleep(0.1)
        assert tower.shapes == [1, 1]  # two run, the other two wait together
        tower.gate.set()
        return await asyncio.gather(*rows)

    features = with_batcher(submit, tower, in_flight=2, wait_seconds=0.0)
    assert [vector[0] for vector in features] == [0, 1, 2, 3]
    assert tower.shapes == [1, 1, 2]
    assert len(tower.threads) == 2


def test_runs_at_once_do_not_mix_their_rows_and_poison_stays_alone() -> None:
    async def submit(batcher: Batcher) -> list[Features | BaseException]:
        async def one(value: int) -> Features:
            await asyncio.sleep(value % 7 / 1000)
            return await batcher.submit(row(value), deadline=soon())

        return await asyncio.gather(*map(one, range(200)), return_exceptions=True)

    answers = with_batcher(submit, Tower(), in_flight=3, max_rows=4, buckets=(1, 2, 4))
    for value, answer in enumerate(answers):
        if value == POISON:
            assert isinstance(answer, InferenceError)
        else:
            assert not isinstance(answer, BaseException)
            assert list(answer) == [value, value + 1]


def test_closing_waits_for_every_run() -> None:
    tower = Tower()

    async def close() -> list[Features]:
        batcher = Batcher(tower, shape=SHAPE, in_flight=2, wait_seconds=0.0)
        tower.gate.clear()
        rows = []
        for value in range(2):
            rows.append(asyncio.ensure_future(batcher.submit(row(value), deadline=soon())))
            await asyncio.sleep(0.1)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0.1)
        assert not closing.done()
        tower.gate.set()
        await closing
        assert all(one.done() for one in rows)
        return [one.result() for one in rows]

    assert [vector[0] for vector in asyncio.run(close())] == [0, 1]


def test_warming_runs_every_shape_on_black() -> None:
    tower = Tower()

    async def warm(batcher: Batcher) -> None:
        await batcher.warm()

    with_batcher(warm, tower)
    assert tower.shapes == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("waiting", "max_padding", "runs"),
    [
        (5, 1.0, [(5, 3)]),
        (5, 0.125, [(4, 0), (1, 0)]),
        (7, 0.125, [(7, 1)]),
        (3, 0.125, [(2, 0), (1, 0)]),
        (6, 0.0, [(4, 0), (2, 0)]),
    ],
)
def test_rows_that_would_run_with_much_padding_run_in_two_batches(
    waiting: int, max_padding: float, runs: list[tuple[int, int]]
) -> None:
    metrics, tower = Counted(), Tower()

    async def test(batcher: Batcher) -> None:
        rows = (batcher.submit(row(value), deadline=soon()) for value in range(waiting))
        assert [int(features[0]) for features in await asyncio.gather(*rows)] == [*range(waiting)]

    with_batcher(
        test, tower, max_rows=8, buckets=(1, 2, 4, 8), max_padding=max_padding, metrics=metrics
    )
    assert metrics.batches == runs


def test_rows_that_all_left_before_the_first_run_hold_nobody_up() -> None:
    metrics = Counted()

    async def test(batcher: Batcher) -> None:
        left = [asyncio.ensure_future(batcher.submit(row(1), deadline=soon())) for _ in range(3)]
        await asyncio.sleep(0)
        for task in left:
            task.cancel()
        await asyncio.wait(left)
        features = await asyncio.wait_for(batcher.submit(row(2), deadline=soon()), 30)
        assert features[0] == 2

    with_batcher(test, Tower(), wait_seconds=0.05, max_padding=0.125, metrics=metrics)
    assert metrics.batches == [(1, 0)]


@pytest.mark.parametrize(
    "options",
    [
        {"max_rows": 0},
        {"in_flight": 0},
        {"queue_rows": 0},
        {"wait_seconds": float("nan")},
        {"buckets": ()},
        {"buckets": (4, 2, 16)},
        {"buckets": (1, 8), "max_rows": 16},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Batcher(Tower(), shape=SHAPE, **options)  # type: ignore[arg-type]


def test_rows_of_another_shape_or_type_are_refused() -> None:
    async def submit(batcher: Batcher) -> None:
        for wrong in (np.zeros((3, 4, 5), np.uint8), np.zeros(SHAPE, np.float32)):
            with pytest.raises(UsageError, match="uint8"):
                await batcher.submit(wrong, deadline=soon())  # type: ignore[arg-type]

    with_batcher(submit, Tower())
