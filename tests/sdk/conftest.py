"""A scripted server, and both clients as one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sdk.scripted import Either, Scripted


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Either:
    return Either(request.param)
