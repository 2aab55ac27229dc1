"""Routes of the page: ``/`` and the files that it loads from ``/page/``.

The page needs no build step and loads nothing from elsewhere, so its policy names its own origin
alone, and neither script nor style stands inside the HTML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from robustzs_serving.edge.headers import PAGE_POLICY

_FOLDER = Path(__file__).parent / "static"

PAGE_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""What every file of the page is sent with, beside what every answer of the service is."""


class _PageFiles(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(PAGE_HEADERS)
        return response


def page_routes() -> list[BaseRoute]:
    """``GET /`` and ``GET /page/{file}``; they need no key, since they hold nothing of anybody."""
    files = _PageFiles(directory=_FOLDER)

    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    return [Route("/", index, methods=["GET"]), Mount("/page", files, name="page")]
