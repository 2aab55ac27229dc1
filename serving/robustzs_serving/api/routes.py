"""The table of operations as Starlette's routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from robustzs_serving.api.context import Context
from robustzs_serving.api.operations import OPERATIONS, Endpoint
from robustzs_serving.settings import ServiceSettings
from robustzs_serving.stored.library import Library

if TYPE_CHECKING:
    from robustzs_serving.engine import Engine


def routes(engine: Engine, library: Library, settings: ServiceSettings) -> list[Route]:
    """One route for each path, so that its 405 names all its methods.

    Args:
        engine: answers; started before the first request.
        library: what is kept under ids.
        settings: of the service.
    """
    context = Context(engine, library, settings)
    by_path: dict[str, dict[str, Endpoint]] = {}
    for operation in OPERATIONS:
        if operation.endpoint is not None:
            by_path.setdefault(operation.path, {})[operation.method] = operation.endpoint
    return [_route(path, endpoints, context) for path, endpoints in by_path.items()]


def _route(path: str, endpoints: dict[str, Endpoint], context: Context) -> Route:
    async def dispatch(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await endpoints[method](request, context)

    return Route(path, dispatch, methods=sorted(endpoints))
