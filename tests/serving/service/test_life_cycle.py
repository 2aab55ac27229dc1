"""Starting, stopping and surviving: processes are stopped and killed for real."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.factories import picture_bytes
from tests.serving.conftest import Service

Serve = Callable[..., Service]


def _body(colour: str) -> tuple[bytes, bytes]:
    """A request in two parts: everything but the end of its body, and that end."""
    request = httpx.Request(
        "POST",
        "http://localhost/v1/classify",
        files={"image": picture_bytes(colour)},
        data={"labels": "labrador,jeep"},
    )
    body = request.read()
    head = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\n"
    head += (
        f"Content-Type: {request.headers['content-type']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body[:-20], body[-20:]


def _answer(connection: socket.socket) -> bytes:
    chunks = []
    while chunk := connection.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


def _until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def _classified(url: str, colour: str = "jeep") -> bool:
    """One request as a client with retries sends it: reset and refused are no answer."""
    try:
        answer = httpx.post(
            f"{url}/v1/classify",
            files={"image": picture_bytes(colour)},
            data={"labels": "labrador,jeep"},
            timeout=60,
        )
    except httpx.TransportError:
        return False
    if answer.status_code in (429, 503):
        return False
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["flat_top1"]["name"] == colour
    return True


def _with_retries(url: str, seconds: float = 60.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if _classified(url):
            return True
        time.sleep(0.2)
    return False


def test_a_stop_finishes_what_was_accepted(serve: Serve) -> None:
    service = serve()
    connections = []
    for _ in range(8):
        connection = socket.create_connection(("127.0.0.1", service.port), timeout=60)
        start, end = _body("jeep")
        connection.sendall(start)
        connections.append((connection, end))
    _until(
        lambda: service.metric("robustzs_requests_in_progress") >= 8, 10, "requests were not seen"
    )
    family = service.tree()
    service.process.send_signal(signal.SIGTERM)
    time.sleep(0.7)
    assert service.process.poll() is None, "it did not wait"
    for connection, end in connections:
        connection.sendall(end)
    for connection, _ in connections:
        answer = _answer(connection)
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:300]
        assert b'"jeep"' in answer
        connection.close()
    assert service.process.wait(timeout=30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.url}/livez")
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive, "processes were left behind"
    assert "Traceback" not in service.text()


def test_a_stop_does_not_wait_for_clients_that_left(serve: Serve) -> None:
    """BentoML's own timeout would hold their requests for as long as a request may take."""
    service = serve()
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
            connection.sendall(_body("jeep")[0])
    _until(
        lambda: service.metric("robustzs_requests_total", status="499") >= 4, 10, "none was missed"
    )
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 10
    assert "Traceback" not in service.text()


@pytest.mark.slow
def test_a_stop_waits_no_longer_than_the_drain_time(serve: Serve) -> None:
    service = serve(ROBUSTZS_DRAIN_SECONDS="2")
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as stalled:
        stalled.sendall(_body("jeep")[0])
        _until(lambda: service.metric("robustzs_requests_in_progress") >= 1, 10, "it was not seen")
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < 12


@pytest.mark.slow
def test_an_interrupt_stops_it_too(serve: Serve) -> None:
    service = serve()
    # As Ctrl-C does: the whole group gets it.
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.process.wait(timeout=30) == 0
    assert "Traceback" not in service.text()


def test_a_killed_worker_is_replaced_under_load(serve: Serve) -> None:
    service = serve()
    (worker,) = service.workers()
    decoders = worker.children()
    with ThreadPoolExecutor(4) as pool:
        load = [pool.submit(_with_retries, service.url) for _ in range(40)]
        worker.kill()
        assert all(answered.result() for answered in load)
    (replaced,) = service.workers()
    assert replaced.pid != worker.pid
    _, alive = psutil.wait_procs(decoders, timeout=10)
    assert not alive, "decoders of the dead worker live on"
    # Its gauges went with it: one worker, not two.
    assert service.metric("robustzs_workers") == 1.0
    assert service.metric("robustzs_workers_ready") == 1.0


def test_killed_decoders_are_replaced_and_no_image_is_lost(service: Service) -> None:
    """Without retries: an image whose decoder is killed from outside is decoded by the next."""
    before = {decoder.pid for decoder in service.decoders()}
    assert before
    replaced = service.metric("robustzs_decoders_replaced_total")
    with ThreadPoolExecutor(4) as pool:
        load = [pool.submit(_classified, service.url) for _ in range(60)]
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert all(answered.result() for answered in load)
    after = {decoder.pid for decoder in service.decoders()}
    assert len(after) == len(before)
    assert not after & before
    assert service.metric("robustzs_decoders_replaced_total") >= replaced + len(before)


@pytest.mark.slow
def test_nothing_outlives_a_killed_supervisor(serve: Serve) -> None:
    service = serve("--workers", "2")
    below = service.tree()[1:]
    assert len(below) >= 2
    service.process.kill()
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive, [process.cmdline() for process in alive]


def test_it_listens_where_it_says_and_nowhere_else(service: Service) -> None:
    listening = [
        (process.pid, one.laddr)
        for process in service.tree()
        for one in process.net_connections(kind="inet")
        if one.status == psutil.CONN_LISTEN
    ]
    assert {(str(address.ip), address.port) for _, address in listening} == {
        ("127.0.0.1", service.port)
    }
