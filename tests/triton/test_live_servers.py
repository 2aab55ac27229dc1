"""The backend on real Triton servers that crash, hang, reject, change, and ask for certificates."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import trustme

from robustzs.backends.onnx import OnnxBackend
from robustzs.backends.triton import TritonBackend, TritonTarget
from robustzs.bundle.store import Bundle
from robustzs.errors import (
    BackendError,
    BackendMismatchError,
    BackendOverloadedError,
    BackendTimeoutError,
    BackendUnavailableError,
    InferenceError,
)
from tests.factories import IMAGE_SIZE, make_bundle
from tests.triton.server import Triton, export, launch, slow_down

pytestmark = pytest.mark.triton

PROTOCOLS = ("grpc", "http")
Connect = Callable[..., TritonBackend]


def pixels(n: int, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).integers(0, 256, (n, 3, IMAGE_SIZE, IMAGE_SIZE))
    return np.divide(values.astype(np.uint8), np.float32(255.0), dtype=np.float32)


def counted(server: Triton, model: str) -> int:
    """Executions of a model."""
    return int(str(server.statistics(model)["execution_count"]))


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def connect(tiny_bundle: Path) -> Iterator[Connect]:
    with ExitStack() as stack:

        def made(*urls: str, **options: Any) -> TritonBackend:
            backend = TritonBackend(Bundle.load(tiny_bundle), TritonTarget(urls=urls, **options))
            stack.callback(backend.close)
            return backend

        yield made


@pytest.fixture
def wanted(tiny_bundle: Path) -> Any:
    return OnnxBackend(Bundle.load(tiny_bundle), threads=1).encode_image(pixels(3))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_next_server_answers_and_the_first_is_found_again(
    triton: Triton, own_triton: Triton, connect: Connect, wanted: Any, protocol: str
) -> None:
    backend = connect(getattr(own_triton, protocol), getattr(triton, protocol), seconds=5.0)
    np.testing.assert_array_equal(backend.encode_image(pixels(3)), wanted)
    own_triton.kill()
    for _ in range(5):
        np.testing.assert_array_equal(backend.encode_image(pixels(3)), wanted)
    first, second = backend.report()
    assert isinstance(first.error, BackendUnavailableError)
    assert second.error is None
    own_triton.start()
    before = counted(own_triton, "tiny_image")

    def asked_again() -> bool:
        np.testing.assert_array_equal(backend.encode_image(pixels(3)), wanted)
        return counted(own_triton, "tiny_image") > before

    until(asked_again)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_hanging_server_costs_one_deadline(
    triton: Triton, own_triton: Triton, connect: Connect, wanted: Any, protocol: str
) -> None:
    """Requests that come later do not wait for it as long as another server answers."""
    backend = connect(getattr(own_triton, protocol), getattr(triton, protocol), seconds=1.5)
    backend.encode_image(pixels(3))
    own_triton.signal(signal.SIGSTOP)
    started = time.monotonic()
    np.testing.assert_array_equal(backend.encode_image(pixels(3)), wanted)
    assert 1.0 < time.monotonic() - started < 5.0
    slowest = 0.0
    end = time.monotonic() + 4.0  # several looks at the one that hangs
    while time.monotonic() < end:
        started = time.monotonic()
        np.testing.assert_array_equal(backend.encode_image(pixels(3)), wanted)
        slowest = max(slowest, time.monotonic() - started)
        time.sleep(0.02)
    assert slowest < 1.0
    own_triton.signal(signal.SIGCONT)


def test_what_a_server_runs_is_told_while_it_hangs(own_triton: Triton, connect: Connect) -> None:
    """The service says so on its event loop."""
    backend = connect(own_triton.grpc, seconds=1.0)
    backend.report()
    assert (backend.image_precision, backend.text_precision) == ("fp32", "fp32")
    backend.encode_image(pixels(1))
    own_triton.signal(signal.SIGSTOP)
    with pytest.raises(BackendTimeoutError):
        backend.encode_image(pixels(1))
    started = time.monotonic()
    assert (backend.image_precision, backend.text_precision) == ("fp32", "fp32")
    assert time.monotonic() - started < 0.2
    own_triton.signal(signal.SIGCONT)


def test_a_crowd_at_a_hanging_server_waits_once(
    own_triton: Triton, connect: Connect, tiny_bundle: Path
) -> None:
    own_triton.signal(signal.SIGSTOP)
    backend = connect(own_triton.grpc, seconds=1.0)
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(backend.encode_image, pixels(1, seed=i)) for i in range(8)]
        errors = [call.exception() for call in calls]
    assert time.monotonic() - started < 4.0
    assert {type(error) for error in errors} == {BackendTimeoutError}
    own_triton.signal(signal.SIGCONT)


def test_a_server_whose_model_fails_is_gone_around(
    triton: Triton, own_triton: Triton, connect: Connect, wanted: Any
) -> None:
    """It still calls itself ready, as one does whose GPU fell off."""
    backend = connect(own_triton.grpc, triton.grpc)
    backend.encode_image(pixels(3))
    assert own_triton.process is not None
    for stub in psutil.Process(own_triton.process.pid).children(recursive=True):
        if "tiny_image" in " ".join(stub.cmdline()):
            stub.kill()
    for _ in range(5):
        np.testing.assert_array_equal(backend.encode_image(pixels(3)), wanted)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_weights_after_a_restart_are_refused(
    own_triton: Triton, connect: Connect, wanted: Any, tmp_path: Path, protocol: str
) -> None:
    backend = connect(getattr(own_triton, protocol))
    backend.encode_image(pixels(3))
    right = own_triton.repository
    own_triton.kill()
    (tmp_path / "other").mkdir()
    own_triton.repository = export(
        make_bundle(tmp_path / "other" / "tiny", seed=7), tmp_path / "other"
    )
    own_triton.start()

    for attempt in range(3):  # from the first request on, with nobody looking meanwhile
        with pytest.raises(BackendUnavailableError) as caught:
            backend.encode_image(pixels(3))
        if attempt:
            assert isinstance(caught.value, BackendMismatchError)
            assert "runs other weights" in caught.value.message
    (report,) = backend.report()
    assert isinstance(report.error, BackendMismatchError)
    own_triton.kill()
    own_triton.repository = right
    own_triton.start()

    def answers() -> bool:
        with suppress(BackendUnavailableError):
            np.testing.assert_array_equal(backend.encode_image(pixels(3)), wanted)
            return True
        return False

    until(answers)


@pytest.fixture
def narrow_triton(tiny_bundle: Path, tmp_path: Path) -> Iterator[Triton]:
    """One row at a time, two wait."""
    repository = export(
        tiny_bundle, tmp_path, instances=1, max_rows=1, max_queue=2, queue_seconds=0.5
    )
    server = launch(repository, tmp_path)
    yield server
    server.kill()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_full_queue_and_a_long_wait_are_rejected(
    narrow_triton: Triton, connect: Connect, protocol: str
) -> None:
    backend = connect(getattr(narrow_triton, protocol))
    backend.encode_image(pixels(1))
    before = counted(narrow_triton, "tiny_image")
    slow_down(narrow_triton, "tiny_image", 1.0)

    def asked(seed: int) -> tuple[BackendError | None, float]:
        started = time.monotonic()
        error = None
        try:
            backend.encode_image(pixels(1, seed=seed))
        except BackendError as caught:
            error = caught
        return error, time.monotonic() - started

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(asked, range(6)))
    slow_down(narrow_triton, "tiny_image", 0.0)
    refused = [(error, seconds) for error, seconds in answers if error is not None]
    assert {type(error) for error, _ in refused} == {BackendOverloadedError}
    at_once = [error for error, seconds in refused if seconds < 0.5]
    assert at_once, "a full queue is told at once"
    assert "queue" in str(at_once[0]).lower()
    late = [error for error, seconds in refused if seconds >= 0.5]
    assert late, "who waited longer than the policy lets is told so"
    assert "timeout" in str(late[0]).lower()
    # what was rejected was not run
    assert counted(narrow_triton, "tiny_image") - before == 6 - len(refused)
    assert backend.encode_image(pixels(1)).shape[0] == 1


@pytest.fixture
def lone_triton(tiny_bundle: Path, tmp_path: Path) -> Iterator[Triton]:
    """One instance of each model."""
    server = launch(export(tiny_bundle, tmp_path, instances=1), tmp_path)
    yield server
    server.kill()


def test_closing_cancels_what_runs(lone_triton: Triton, connect: Connect) -> None:
    backend = connect(lone_triton.grpc, seconds=30.0)
    values = np.random.default_rng(0).random(pixels(1).shape, dtype=np.float32)
    backend.encode_image(values)
    slow_down(lone_triton, "tiny_image", 2.0)
    before = counted(lone_triton, "tiny_image")
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(backend.encode_image, values)
        time.sleep(0.5)
        waiting = pool.submit(backend.encode_image, values)
        time.sleep(0.5)
        started = time.monotonic()
        backend.close()
        for call in (running, waiting):
            with pytest.raises(InferenceError, match="closed"):
                call.result()
        assert time.monotonic() - started < 1.0
    until(lambda: counted(lone_triton, "tiny_image") > before)
    time.sleep(2.5)
    assert counted(lone_triton, "tiny_image") == before + 1, "what waited was cancelled there, too"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_was_unloaded_is_unavailable(
    tiny_bundle: Path, tmp_path: Path, connect: Connect, wanted: Any, protocol: str
) -> None:
    options = ("--model-control-mode=explicit", "--load-model=*")
    server = launch(export(tiny_bundle, tmp_path), tmp_path, *options)
    try:
        backend = connect(getattr(server, protocol))
        backend.encode_image(pixels(3))
        models = f"{server.http}/v2/repository/models"
        httpx.post(f"{models}/tiny_image/unload", json={}, timeout=30).raise_for_status()

        def gone() -> bool:
            try:
                backend.encode_image(pixels(3))
            except BackendUnavailableError as error:
                return "does not have tiny_image" in error.message
            return False

        until(gone)
        (report,) = backend.report()
        assert isinstance(report.error, BackendUnavailableError)
        for model in ("tiny_image", "tiny_image_bytes"):
            httpx.post(f"{models}/{model}/load", json={}, timeout=60).raise_for_status()
        np.testing.assert_array_equal(backend.encode_image(pixels(3)), wanted)
    finally:
        server.kill()


def test_a_queue_policy_does_not_stall_clients(triton: Triton, connect: Connect) -> None:
    """With one instance, each tenth request waits for half a second in Triton's batcher."""
    backend = connect(triton.grpc)
    values = np.random.default_rng(0).random(pixels(1).shape, dtype=np.float32)
    seconds = []
    for _ in range(100):
        started = time.monotonic()
        backend.encode_image(values)
        seconds.append(time.monotonic() - started)
    stalls = sum(one > 0.45 for one in seconds)
    assert stalls <= 3, sorted(seconds)[-10:]


def test_large_batches_go_in_parts(triton: Triton, connect: Connect) -> None:
    """More rows than a request may have, and more bytes than Triton takes over HTTP."""
    rows = 80_000_000 // pixels(1).nbytes
    floats = np.random.default_rng(0).random((rows, *pixels(1).shape[1:]), dtype=np.float32)
    features = connect(triton.http, seconds=60.0).encode_image(floats)
    again = connect(triton.grpc, seconds=60.0).encode_image(floats[-3:])
    np.testing.assert_array_equal(features[-3:], again)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_port_of_the_other_protocol_is_told(
    triton: Triton, connect: Connect, protocol: str
) -> None:
    port = triton.http_port if protocol == "grpc" else triton.grpc_port
    with pytest.raises(BackendUnavailableError, match="does not answer"):
        connect(f"{protocol}://127.0.0.1:{port}", seconds=3.0).encode_image(pixels(1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_access_is_told(
    tiny_bundle: Path, tmp_path: Path, connect: Connect, protocol: str
) -> None:
    options = (
        "--grpc-restricted-protocol=model-config,inference:key=value",
        "--http-restricted-api=model-config,inference:key=value",
    )
    server = launch(export(tiny_bundle, tmp_path), tmp_path, *options)
    try:
        with pytest.raises(BackendUnavailableError, match="refuses access"):
            connect(getattr(server, protocol)).encode_image(pixels(1))
    finally:
        server.kill()


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificates(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """PEM files: of the authority, of another one, and what server and client show."""
    folder = tmp_path_factory.mktemp("certificates")
    files = {name: folder / f"{name}.pem" for name in ("ca", "other-ca")}
    authority.cert_pem.write_to_path(files["ca"])
    trustme.CA().cert_pem.write_to_path(files["other-ca"])
    for name, host in (("server", "127.0.0.1"), ("client", "robustzs.example")):
        shown = authority.issue_cert(host)
        files[name], files[f"{name}-key"] = folder / f"{name}.crt", folder / f"{name}.key"
        shown.private_key_pem.write_to_path(files[f"{name}-key"])
        files[name].write_bytes(b"".join(one.bytes() for one in shown.cert_chain_pems))
    return files


@pytest.fixture(scope="module", params=["one side", "both sides"])
def tls_triton(
    request: pytest.FixtureRequest,
    tiny_bundle: Path,
    certificates: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Triton, bool]]:
    """A server that speaks TLS over gRPC, and whether it wants to see a client's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    mutual = request.param == "both sides"
    server = launch(
        export(tiny_bundle, folder),
        folder,
        "--grpc-use-ssl-mutual=true" if mutual else "--grpc-use-ssl=true",
        f"--grpc-server-cert={certificates['server']}",
        f"--grpc-server-key={certificates['server-key']}",
        f"--grpc-root-cert={certificates['ca']}",
    )
    yield server, mutual
    server.kill()


def test_grpc_over_tls(
    tls_triton: tuple[Triton, bool],
    certificates: dict[str, Path],
    connect: Connect,
    wanted: Any,
) -> None:
    server, mutual = tls_triton
    url = f"grpcs://127.0.0.1:{server.grpc_port}"
    known: dict[str, Any] = {"ca_file": certificates["ca"], "seconds": 5.0}
    shown = {"cert_file": certificates["client"], "key_file": certificates["client-key"]}
    np.testing.assert_array_equal(connect(url, **known, **shown).encode_image(pixels(3)), wanted)
    wrong = [{**known, **shown, "ca_file": certificates["other-ca"]}]
    if mutual:
        wrong.append(known)
    else:
        np.testing.assert_array_equal(connect(url, **known).encode_image(pixels(3)), wanted)
    for options in wrong:
        with pytest.raises(BackendUnavailableError, match="does not answer"):
            connect(url, **options).encode_image(pixels(3))
    with pytest.raises(BackendUnavailableError, match="does not answer"):
        connect(server.grpc, seconds=5.0).encode_image(pixels(3))


@contextmanager
def tls_proxy(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """TLS before a port that has none: Triton's HTTP has none of its own."""
    listening = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def talk(client: socket.socket) -> None:
        with ExitStack() as stack:
            stack.enter_context(suppress(OSError))
            stack.enter_context(client)
            secret = stack.enter_context(context.wrap_socket(client, server_side=True))
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            back = threading.Thread(target=copy, args=(plain, secret), daemon=True)
            back.start()
            copy(secret, plain)
            back.join(10)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=talk, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


@pytest.mark.parametrize("mutual", [False, True])
def test_http_over_tls(
    triton: Triton,
    authority: trustme.CA,
    certificates: dict[str, Path],
    connect: Connect,
    wanted: Any,
    mutual: bool,
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates["server"], certificates["server-key"])
    if mutual:
        context.load_verify_locations(certificates["ca"])
        context.verify_mode = ssl.CERT_REQUIRED
    known: dict[str, Any] = {"ca_file": certificates["ca"], "seconds": 5.0}
    shown = {"cert_file": certificates["client"], "key_file": certificates["client-key"]}
    with tls_proxy(triton.http_port, context) as port:
        url = f"https://127.0.0.1:{port}"
        backend = connect(url, **known, **shown)
        np.testing.assert_array_equal(backend.encode_image(pixels(3)), wanted)
        wrong = [{**known, **shown, "ca_file": certificates["other-ca"]}]
        if mutual:
            wrong.append(known)
        for options in wrong:
            with pytest.raises(BackendUnavailableError, match="does not answer"):
                connect(url, **options).encode_image(pixels(3))
        backend.close()
