"""Every metric: name, kind, labels, meaning. Docs and the dashboard name no other (tested).

Labels are bounded: a route is a route's pattern, never a path; a reason is one of the error codes;
whatever is not on a list becomes ``other``. Nothing that a client sends becomes a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True)
class Spec:
    """One metric.

    Attributes:
        name: As exported; a counter's without ``_total``.
        kind: Counters and histograms add up over all workers that ever ran; a gauge is of the
            workers alive: ``sum`` of theirs, or ``max`` where each says the same.
        help: One line.
        labels: Names of the labels.
        buckets: Upper bounds of a histogram.
    """

    name: str
    kind: Literal["counter", "histogram", "sum", "max"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """The name to query."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counter(name: str, text: str, *labels: str) -> Spec:
    return Spec(f"robustzs_{name}", "counter", text, labels)


def _gauge(name: str, text: str, *labels: str, kind: Literal["sum", "max"] = "sum") -> Spec:
    return Spec(f"robustzs_{name}", kind, text, labels)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Spec:
    return Spec(f"robustzs_{name}", "histogram", text, labels, buckets)


CATALOGUE: tuple[Spec, ...] = (
    _counter("requests", "Requests answered.", "route", "method", "status"),
    _histogram("request_seconds", "From a request's headers to its answer's last byte.", "route"),
    _gauge("requests_in_progress", "Requests being worked on."),
    _counter("rejects", "Requests and images refused or failed, by error code.", "reason"),
    _counter("images", "Images answered, by result: ok or error.", "result"),
    _histogram("decode_seconds", "From image bytes to pixels, by outcome.", "outcome"),
    _gauge("decoders", "Decode processes that take work."),
    _counter("decoders_replaced", "Decode processes replaced, by reason.", "reason"),
    _gauge("queue_rows", "Images that wait for the model."),
    _histogram("queue_seconds", "An image's wait for its batch."),
    _histogram("batch_rows", "Images in a batch, padding not counted.", buckets=_ROWS),
    _counter("padded_rows", "Rows of padding that the model computed."),
    _histogram("model_seconds", "One run of the image encoder."),
    _counter("dropped_rows", "Images dropped from the queue, by reason.", "reason"),
    _counter("prompts_encoded", "Prompts that the text encoder encoded."),
    _histogram("text_seconds", "Making one classifier, text encoding included."),
    _counter("cache_lookups", "Look-ups in a cache, by result: hit or miss.", "cache", "result"),
    _gauge("cache_bytes", "Bytes that a cache holds.", "cache"),
    _gauge("workers", "Worker processes alive."),
    _gauge("workers_ready", "Worker processes that pass /readyz."),
    _gauge("triton_up", "1 where a Triton server has the model, ready.", "url", kind="max"),
    *(
        _gauge(f"triton_{name}", f"{text}, as the server counts.", "url", "model", kind="max")
        for name, text in (
            ("requests", "Requests answered since it loaded the model"),
            ("failures", "Requests failed or rejected since then"),
            ("rows", "Rows in the requests"),
            ("executions", "Runs of the model; fewer than requests where batches form"),
            ("queue_seconds", "Time that the requests waited"),
            ("compute_seconds", "Time that the requests were computed"),
        )
    ),
    _gauge("provider_info", "1 with the execution provider in use.", "provider", kind="max"),
    _gauge("bundle_info", "1 with the model in use.", "name", "digest", "precision", kind="max"),
)
