"""``POST /v1/classify`` and Hugging Face's form of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio.to_thread
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from robustzs.answer import Answer
from robustzs_serving.api.context import Context, caller, deadline, elapsed_ms, key_id, request_id
from robustzs_serving.edge import apply_scores
from robustzs_serving.engine import ErrorRow
from robustzs_serving.errors import ScoresWithheldError, problem_of
from robustzs_serving.ingest import ClassifyCall, check_prompts, read_classify, read_zero_shot
from robustzs_serving.observe import measured
from robustzs_serving.settings import ScorePolicy

Row = Answer | ErrorRow


async def classify(request: Request, context: Context) -> Response:
    """Classify one image or several."""
    call = await read_classify(request, context.settings)
    with measured() as spent:
        rows = await _answer(request, context, call)
    if len(rows) == 1 and isinstance(rows[0], ErrorRow):
        raise rows[0].error
    policy = context.settings.score_policy
    results = b",".join(_result_json(index, row, policy) for index, row in enumerate(rows))
    timing = {
        "total_ms": elapsed_ms(request, context.settings),
        "labels_ms": _milliseconds(spent, "classifier"),
        "decode_ms": _milliseconds(spent, "decode"),
        "queue_ms": _milliseconds(spent, "queue"),
        "model_ms": _milliseconds(spent, "model"),
    }
    body = b'{"request_id":%b,"results":[%b],"timing":%b}' % (
        to_json(request_id(request)),
        results,
        to_json(timing),
    )
    failed = any(isinstance(row, ErrorRow) for row in rows)
    return Response(body, status_code=207 if failed else 200, media_type="application/json")


async def zero_shot(request: Request, context: Context) -> Response:
    """Classify one image, asked and answered as by Hugging Face's API."""
    policy = context.settings.score_policy
    if policy.kind == "withheld":
        raise ScoresWithheldError(
            "this route answers with scores, which this service withholds",
            hint="POST /v1/classify answers without them",
        )
    call = await read_zero_shot(request, context.settings)
    (row,) = await _answer(request, context, call)
    if isinstance(row, ErrorRow):
        raise row.error
    shown = apply_scores(policy, row.model_dump(mode="json", include={"top_k"}))
    return JSONResponse(
        [{"label": node["name"], "score": node["probability"]} for node in shown["top_k"]]
    )


def result(index: int, row: Row, policy: ScorePolicy) -> dict[str, Any]:
    """One of ``results``: the Answer or the error, its place, and how it went.

    Args:
        index: place in the request; what the Answer calls its image, too, since a service does not
            learn the names of files.
        row: from the engine.
        policy: what is shown of scores.
    """
    if isinstance(row, ErrorRow):
        problem = problem_of(row.error)
        return {
            "index": index,
            "status": "error",
            "image": str(index),
            "error": {"code": problem.code, "message": problem.message},
        }
    shown = apply_scores(policy, row.model_dump(mode="json"))
    return {"index": index, "status": "ok", **shown, "image": str(index)}


def _result_json(index: int, row: Row, policy: ScorePolicy) -> bytes:
    """``result`` as JSON; an Answer that is shown as it is goes there without a detour."""
    if isinstance(row, ErrorRow) or policy.kind != "full":
        return to_json(result(index, row, policy))
    named = row if row.image == str(index) else row.model_copy(update={"image": str(index)})
    return b'{"index":%d,"status":"ok",%b' % (index, to_json(named)[1:])


def _milliseconds(spent: Mapping[str, float], name: str) -> float:
    return round(1000 * spent.get(name, 0.0), 1)


async def _answer(request: Request, context: Context, call: ClassifyCall) -> Sequence[Row]:
    key = key_id(request)
    if call.label_set_id is not None or call.hierarchy_id is not None:
        call = await anyio.to_thread.run_sync(context.library.resolve, call, key)
        check_prompts(call, context.settings.limits)
    when = deadline(request, context.settings)
    return await context.engine.classify(call, deadline=when, caller=caller(request))
