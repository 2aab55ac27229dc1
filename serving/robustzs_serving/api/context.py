"""What every endpoint has at hand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from robustzs_serving.settings import ServiceSettings
from robustzs_serving.stored.library import Library

if TYPE_CHECKING:
    from robustzs_serving.engine import Engine


@dataclass(frozen=True)
class Context:
    """The parts that endpoints use.

    Attributes:
        engine: answers.
        library: what is kept under ids.
        settings: of the service.
    """

    engine: Engine
    library: Library
    settings: ServiceSettings


def request_id(request: Request) -> str:
    """The id of the request, in its answer's headers and body, and in the log."""
    return str(getattr(request.state, "request_id", ""))


def key_id(request: Request) -> str:
    """Whose request it is; without keys all are one."""
    return str(getattr(request.state, "key_id", "anonymous"))


def deadline(request: Request, settings: ServiceSettings) -> float:
    """When the answer must be there, by ``time.monotonic``."""
    known = getattr(request.state, "deadline", None)
    return time.monotonic() + settings.limits.request_seconds if known is None else float(known)


def elapsed_ms(request: Request, settings: ServiceSettings) -> float:
    """Milliseconds since the request's head came."""
    started = deadline(request, settings) - settings.limits.request_seconds
    return round(max(0.0, time.monotonic() - started) * 1000, 1)
