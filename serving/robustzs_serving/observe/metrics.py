"""What is counted. `Metrics` counts nothing; `PrometheusMetrics` exports what `catalogue` lists."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from robustzs_serving.observe.catalogue import CATALOGUE
from robustzs_serving.observe.folder import forget_dead_workers, shared_folder

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    from robustzs.backends.triton import ServerReport

M = TypeVar("M", "Counter", "Gauge", "Histogram")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
Cache = Literal["classifiers", "label_sets", "hierarchies"]
DecodeOutcome = Literal["ok", "refused", "timeout", "crashed"]
DropReason = Literal["cancelled", "deadline"]
ReplaceReason = Literal["timeout", "crashed", "recycled"]


class Metrics:
    """What is counted, as the other rooms tell it; this class forgets it.

    Every method is safe in any thread.

    Args:
        reasons: Error codes that may become labels; others are counted as ``other``.
    """

    def __init__(self, reasons: Collection[str] = ()) -> None:
        self._reasons = frozenset((*reasons, "client-gone"))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request; ``route`` is a route's pattern, never a path."""
        known = method if method in _METHODS else "other"
        self._count("requests", 1, route, known, str(status))
        self._observe("request_seconds", seconds, route)

    def in_progress(self, change: int) -> None:
        """One request more (+1) or less (-1) is being worked on."""
        self._move("requests_in_progress", change)

    def reject(self, reason: str) -> None:
        """Count a request or an image refused with this error code."""
        self._count("rejects", 1, reason if reason in self._reasons else "other")

    def images(self, *, ok: int = 0, error: int = 0) -> None:
        """Count images answered."""
        self._count("images", ok, "ok")
        self._count("images", error, "error")

    def decoded(self, seconds: float, outcome: DecodeOutcome) -> None:
        """Count an image decoded, or not."""
        self._observe("decode_seconds", seconds, outcome)

    def decoders(self, alive: int) -> None:
        """So many decode processes take work."""
        self._set("decoders", alive)

    def decoder_replaced(self, reason: ReplaceReason) -> None:
        """Count a decode process that was replaced."""
        self._count("decoders_replaced", 1, reason)

    def queued(self, rows: int) -> None:
        """So many images wait for the model now."""
        self._set("queue_rows", rows)

    def waited(self, seconds: float) -> None:
        """Count an image's wait for its batch."""
        self._observe("queue_seconds", seconds)

    def dropped(self, reason: DropReason) -> None:
        """Count an image dropped from the queue."""
        self._count("dropped_rows", 1, reason)

    def batch(self, rows: int, padded: int, seconds: float) -> None:
        """Count a run of the model: ``rows`` images and ``padded`` rows of padding."""
        self._observe("batch_rows", rows)
        self._count("padded_rows", padded)
        self._observe("model_seconds", seconds)

    def texts(self, prompts: int, seconds: float) -> None:
        """Count a classifier made, and the prompts that had to be encoded for it."""
        self._count("prompts_encoded", prompts)
        self._observe("text_seconds", seconds)

    def looked_up(self, cache: Cache, *, hit: bool) -> None:
        """Count a look-up in a cache."""
        self._count("cache_lookups", 1, cache, "hit" if hit else "miss")

    def cached(self, cache: Cache, n_bytes: int) -> None:
        """A cache holds so many bytes now."""
        self._set("cache_bytes", n_bytes, cache)

    def worker(self, *, ready: bool) -> None:
        """This worker is alive, and ready or not."""
        self._set("workers", 1)
        self._set("workers_ready", int(ready))

    def triton(self, report: ServerReport) -> None:
        """How a Triton server does; its numbers are of all its clients."""
        self._set("triton_up", int(report.error is None), report.url)
        for counted in report.statistics:
            for name, value in asdict(counted).items():
                if name != "model":
                    self._set(f"triton_{name}", value, report.url, counted.model)

    def model(self, *, name: str, digest: str, precision: str, provider: str) -> None:
        """The model and the execution provider in use."""
        self._set("provider_info", 1, provider)
        self._set("bundle_info", 1, name, digest, precision)

    def render(self) -> bytes:
        """All numbers, of all workers, in Prometheus' text format."""
        return b""

    def _count(self, name: str, more: int, *labels: str) -> None:
        """A counter grows."""

    def _observe(self, name: str, value: float, *labels: str) -> None:
        """A histogram takes a value."""

    def _set(self, name: str, value: float, *labels: str) -> None:
        """A gauge takes a value."""

    def _move(self, name: str, change: float) -> None:
        """A gauge changes."""


class PrometheusMetrics(Metrics):
    """Counts with prometheus_client in a registry of its own, over all worker processes.

    Args:
        reasons: Error codes that may become labels; others are counted as ``other``.
    """

    def __init__(self, reasons: Collection[str] = ()) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        super().__init__(reasons)
        self._registry: CollectorRegistry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Counter | Gauge | Histogram] = {}
        for spec in CATALOGUE:
            short = spec.name.removeprefix("robustzs_")
            if spec.kind == "counter":
                self._counters[short] = Counter(
                    spec.name, spec.help, spec.labels, registry=self._registry
                )
            elif spec.kind == "histogram":
                self._histograms[short] = Histogram(
                    spec.name,
                    spec.help,
                    spec.labels,
                    buckets=spec.buckets,
                    registry=self._registry,
                )
            else:
                self._gauges[short] = Gauge(
                    spec.name,
                    spec.help,
                    spec.labels,
                    registry=self._registry,
                    multiprocess_mode="livesum" if spec.kind == "sum" else "livemax",
                )

    def render(self) -> bytes:
        """All numbers, of all workers, in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        folder = shared_folder()
        if folder is None:
            return generate_latest(self._registry)
        forget_dead_workers(folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(folder))
        return generate_latest(registry)

    def _count(self, name: str, more: int, *labels: str) -> None:
        if more:
            self._child(self._counters[name], name, labels).inc(more)

    def _observe(self, name: str, value: float, *labels: str) -> None:
        self._child(self._histograms[name], name, labels).observe(value)

    def _set(self, name: str, value: float, *labels: str) -> None:
        self._child(self._gauges[name], name, labels).set(value)

    def _move(self, name: str, change: float) -> None:
        self._gauges[name].inc(change)

    def _child(self, metric: M, name: str, labels: tuple[str, ...]) -> M:
        """The series with these labels; asking ``labels`` every time costs more than counting."""
        if not labels:
            return metric
        child = self._children.get((name, labels))
        if child is None:
            child = self._children[name, labels] = metric.labels(*labels)
        return cast("M", child)
