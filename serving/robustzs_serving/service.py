"""The BentoML service: ``robustzs serve``, ``bentoml serve robustzs_serving.service:RobustZS``.

BentoML brings the processes, the build and the deployment; every request is answered by our own
application (``front.WholeApp``). This module is loaded by the supervisor, too, so loading it must
not load a model: the application's life cycle does that, in each worker.
"""

# ruff: noqa: E402 (the shared folder must be known before prometheus_client is imported)

from __future__ import annotations

import gc
import logging

from robustzs_serving.observe.folder import share_metrics

share_metrics()

import bentoml

from robustzs import __version__
from robustzs_serving import wire
from robustzs_serving.app import create_app
from robustzs_serving.errors import CODES
from robustzs_serving.front import WholeApp
from robustzs_serving.observe import (
    PrometheusMetrics,
    close_tracing,
    configure_logging,
    configure_tracing,
)
from robustzs_serving.settings import ServiceSettings
from robustzs_serving.supervisor import (
    believe_proxies,
    end_with_parent,
    report_nothing,
    tame_supervisor,
)

_logger = logging.getLogger(__name__)
settings = ServiceSettings.from_env()
configure_logging(settings.log_format)
report_nothing()
tame_supervisor()
believe_proxies(settings.trusted_proxies)
metrics = PrometheusMetrics(reasons=CODES)
app = create_app(settings, metrics=metrics)
wire.install(settings.limits, metrics)


@bentoml.service(
    name="robustzs",
    workers=settings.workers,
    http={"host": settings.host, "port": settings.port},
    # Ours: by route pattern and not by path, with request ids, over all workers.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    # Behind our own deadline, so that the answer to a late request is ours.
    traffic={"timeout": settings.limits.request_seconds + settings.limits.body_seconds + 30.0},
)
@bentoml.asgi_app(app, path="/")
class RobustZS:
    """Robust, hierarchical zero-shot image classification."""

    def __init__(self) -> None:
        end_with_parent()
        # BentoML has set up its own by now.
        configure_logging(settings.log_format)
        configure_tracing(settings.trace_endpoint, version=__version__)

    @bentoml.on_shutdown
    def close(self) -> None:
        """Send the last traces."""
        close_tracing()


def _started() -> None:
    # What lives as long as the process is not looked through for garbage again: that would stop
    # every request for 50 to 300 ms, again and again.
    gc.collect()
    gc.freeze()
    model = app.state.engine.description
    metrics.worker(ready=True)
    _logger.info(
        "worker ready",
        extra={
            "version": __version__,
            "model": model.name,
            "digest": model.digest,
            "precision": model.precision,
            "provider": model.provider,
        },
    )


RobustZS.add_asgi_middleware(  # type: ignore[attr-defined]
    WholeApp, ours=app, started=_started
)
