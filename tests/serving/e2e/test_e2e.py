"""The service as people meet it. Needs nothing but its address (``service_url``)."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from pathlib import Path

import httpx
import pytest

from tests.factories import picture_bytes

ENVELOPE = {"code", "message", "param", "request_id", "docs"}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(picture_bytes("labrador"))
    return path


def _samples(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_classifies(service_url: str, photo: Path) -> None:
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "-F",
            f"image=@{photo}",
            "-F",
            "labels=labrador,jeep",
            f"{service_url}/v1/classify",
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    (result,) = json.loads(done.stdout)["results"]
    assert (result["index"], result["status"]) == (0, "ok")
    assert result["flat_top1"]["name"] == "labrador"


def test_a_second_request_encodes_no_text(service_url: str, photo: Path) -> None:
    """Labels that nobody used before are encoded once, whatever the image."""
    labels = ["labrador", "jeep", f"tabby {uuid.uuid4().hex[:8]}"]
    fields = {"labels": json.dumps(labels)}
    before = _samples(service_url, "robustzs_prompts_encoded_total")
    counts = []
    for colour in ("labrador", "jeep", "labrador"):
        files = {"image": picture_bytes(colour)}
        answer = httpx.post(f"{service_url}/v1/classify", files=files, data=fields, timeout=60)
        assert answer.json()["results"][0]["flat_top1"]["name"] == colour
        counts.append(_samples(service_url, "robustzs_prompts_encoded_total") - before)
    assert counts[0] >= len(labels)
    assert counts[1] == counts[2] == counts[0]


def test_probes_say_what_holds(service_url: str) -> None:
    alive = httpx.get(f"{service_url}/livez")
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    ready = httpx.get(f"{service_url}/readyz")
    assert ready.status_code == 200
    checks = ready.json()["checks"]
    assert set(checks) >= {"model_verified", "warmed_up", "provider_as_asked", "decoders_alive"}
    assert all(checks.values())


@pytest.mark.parametrize(
    "path",
    ["/docs.json", "/schema.json", "/healthz", "/static_content/index.css", "/docs", "/nope"],
)
def test_nothing_of_bentoml_is_reachable(service_url: str, path: str) -> None:
    answer = httpx.get(f"{service_url}{path}")
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == ENVELOPE
    assert "bentoml" not in str(answer.headers).lower()


def test_the_root_is_ours_and_calls_nobody(service_url: str) -> None:
    answer = httpx.get(f"{service_url}/")
    assert answer.status_code == 200
    assert "googletagmanager" not in answer.text
    assert "bentoml" not in answer.text.lower()


def test_metrics_are_labelled_by_routes_and_codes(service_url: str) -> None:
    secret = uuid.uuid4().hex
    httpx.get(f"{service_url}/{secret}")
    httpx.request("BREW", f"{service_url}/v1/models", params={"q": secret})
    httpx.post(f"{service_url}/v1/classify", content=b"x", headers={"x-request-id": secret})
    text = httpx.get(f"{service_url}/metrics", timeout=30).text
    assert secret not in text
    assert 'robustzs_rejects_total{reason="not-found"}' in text
    assert 'route="/v1/classify"' in text
    for name in ("robustzs_bundle_info", "robustzs_provider_info", "robustzs_workers_ready"):
        assert _samples(service_url, name) == 1.0
