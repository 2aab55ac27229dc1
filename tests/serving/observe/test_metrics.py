"""What is counted, alone and over processes; labels stay bounded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from robustzs_serving.errors import CODES
from robustzs_serving.observe import Metrics, PrometheusMetrics
from robustzs_serving.observe.catalogue import CATALOGUE
from robustzs_serving.observe.folder import forget_dead_workers

from robustzs.backends.triton import ServerReport, TowerStatistics


def _everything(metrics: Metrics) -> None:
    metrics.request("/v1/classify", "POST", 200, 0.1)
    metrics.request("/v1/classify", "BREW", 405, 0.1)
    metrics.in_progress(1)
    metrics.reject("not-found")
    metrics.reject("a client's own word")
    metrics.images(ok=3, error=1)
    metrics.decoded(0.01, "ok")
    metrics.decoders(2)
    metrics.decoder_replaced("crashed")
    metrics.queued(5)
    metrics.waited(0.001)
    metrics.dropped("deadline")
    metrics.batch(3, 1, 0.05)
    metrics.texts(80, 0.4)
    metrics.looked_up("classifiers", hit=True)
    metrics.cached("classifiers", 1_000)
    counted = TowerStatistics(
        model="tiny_image",
        requests=5,
        failures=1,
        rows=9,
        executions=2,
        queue_seconds=0.5,
        compute_seconds=0.25,
    )
    metrics.triton(ServerReport(url="grpc://triton:8001", error=None, statistics=(counted,)))
    metrics.worker(ready=True)
    metrics.model(name="m", digest="d", precision="fp32", provider="CPUExecutionProvider")


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_all_that_is_listed_is_exported_and_nothing_else() -> None:
    metrics = PrometheusMetrics(reasons=CODES)
    _everything(metrics)
    samples = _samples(metrics.render().decode())
    names = {name for name, _ in samples if not name.endswith("_created")}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} == {
        spec.exported for spec in CATALOGUE
    }


def test_labels_that_are_not_on_a_list_become_other() -> None:
    metrics = PrometheusMetrics(reasons=CODES)
    _everything(metrics)
    samples = _samples(metrics.render().decode())
    assert samples["robustzs_rejects_total", (("reason", "not-found"),)] == 1
    assert samples["robustzs_rejects_total", (("reason", "other"),)] == 1
    assert "BREW" not in metrics.render().decode()


def test_counting_nothing_takes_everything() -> None:
    metrics = Metrics()
    _everything(metrics)
    assert metrics.render() == b""


_WORKER = """
from robustzs_serving.observe.folder import share_metrics
share_metrics()
from robustzs_serving.observe import PrometheusMetrics
metrics = PrometheusMetrics(reasons=["usage"])
metrics.worker(ready=True)
metrics.queued(3)
metrics.images(ok=2)
metrics.batch(4, 0, 0.1)
metrics.model(name="m", digest="d", precision="fp32", provider="P")
print(metrics.render().decode())
"""


def test_workers_add_up_and_the_dead_leave_only_their_counts(tmp_path: Path) -> None:
    """Two processes one after the other: counters of both, gauges of the living one."""
    environment = {**os.environ, "ROBUSTZS_METRICS_DIR": str(tmp_path)}
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _WORKER],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    first, second = (_samples(output) for output in outputs)
    assert first["robustzs_images_total", (("result", "ok"),)] == 2
    assert second["robustzs_images_total", (("result", "ok"),)] == 4
    assert second["robustzs_batch_rows_count", ()] == 2
    for name, value in (("workers", 1), ("workers_ready", 1), ("queue_rows", 3)):
        assert second[f"robustzs_{name}", ()] == value
    assert second["robustzs_provider_info", (("provider", "P"),)] == 1


def test_only_the_gauges_of_the_dead_are_forgotten(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    keep = [
        tmp_path / f"gauge_livesum_{os.getpid()}.db",
        tmp_path / f"counter_{dead.pid}.db",
        tmp_path / "gauge_livesum_nonsense.db",
    ]
    gone = tmp_path / f"gauge_livemax_{dead.pid}.db"
    for file in (*keep, gone):
        file.touch()
    forget_dead_workers(tmp_path)
    assert all(file.exists() for file in keep)
    assert not gone.exists()
