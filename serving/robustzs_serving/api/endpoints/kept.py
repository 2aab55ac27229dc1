"""``/v1/label-sets`` and ``/v1/hierarchies``: what a client keeps here under ids."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import format_datetime
from functools import partial
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from robustzs_serving.api.context import Context, caller, deadline, key_id
from robustzs_serving.errors import FieldValueError
from robustzs_serving.ingest import ClassifyCall, read_hierarchy, read_label_set
from robustzs_serving.stored import (
    Kind,
    Preconditions,
    Stored,
    StoreDamagedError,
    StoredNotFoundError,
)
from robustzs_serving.stored.library import hierarchy_document, label_set_document
from robustzs_serving.stored.store import MAX_PAGE

DEFAULT_PAGE = 100
_MAX_AFTER = 64


async def put_label_set(request: Request, context: Context) -> Response:
    """Keep labels under an id."""
    preconditions = await _may_put("label-sets", request, context)
    labels = await read_label_set(request, context.settings)
    await _prepare(request, context, ClassifyCall(images=(), labels=labels))
    return await _put("label-sets", request, context, preconditions, label_set_document(labels))


async def put_hierarchy(request: Request, context: Context) -> Response:
    """Keep a tree, or several over the same leaves, under an id."""
    preconditions = await _may_put("hierarchies", request, context)
    trees = await read_hierarchy(request, context.settings)
    await _prepare(request, context, ClassifyCall(images=(), hierarchy=trees))
    return await _put("hierarchies", request, context, preconditions, hierarchy_document(trees))


async def get_label_set(request: Request, context: Context) -> Response:
    """What is kept, in the form that ``PUT`` takes."""
    return await _get("label-sets", request, context)


async def get_hierarchy(request: Request, context: Context) -> Response:
    """What is kept, in the form that ``PUT`` takes."""
    return await _get("hierarchies", request, context)


async def delete_label_set(request: Request, context: Context) -> Response:
    """Forget what is kept."""
    return await _delete("label-sets", request, context)


async def delete_hierarchy(request: Request, context: Context) -> Response:
    """Forget what is kept."""
    return await _delete("hierarchies", request, context)


async def list_label_sets(request: Request, context: Context) -> Response:
    """What the key keeps."""
    return await _list("label-sets", request, context)


async def list_hierarchies(request: Request, context: Context) -> Response:
    """What the key keeps."""
    return await _list("hierarchies", request, context)


async def _may_put(kind: Kind, request: Request, context: Context) -> Preconditions:
    """Refuse what could not be put before its body is read and its texts are encoded."""
    preconditions = Preconditions.from_headers(request.headers)
    get = partial(context.library.store.get, kind, request.path_params["id"], key_id(request))
    try:
        etag = (await anyio.to_thread.run_sync(get)).etag
    except (StoredNotFoundError, StoreDamagedError):
        etag = None
    preconditions.check(etag)
    return preconditions


async def _prepare(request: Request, context: Context, call: ClassifyCall) -> None:
    """Encode the texts now; a later request with the same ones reads their features from disk."""
    when = deadline(request, context.settings)
    await context.engine.classify(call, deadline=when, caller=caller(request))


async def _put(
    kind: Kind,
    request: Request,
    context: Context,
    preconditions: Preconditions,
    document: Mapping[str, Any],
) -> Response:
    id_, store = request.path_params["id"], context.library.store
    put = partial(store.put, kind, id_, key_id(request), document, preconditions=preconditions)
    stored = await anyio.to_thread.run_sync(put)
    headers = _headers(stored)
    if stored.is_new:
        headers["Location"] = f"/v1/{kind}/{id_}"
    return JSONResponse(_info(stored), status_code=201 if stored.is_new else 200, headers=headers)


async def _get(kind: Kind, request: Request, context: Context) -> Response:
    preconditions = Preconditions.from_headers(request.headers)
    get = partial(context.library.store.get, kind, request.path_params["id"], key_id(request))
    stored = await anyio.to_thread.run_sync(get)
    headers = _headers(stored)
    if preconditions.is_known(stored.etag):
        return Response(status_code=304, headers=headers)
    return JSONResponse(_shown(kind, stored), headers=headers)


async def _delete(kind: Kind, request: Request, context: Context) -> Response:
    preconditions = Preconditions.from_headers(request.headers)
    id_, store = request.path_params["id"], context.library.store
    delete = partial(store.delete, kind, id_, key_id(request), preconditions=preconditions)
    await anyio.to_thread.run_sync(delete)
    return Response(status_code=204)


async def _list(kind: Kind, request: Request, context: Context) -> Response:
    after, limit = _page(request)
    look = partial(context.library.store.list, kind, key_id(request), after=after, limit=limit)
    page = await anyio.to_thread.run_sync(look)
    items = [_info(stored) for stored in page.items]
    return JSONResponse({"items": items, "next_after": page.next_after})


def _shown(kind: Kind, stored: Stored) -> Any:
    """The document as clients have it: a single tree stands for itself."""
    if kind == "label-sets":
        return dict(stored.document)
    trees = stored.document["trees"]
    return trees[0] if len(trees) == 1 else {"trees": trees}


def _page(request: Request) -> tuple[str, int]:
    """The parameters ``after`` and ``limit``; no others, and each once."""
    given = request.query_params
    for name in given:
        if name not in ("after", "limit"):
            raise FieldValueError(
                f"unknown parameter {name[:_MAX_AFTER]!r}", hint="use after and limit"
            )
        if len(given.getlist(name)) > 1:
            raise FieldValueError(f"the parameter {name} is there twice", param=name)
    limit = given.get("limit", str(DEFAULT_PAGE))
    is_short = limit.isascii() and limit.isdecimal() and len(limit) <= len(str(MAX_PAGE))
    if not is_short or not 1 <= int(limit) <= MAX_PAGE:
        raise FieldValueError(f"limit must be a whole number from 1 to {MAX_PAGE}", param="limit")
    after = given.get("after", "")
    if len(after) > _MAX_AFTER:
        raise FieldValueError(f"after has more than {_MAX_AFTER} characters", param="after")
    return after, int(limit)


def _headers(stored: Stored) -> dict[str, str]:
    return {
        "ETag": stored.etag,
        "Last-Modified": format_datetime(stored.modified_at, usegmt=True),
        "Cache-Control": "private, no-cache",
    }


def _info(stored: Stored) -> dict[str, Any]:
    return {
        "id": stored.id,
        "etag": stored.etag,
        "bytes": stored.n_bytes,
        "created_at": stored.created_at.isoformat(),
        "modified_at": stored.modified_at.isoformat(),
    }
