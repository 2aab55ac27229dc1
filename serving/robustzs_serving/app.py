"""The HTTP application: the rooms, put together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware

from robustzs_serving.api import routes
from robustzs_serving.edge import errors_route, exception_handlers, middleware
from robustzs_serving.engine import Engine
from robustzs_serving.observe import Metrics, ObserveMiddleware, observe_routes
from robustzs_serving.page import page_routes
from robustzs_serving.settings import ServiceSettings
from robustzs_serving.stored import Store
from robustzs_serving.stored.library import Library, default_folder


def create_app(
    settings: ServiceSettings, *, engine: Engine | None = None, metrics: Metrics | None = None
) -> Starlette:
    """The application; its life cycle starts and closes the engine.

    Making it loads nothing: the supervisor of the workers makes one, too.

    Args:
        settings: of the service.
        engine: by default one for the settings; also ``app.state.engine``.
        metrics: what is counted; by default nothing.

    Raises:
        UsageError: the keys file cannot be read.
    """
    metrics = metrics or Metrics()
    engine = engine or Engine(settings, metrics=metrics)
    store = Store(
        settings.store_dir or default_folder(),
        bytes_per_key=settings.limits.stored_bytes_per_key,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            await engine.start()
            yield
        finally:
            await engine.close()

    app = Starlette(
        routes=[
            *observe_routes(metrics, lambda: engine.ready),
            *page_routes(),
            errors_route(),
            *routes(engine, Library(store, metrics), settings),
        ],
        middleware=middleware(
            settings,
            observe=[Middleware(ObserveMiddleware, metrics=metrics)],
            on_reject=metrics.reject,
        ),
        exception_handlers=exception_handlers(),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a path is there, or it is a 404
    app.state.engine = engine
    return app
