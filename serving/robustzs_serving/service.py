"""The BentoML service: `bentoml serve robustzs_serving.service:RobustZS`.

The application is mounted at the root, so that BentoML's own page there (which loads a tag manager)
is not served. BentoML adds /livez, /readyz, /healthz and /metrics.
"""

from __future__ import annotations

import bentoml

from robustzs_serving.app import Engine, create_app
from robustzs_serving.settings import ServiceSettings

settings = ServiceSettings.from_env()
app = create_app(settings)


@bentoml.service(
    name="robustzs",
    workers=settings.workers,
    # The first use of a large tree encodes all its prompts before it can answer.
    traffic={"timeout": 300},
)
@bentoml.asgi_app(app, path="/")
class RobustZS:
    """Robust, hierarchical zero-shot image classification."""

    def __init__(self) -> None:
        app.state.engine = Engine(settings)

    @bentoml.on_shutdown
    def close(self) -> None:
        """Free the model."""
        app.state.engine.close()
