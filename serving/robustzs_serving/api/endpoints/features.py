"""``POST /v1/embed``."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from robustzs.backends.base import Float32Array
from robustzs_serving.api.context import Context, caller, deadline, request_id
from robustzs_serving.engine import ErrorRow
from robustzs_serving.errors import ScoresWithheldError, problem_of
from robustzs_serving.ingest import read_embed

Encode = Callable[[Float32Array], "list[float] | str"]


async def embed(request: Request, context: Context) -> Response:
    """Features of images and texts."""
    if context.settings.score_policy.kind != "full":
        raise ScoresWithheldError(
            "features would give away the scores that this service rounds or withholds"
        )
    call = await read_embed(request, context.settings)
    when = deadline(request, context.settings)
    found = await context.engine.embed(call, deadline=when, caller=caller(request))
    if len(found.images) == 1 and not call.texts and isinstance(found.images[0], ErrorRow):
        raise found.images[0].error
    encode = as_base64 if call.encoding == "base64" else as_list
    model = context.description
    body = {
        "request_id": request_id(request),
        "model": {"name": model.name, "digest": model.digest},
        "dim": model.embed_dim,
        "encoding": call.encoding,
        "images": [_embedded(index, row, encode) for index, row in enumerate(found.images)],
        "texts": [_embedded(index, row, encode) for index, row in enumerate(found.texts)],
    }
    failed = any(isinstance(row, ErrorRow) for row in found.images)
    return JSONResponse(body, status_code=207 if failed else 200)


def as_list(vector: Float32Array) -> list[float]:
    """The numbers; each is the float32, exactly."""
    return [float(number) for number in vector]


def as_base64(vector: Float32Array) -> str:
    """Four bytes a number, little-endian, in base64."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")


def _embedded(index: int, row: Float32Array | ErrorRow, encode: Encode) -> dict[str, Any]:
    if isinstance(row, ErrorRow):
        problem = problem_of(row.error)
        error = {"code": problem.code, "message": problem.message}
        return {"index": index, "status": "error", "error": error}
    return {"index": index, "status": "ok", "embedding": encode(row)}
