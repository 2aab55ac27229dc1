"""What can be seen of a running service: metrics, logs, traces and readiness.

```
metrics.py     Metrics: what is counted. The base class counts nothing; PrometheusMetrics exports
catalogue.py   every metric: name, kind, labels and what it means; the docs and dashboard hold to it
folder.py      the folder that worker processes share their numbers through
logs.py        text or JSON lines that client text cannot forge; the id of the current request
tracing.py     OpenTelemetry spans, when asked for
readiness.py   what must hold before a process takes requests
middleware.py  one ASGI middleware: counts, access line, root span
routes.py      /livez, /readyz, /metrics
```

Nothing here imports prometheus_client or OpenTelemetry before it is needed: decode processes import
this package, and the shared folder must be known before prometheus_client is first imported.
"""

from robustzs_serving.observe.logs import (
    LogFormat,
    configure_logging,
    current_request_id,
    request_context,
)
from robustzs_serving.observe.metrics import Metrics, PrometheusMetrics
from robustzs_serving.observe.middleware import ObserveMiddleware
from robustzs_serving.observe.readiness import Readiness
from robustzs_serving.observe.routes import observe_routes
from robustzs_serving.observe.tracing import (
    close_tracing,
    configure_tracing,
    measured,
    record,
    span,
)

__all__ = [
    "LogFormat",
    "Metrics",
    "ObserveMiddleware",
    "PrometheusMetrics",
    "Readiness",
    "close_tracing",
    "configure_logging",
    "configure_tracing",
    "current_request_id",
    "measured",
    "observe_routes",
    "record",
    "request_context",
    "span",
]
