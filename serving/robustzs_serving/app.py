"""The HTTP application: routes, one error envelope, and classifiers kept ready between requests."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import OrderedDict

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from robustzs.answer import Answer, AnswerError
from robustzs.bundle.registry import ALIASES
from robustzs.classifier import Classifier, Embedder
from robustzs.errors import ImageError, ModelNotFoundError, RobustZSError
from robustzs_serving.errors import (
    MethodNotAllowedError,
    NotFoundError,
    OverloadedError,
    SlowBodyError,
    status_of,
    to_envelope,
)
from robustzs_serving.requests import ClassifyRequest, read_request
from robustzs_serving.settings import ServiceSettings

_logger = logging.getLogger(__name__)
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Engine:
    """One model, and a classifier for each recent choice of labels, tree and options.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._embedder = Embedder.load(
            settings.model, device=settings.device, threads=settings.threads or None
        )
        self._max = 16
        self._ready: OrderedDict[str, Classifier] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def description(self) -> dict[str, str]:
        """The model and the provider in use."""
        return {
            "name": self._embedder.manifest.name,
            "digest": self._embedder.bundle.digest,
            "provider": self._embedder.backend.provider,
        }

    def classify(self, request: ClassifyRequest) -> list[Answer | AnswerError]:
        """Answer a request; blocks while the model runs.

        Raises:
            ModelNotFoundError: another model is wanted than this one.
            RobustZSError: the labels, the tree or an option are wrong.
        """
        self._check_model(request.model)
        classifier = self._classifier(request)
        return list(classifier.classify_many(request.images, batch_size=len(request.images)))

    def close(self) -> None:
        """Free the model."""
        self._embedder.backend.close()

    def _check_model(self, wanted: str | None) -> None:
        name = self._embedder.manifest.name
        if wanted is not None and name not in (wanted, ALIASES.get(wanted)):
            raise ModelNotFoundError(
                f"there is no model {wanted[:64]!r} here, only {name!r}",
                hint="leave the model out, or ask a service that has it",
            )

    def _classifier(self, request: ClassifyRequest) -> Classifier:
        with self._lock:
            if request.key in self._ready:
                self._ready.move_to_end(request.key)
                return self._ready[request.key]
        made = Classifier(self._embedder, request.options, **request.arguments)
        with self._lock:
            self._ready[request.key] = made
            while len(self._ready) > self._max:
                self._ready.popitem(last=False)
        return made


def create_app(settings: ServiceSettings) -> Starlette:
    """The application. Whoever runs it sets ``app.state.engine`` before the first request.

    Args:
        settings: of the service.
    """
    slots = threading.BoundedSemaphore(settings.limits.max_concurrency)

    async def classify(request: Request) -> Response:
        request_id = uuid.uuid4().hex
        if not slots.acquire(blocking=False):
            return to_envelope(OverloadedError("too many requests at once"), request_id)
        try:
            return await _classify(request, settings, request_id)
        except TimeoutError:
            return to_envelope(SlowBodyError("the body took too long to come"), request_id)
        except RobustZSError as error:
            if status_of(type(error)) >= 500:
                _logger.exception("request %s failed", request_id)
            return to_envelope(error, request_id)
        finally:
            slots.release()

    async def models(request: Request) -> Response:
        return JSONResponse({"models": [request.app.state.engine.description]})

    async def alive(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    routes = [
        Route("/v1/classify", classify, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/", alive, methods=["GET"]),
    ]
    known = {route.path for route in routes}

    # BentoML hands on only what a route matches, and answers the rest in plain text: so match all.
    async def nowhere(request: Request) -> Response:
        request_id = uuid.uuid4().hex
        if request.url.path in known:
            message = f"{request.method} is not allowed here"
            return to_envelope(MethodNotAllowedError(message), request_id)
        return to_envelope(NotFoundError("there is nothing at this path"), request_id)

    return Starlette(
        routes=[*routes, Route("/{rest:path}", nowhere, methods=_METHODS)],
        exception_handlers={Exception: _unexpected},
    )


async def _classify(request: Request, settings: ServiceSettings, request_id: str) -> Response:
    with anyio.fail_after(settings.limits.body_seconds):
        parsed = await read_request(request, settings)
    engine: Engine = request.app.state.engine
    rows = await anyio.to_thread.run_sync(engine.classify, parsed)
    failed = [row for row in rows if isinstance(row, AnswerError)]
    if len(rows) == 1 and failed:
        body = failed[0].error
        kinds = [kind for kind in ImageError.__subclasses__() if kind.code == body.code]
        return to_envelope((kinds[0] if kinds else ImageError)(body.message), request_id)
    results = [
        {
            "index": index,
            "status": "error" if isinstance(row, AnswerError) else "ok",
            **row.model_dump(mode="json"),
            "image": str(index),
        }
        for index, row in enumerate(rows)
    ]
    return JSONResponse(
        {"request_id": request_id, "results": results},
        status_code=207 if failed else 200,
        headers={"X-Request-ID": request_id},
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    request_id = uuid.uuid4().hex
    return to_envelope(error, request_id)
