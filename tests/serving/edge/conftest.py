"""A served application for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from robustzs_serving.settings import ServiceSettings

from tests.serving.edge.served import LIMITS, Log, running


@pytest.fixture(scope="module")
def log() -> Log:
    return Log()


@pytest.fixture(scope="module")
def url(log: Log) -> Iterator[str]:
    with running(ServiceSettings(limits=LIMITS), log) as address:
        yield address
