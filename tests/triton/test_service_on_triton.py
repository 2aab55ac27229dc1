"""The service with its model on a real Triton server: load, a crash, a start without it."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.factories import make_bundle, picture_bytes
from tests.serving.conftest import Service, end_service, start_service
from tests.triton.server import Triton, export

pytestmark = pytest.mark.triton

FORM = {"labels": "labrador,tabby,jeep", "templates": "{}"}
WORDS = ("labrador", "tabby", "jeep")


def ask(client: httpx.Client, url: str, word: str, seed: int) -> httpx.Response:
    files = {"image": ("x.png", picture_bytes(word, seed=seed), "image/png")}
    return client.post(f"{url}/v1/classify", files=files, data=FORM)


class Crowd:
    """Clients that ask until they are told to stop; every answer is kept."""

    def __init__(self, url: str, n_clients: int) -> None:
        self.url = url
        self.seen: list[tuple[float, int, str]] = []
        self.wrong: list[Any] = []
        self._stop = threading.Event()
        # daemons: a test that fails before it stops them keeps nobody waiting
        self._threads = [
            threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(n_clients)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        word = WORDS[number % 3]
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                try:
                    answer = ask(client, self.url, word, number)
                except httpx.TransportError as error:
                    self.wrong.append(repr(error))
                    time.sleep(0.1)
                    continue
                self.seen.append((time.monotonic(), answer.status_code, word))
                if answer.status_code == 200:
                    if top(answer) != word:
                        self.wrong.append(answer.json())
                elif answer.status_code != 503 or "retry-after" not in answer.headers:
                    self.wrong.append((answer.status_code, dict(answer.headers), answer.text))
                else:
                    time.sleep(0.05)

    def wait(self, n_answers: int) -> None:
        """Until so many have been answered from now on."""
        until, before = time.monotonic() + 60, self._answered()
        while self._answered() < before + n_answers:
            assert time.monotonic() < until, self.wrong[:3]
            time.sleep(0.05)

    def _answered(self) -> int:
        return sum(status == 200 for _, status, _ in self.seen)

    def stop(self) -> Counter[int]:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=90)
        assert not any(thread.is_alive() for thread in self._threads)
        return Counter(status for _, status, _ in self.seen)


def top(answer: httpx.Response) -> str:
    (result,) = answer.json()["results"]
    name: str = result["flat_top1"]["name"]
    return name


def wait_for(service: Service, status: int, seconds: float = 30.0) -> httpx.Response:
    until = time.monotonic() + seconds
    while True:
        answer = httpx.get(f"{service.url}/readyz", timeout=30)
        if answer.status_code == status:
            return answer
        assert time.monotonic() < until, answer.text
        time.sleep(0.1)


def test_answers_are_those_of_onnx_runtime(
    triton: Triton, serve_on: Callable[..., Service], tiny_bundle: Path, tmp_path: Path
) -> None:
    remote = serve_on(triton.grpc)
    local = start_service(tmp_path, tiny_bundle)
    try:
        local.wait_ready()
        with httpx.Client(timeout=60) as client:
            for seed, word in enumerate(WORDS):
                there = ask(client, remote.url, word, seed).json()["results"][0]
                here = ask(client, local.url, word, seed).json()["results"][0]
                assert [n["name"] for n in there["path"]] == [n["name"] for n in here["path"]]
                for one, other in zip(there["path"], here["path"], strict=True):
                    assert abs(one["probability"] - other["probability"]) < 1e-6
    finally:
        end_service(local)


def test_64_clients_share_batches(triton: Triton, serve_on: Callable[..., Service]) -> None:
    service = serve_on(triton.grpc)
    before = triton.statistics("tiny_image")
    crowd = Crowd(service.url, 64)
    crowd.wait(500)
    statuses = crowd.stop()
    after = triton.statistics("tiny_image")
    rows = int(after["inference_count"]) - int(before["inference_count"])  # type: ignore[call-overload]
    runs = int(after["execution_count"]) - int(before["execution_count"])  # type: ignore[call-overload]
    assert crowd.wrong == []
    assert set(statuses) == {200}
    assert rows >= statuses[200]
    assert rows / runs > 2.0, f"{rows} rows in {runs} runs"
    time.sleep(3)  # a look round of the service
    assert service.metric("robustzs_triton_rows", model="tiny_image") >= rows
    assert service.metric("robustzs_triton_compute_seconds", model="tiny_image") > 0.0
    assert service.metric("robustzs_triton_queue_seconds", model="tiny_image") > 0.0
    assert service.metric("robustzs_triton_up", url=triton.grpc) == 1.0


def test_a_crash_under_load_loses_nothing(
    own_triton: Triton, serve_on: Callable[..., Service]
) -> None:
    service = serve_on(own_triton.grpc)
    crowd = Crowd(service.url, 16)
    crowd.wait(20)
    own_triton.kill()
    killed = time.monotonic()
    envelope = wait_for(service, 503).json()["error"]
    assert envelope["code"] == "not-ready"
    assert "backend_answers" in envelope["message"]
    assert httpx.get(f"{service.url}/livez").status_code == 200
    time.sleep(1)
    own_triton.start()
    restarted = time.monotonic()
    wait_for(service, 200)
    crowd.wait(100)
    statuses = crowd.stop()
    assert crowd.wrong == []  # an answer, or a 503 with Retry-After, and each answer right
    assert set(statuses) == {200, 503}
    assert any(status == 200 and at < killed for at, status, _ in crowd.seen)
    assert any(status == 200 and at > restarted for at, status, _ in crowd.seen)
    assert {status for _, status, _ in crowd.seen[-16:]} == {200}


def test_a_service_waits_for_its_triton(
    own_triton: Triton, serve_on: Callable[..., Service]
) -> None:
    own_triton.kill()
    service = serve_on(own_triton.grpc, wait=False)
    until = time.monotonic() + 120
    while "worker ready" not in service.text():
        assert time.monotonic() < until, service.text()
        time.sleep(0.2)
    assert wait_for(service, 503).json()["error"]["code"] == "not-ready"
    with httpx.Client(timeout=60) as client:
        refused = ask(client, service.url, "tabby", 1)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "backend-unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        assert "127.0.0.1" not in refused.text
        own_triton.start()
        wait_for(service, 200)
        assert top(ask(client, service.url, "tabby", 1)) == "tabby"


def test_a_second_server_takes_over(
    triton: Triton, own_triton: Triton, serve_on: Callable[..., Service]
) -> None:
    service = serve_on(own_triton.grpc, triton.grpc)
    crowd = Crowd(service.url, 8)
    crowd.wait(20)
    own_triton.kill()
    crowd.wait(40)
    assert httpx.get(f"{service.url}/readyz").status_code == 200
    statuses = crowd.stop()
    assert crowd.wrong == []
    assert set(statuses) == {200}


def test_a_hanging_server_is_told_in_time(
    own_triton: Triton, serve_on: Callable[..., Service]
) -> None:
    service = serve_on(own_triton.grpc, ROBUSTZS_TRITON_SECONDS="2")
    with httpx.Client(timeout=60) as client:
        assert ask(client, service.url, "tabby", 1).status_code == 200
        own_triton.signal(signal.SIGSTOP)
        started = time.monotonic()
        late = ask(client, service.url, "tabby", 2)
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "backend-timeout"
        assert time.monotonic() - started < 8.0
        own_triton.signal(signal.SIGCONT)
        wait_for(service, 200)
        assert ask(client, service.url, "tabby", 2).status_code == 200


def test_a_hanging_server_beside_another_slows_nobody_for_long(
    triton: Triton, own_triton: Triton, serve_on: Callable[..., Service]
) -> None:
    service = serve_on(own_triton.grpc, triton.grpc, ROBUSTZS_TRITON_SECONDS="2")
    with httpx.Client(timeout=60) as client:
        assert ask(client, service.url, "tabby", 1).status_code == 200
        own_triton.signal(signal.SIGSTOP)
        started = time.monotonic()
        assert ask(client, service.url, "tabby", 2).status_code == 200
        assert time.monotonic() - started < 8.0
        until, slowest = time.monotonic() + 8, 0.0
        while time.monotonic() < until:
            started = time.monotonic()
            assert ask(client, service.url, "tabby", 2).status_code == 200
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.05)
        assert slowest < 1.5
        assert httpx.get(f"{service.url}/readyz", timeout=30).status_code == 200
        assert service.metric("robustzs_triton_up", url=own_triton.grpc) == 0.0
        assert service.metric("robustzs_triton_up", url=triton.grpc) == 1.0
        own_triton.signal(signal.SIGCONT)


def test_other_weights_keep_the_service_from_starting(
    triton: Triton, tmp_path: Path, serve_on: Callable[..., Service]
) -> None:
    other = make_bundle(tmp_path / "other", seed=7)
    service = start_service(
        tmp_path,
        other,
        ROBUSTZS_BACKEND="triton",
        ROBUSTZS_TRITON_URLS=triton.grpc,
        ROBUSTZS_THREADS="",
    )
    try:
        until = time.monotonic() + 60
        while "runs other weights" not in service.text():
            assert time.monotonic() < until, service.text()
            time.sleep(0.2)
    finally:
        end_service(service)


def test_other_weights_later_stop_the_answers_until_the_right_ones_are_back(
    own_triton: Triton, tmp_path: Path, serve_on: Callable[..., Service]
) -> None:
    service = serve_on(own_triton.grpc)
    crowd = Crowd(service.url, 8)
    crowd.wait(20)
    own_triton.kill()
    right = own_triton.repository
    (tmp_path / "other").mkdir()
    own_triton.repository = export(
        make_bundle(tmp_path / "other" / "tiny", seed=7), tmp_path / "other"
    )
    own_triton.start()
    swapped = time.monotonic()
    assert "backend_answers" in wait_for(service, 503).json()["error"]["message"]

    def refused() -> bool:
        with httpx.Client(timeout=60) as client:
            answer = ask(client, service.url, "tabby", 1)
        assert answer.status_code == 503
        code: str = answer.json()["error"]["code"]
        return code == "backend-mismatch"

    until = time.monotonic() + 20
    while not refused():
        assert time.monotonic() < until
    while "runs other weights" not in service.text():  # the service's own look round
        assert time.monotonic() < until
        time.sleep(0.1)
    # what was under way when the server was killed may be answered a moment later
    settled = swapped + 1
    while not any(at > settled for at, _, _ in crowd.seen):
        assert time.monotonic() < until
        time.sleep(0.1)
    own_triton.kill()
    own_triton.repository = right
    restored = time.monotonic()
    own_triton.start()
    wait_for(service, 200)
    crowd.wait(20)
    statuses = crowd.stop()
    assert crowd.wrong == []
    assert set(statuses) == {200, 503}
    between = [status for at, status, _ in crowd.seen if settled < at < restored]
    assert set(between) == {503}
