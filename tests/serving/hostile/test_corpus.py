"""Every hostile input gets its documented refusal, harms nobody, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from robustzs_serving.codes import CODES

from tests.serving.conftest import Service, end_service, start_service
from tests.serving.hostile import heads, pictures, words
from tests.serving.hostile.case import Case, b64

CASES = {case.name: case for case in (*pictures.cases(), *words.cases(), *heads.cases())}
ENVELOPE = {"code", "message", "param", "request_id", "docs"}
# Pillow's and Python's words, paths, and addresses of memory.
_LEAKS = re.compile(
    r"PIL|Pillow|BytesIO|object at 0x|Traceback|File \"|site-packages|/work/|/home/|/tmp/|\.py\b"
    r"|cannot identify|decoder error|broken data stream|pydantic|starlette|uvicorn|onnxruntime",
)
_SECONDS = 20.0  # for a refusal on a busy machine; alone it takes milliseconds


@pytest.fixture(scope="module")
def attacked(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of its own: URLs on, and patient, since a busy machine makes slow clients."""
    folder = tmp_path_factory.mktemp("attacked")
    service = start_service(
        folder,
        tiny_bundle,
        ROBUSTZS_STORE_DIR=str(folder / "store"),
        ROBUSTZS_CACHE=str(folder / "cache"),
        ROBUSTZS_URLS="true",
        ROBUSTZS_BODY_GRACE_SECONDS="60",
        ROBUSTZS_HEADER_SECONDS="60",
        ROBUSTZS_DECODE_SECONDS="30",
    )
    try:
        service.wait_ready()
        yield service
    finally:
        end_service(service)


@pytest.fixture(scope="module")
def client(attacked: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=attacked.url, timeout=90) as client:
        yield client


@pytest.fixture(scope="module")
def resident(attacked: Service, client: httpx.Client) -> dict[str, float]:
    """Megabytes of all processes before the first attack, warmed by right requests."""
    for _ in range(50):
        is_served(client)
    return {"before": _megabytes(attacked)}


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 200
    assert {case.code for case in CASES.values() if case.code} <= CODES.keys()
    for case in CASES.values():
        assert case.code is None or CODES[case.code][0] == case.status, case.name


# Every sixth by default; `make test-service` sends them all.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if number % 6 else [])
        for number, name in enumerate(CASES)
    ],
)
def test_it_is_refused_and_the_next_is_served(
    attacked: Service, client: httpx.Client, resident: dict[str, float], name: str
) -> None:
    case = CASES[name]
    began = time.monotonic()
    status, body = _over_a_socket(attacked, case.raw) if case.raw else _sent(client, case)
    assert time.monotonic() - began < _SECONDS
    assert not _LEAKS.search(body), body[:500]
    if case.code is None:
        assert status == case.status, body[:500]
        assert json.loads(body)["results"][0]["status"] == "ok"
    else:
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (case.status, case.code), body[:500]
        assert set(error) == ENVELOPE
        assert 0 < len(error["message"]) <= 1000
        assert error["message"].isprintable()
        if case.param is not None:
            assert error["param"] == case.param
    is_served(client)


def test_nothing_is_left_behind(
    attacked: Service, client: httpx.Client, resident: dict[str, float]
) -> None:
    """After all of the above: memory, processes, files and the log."""
    is_served(client)
    (worker,) = attacked.workers()
    assert _megabytes(attacked) - resident["before"] < 200, "memory did not return"
    assert len(attacked.decoders()) == 1
    assert worker.num_threads() < 40
    assert worker.num_fds() < 80
    assert attacked.metric("robustzs_requests_in_progress") <= 1
    assert attacked.metric("robustzs_queue_rows") == 0
    for line in attacked.text().splitlines()[1:]:
        assert json.loads(line)["level"] in ("info", "warning"), line[:500]
    assert "Traceback" not in attacked.text()


@pytest.mark.parametrize(
    ("name", "sent", "code"),
    [
        ("a body that does not come", b"Content-Length: 20\r\n\r\n{}", "slow-body"),
        (
            "a chunk that does not come",
            b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n{}",
            "slow-body",
        ),
        ("headers that do not end", b"X: a", "slow-headers"),
    ],
)
def test_who_does_not_go_on_is_let_go(service: Service, name: str, sent: bytes, code: str) -> None:
    head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    status, body = _over_a_socket(service, head + sent)
    assert (status, json.loads(body)["error"]["code"]) == (408, code)
    with httpx.Client(base_url=service.url, timeout=60) as client:
        is_served(client)


def is_served(client: httpx.Client) -> None:
    """A right request is answered rightly."""
    document = {"image": {"b64": b64("tabby")}, "labels": ["jeep", "tabby"]}
    answer = client.post("/v1/classify", json=document)
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["flat_top1"]["name"] == "tabby"


def _sent(client: httpx.Client, case: Case) -> tuple[int, str]:
    headers = [(name, value.encode("latin-1", "replace")) for name, value in case.headers]
    answer = client.request(case.method, case.path, content=case.body(), headers=headers)
    assert answer.headers["x-content-type-options"] == "nosniff"
    return answer.status_code, answer.text


def _over_a_socket(service: Service, raw: bytes) -> tuple[int, str]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(raw)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body.decode()


def _megabytes(service: Service) -> float:
    """Of the worker and what it started; of the supervisor, too."""
    return sum(process.memory_info().rss for process in service.tree()) / 1e6
