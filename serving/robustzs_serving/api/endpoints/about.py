"""What the service says of itself: its model, its error codes, its OpenAPI file."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from robustzs.errors import ModelNotFoundError
from robustzs_serving.api.context import Context
from robustzs_serving.errors import quoted


async def models(request: Request, context: Context) -> Response:
    """The models of this service: one."""
    return JSONResponse({"models": [_details(context)]})


async def model(request: Request, context: Context) -> Response:
    """One model by its name or an alias."""
    name = request.path_params["name"]
    description = context.description
    if name not in description.names:
        raise ModelNotFoundError(
            f"there is no model {quoted(name)} here", hint=f"this is {description.name}"
        )
    return JSONResponse(_details(context))


async def openapi(request: Request, context: Context) -> Response:
    """The OpenAPI document, with the limits of this service."""
    content = await anyio.to_thread.run_sync(lambda: context.openapi)
    return Response(content, media_type="application/json")


def _details(context: Context) -> dict[str, Any]:
    about = context.description
    return {
        "name": about.name,
        "aliases": [name for name in about.names if name != about.name],
        "digest": about.digest,
        "provider": about.provider,
        "precision": about.precision,
        "text_precision": about.text_precision,
        "image_size": list(about.image_size),
        "embed_dim": about.embed_dim,
        "card": about.card,
    }
