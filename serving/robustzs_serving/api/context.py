"""What every endpoint has at hand."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from starlette.requests import Request

from robustzs_serving.settings import ServiceSettings
from robustzs_serving.stored.library import Library

if TYPE_CHECKING:
    from robustzs_serving.engine import Description, Engine


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

    @cached_property
    def description(self) -> Description:
        """The model that answers; its card is read once.

        Raises:
            NotReadyError: it is not loaded.
        """
        return self.engine.description

    @cached_property
    def openapi(self) -> bytes:
        """The OpenAPI document; takes a second to make, the first time."""
        from robustzs_serving.api.openapi import openapi

        return json.dumps(openapi(self.settings), ensure_ascii=False).encode("utf-8")


def request_id(request: Request) -> str:
    """The id of the request, in its answer's headers and body, and in the log."""
    return str(getattr(request.state, "request_id", ""))


def key_id(request: Request) -> str:
    """Whose request it is; without keys all are one."""
    return str(getattr(request.state, "key_id", "anonymous"))


def caller(request: Request) -> str:
    """Who takes places in queues: a key's owner, or an address where there are no keys."""
    return str(getattr(request.state, "caller", "anonymous"))


def deadline(request: Request, settings: ServiceSettings) -> float:
    """When the answer must be there, by ``time.monotonic``."""
    known = getattr(request.state, "deadline", None)
    return time.monotonic() + settings.limits.request_seconds if known is None else float(known)


def elapsed_ms(request: Request, settings: ServiceSettings) -> float:
    """Milliseconds since the request's head came."""
    started = deadline(request, settings) - settings.limits.request_seconds
    return round(max(0.0, time.monotonic() - started) * 1000, 1)
