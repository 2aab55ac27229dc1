"""The look after Triton servers goes on, whatever one look ends with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from robustzs_serving.engine.watch import TritonWatch
from robustzs_serving.errors import CODES
from robustzs_serving.observe.metrics import PrometheusMetrics

from robustzs.backends.triton import TritonBackend
from robustzs.backends.triton.endpoint import ServerReport


class _Servers(TritonBackend):
    """Reports at hand; what is missing is a thread that the system would not start."""

    def __init__(self, reports: Iterator[ServerReport | None]) -> None:
        self._reports = reports

    def report(self) -> list[ServerReport]:
        found = next(self._reports)
        if found is None:
            raise RuntimeError("can't start new thread")
        return [found]


def test_a_look_that_fails_is_not_ready_and_not_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fine = ServerReport(url="grpc://127.0.0.1:8001", error=None)

    def reports() -> Iterator[ServerReport | None]:
        yield fine
        yield from [None] * 20
        while True:
            yield fine

    async def told() -> list[bool]:
        watch = TritonWatch(_Servers(reports()), PrometheusMetrics(reasons=CODES), seconds=0.01)
        await watch.start()
        found = [watch.ready]
        for _ in range(1000):
            if watch.ready != found[-1]:
                found.append(watch.ready)
            if len(found) == 3:
                break
            await asyncio.sleep(0.005)
        await watch.close()
        return found

    assert asyncio.run(told()) == [True, False, True]
    assert "could not be looked at" in caplog.text
