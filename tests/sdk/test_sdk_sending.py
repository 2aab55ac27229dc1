"""Tries, waits, bounds of time, headers and errors, over real sockets, with both clients."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from email.utils import formatdate

import pytest
import robustzs_client as sdk
from robustzs_client import Retries, Timeouts
from robustzs_serving.errors import CODES

from tests.sdk.scripted import Asked, Either, Says, Scripted, answer, echo, envelope

QUICK = {"retries": Retries(initial=0.01, longest=0.02)}
READY = Says(200, {"results": [{"index": 0, "status": "ok", **answer("cat")}]})


@pytest.mark.parametrize("status", [429, 503])
def test_too_much_and_not_now_are_tried_again(call: Either, server: Scripted, status: int) -> None:
    server.says(envelope(status, "overloaded"), envelope(status, "overloaded"), READY)
    assert call(server.url, "classify", b"x", made=QUICK).flat_top1.name == "cat"
    assert len(server.asked) == 3
    assert len({asked.headers["x-request-id"] for asked in server.asked}) == 1
    assert len({asked.body.split(b"\r\n", 1)[1][:80] for asked in server.asked}) == 1


@pytest.mark.parametrize("cut", ["before", "within"])
def test_a_broken_connection_is_tried_again(call: Either, server: Scripted, cut: str) -> None:
    server.says(Says(200, {"results": []}, cut=cut), READY)
    assert call(server.url, "classify", b"x", made=QUICK).flat_top1.name == "cat"
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 415, 422, 500, 502, 504])
def test_nothing_else_is_tried_again(call: Either, server: Scripted, status: int) -> None:
    server.says(envelope(status, "internal"), READY)
    with pytest.raises(sdk.APIError) as refused:
        call(server.url, "classify", b"x", made=QUICK)
    assert refused.value.status == status
    assert len(server.asked) == 1


def test_a_service_that_is_slow_to_answer_is_not_asked_twice(
    call: Either, server: Scripted
) -> None:
    server.says(Says(200, {}, seconds=1.0), READY)
    made = {**QUICK, "timeouts": Timeouts(read=0.2)}
    with pytest.raises(sdk.TimedOutError) as late:
        call(server.url, "classify", b"x", made=made)
    assert len(server.asked) == 1
    assert late.value.request_id == server.asked[0].headers["x-request-id"]


def test_tries_end(call: Either, server: Scripted) -> None:
    server.says(envelope(503, "not-ready"))
    with pytest.raises(sdk.ServerUnavailableError, match="not-ready, HTTP 503, request abcd1234"):
        call(server.url, "models", made={"retries": Retries(attempts=3, initial=0.01)})
    assert len(server.asked) == 3


def test_retry_after_is_waited_for_and_a_little_more(call: Either, server: Scripted) -> None:
    server.says(envelope(429, "rate-limited", **{"Retry-After": "1"}), READY)
    call(server.url, "classify", b"x", made={"retries": Retries(initial=0.1)})
    first, second = server.asked
    assert 1.0 <= second.at - first.at < 1.0 + 0.1 + 0.5


def test_retry_after_may_be_a_date(call: Either, server: Scripted) -> None:
    later = formatdate(time.time() + 2, usegmt=True)  # whole seconds: at least one is left
    server.says(envelope(503, "shutting-down", **{"Retry-After": later}), READY)
    call(server.url, "classify", b"x", made=QUICK)
    first, second = server.asked
    assert 0.9 <= second.at - first.at < 2.6


@pytest.mark.parametrize("said", ["soon", "-1", "", "Wed, 99 Foo 2020", "9" * 30])
def test_a_retry_after_that_says_nothing_is_no_error(
    call: Either, server: Scripted, said: str
) -> None:
    server.says(envelope(429, "queue-full", **{"Retry-After": said}), READY)
    made = {**QUICK, "timeouts": Timeouts(total=5.0)}
    if said.isdecimal():  # a time beyond all bounds is not waited for
        with pytest.raises(sdk.OverloadedError):
            call(server.url, "classify", b"x", made=made)
    else:
        call(server.url, "classify", b"x", made=made)


def test_a_wait_that_would_pass_the_total_is_not_begun(call: Either, server: Scripted) -> None:
    server.says(envelope(429, "rate-limited", **{"Retry-After": "30"}))
    started = time.monotonic()
    with pytest.raises(sdk.OverloadedError) as refused:
        call(server.url, "classify", b"x", made={"timeouts": Timeouts(total=5.0)})
    assert time.monotonic() - started < 2.0
    assert refused.value.retry_after == 30.0


def test_all_tries_together_end_with_the_total(call: Either, server: Scripted) -> None:
    server.says(Says(200, {}, seconds=3.0))
    started = time.monotonic()
    with pytest.raises(sdk.TimedOutError):
        call(server.url, "classify", b"x", made={"timeouts": Timeouts(total=0.5)})
    assert time.monotonic() - started < 2.5


def test_an_answer_that_drips_ends_with_the_total(call: Either) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                for _ in range(60):
                    connection.sendall(b" ")
                    time.sleep(0.1)
            except OSError:
                pass

    thread = threading.Thread(target=drip)
    thread.start()
    started = time.monotonic()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(sdk.TimedOutError, match="in 1 s"):
        call(url, "models", made={"timeouts": Timeouts(total=1.0)})
    assert time.monotonic() - started < 3.0
    thread.join()
    listener.close()


def test_nobody_there_is_tried_and_told(call: Either) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(sdk.ConnectionFailedError, match=f"127.0.0.1:{port}.*ConnectError"):
        call(f"http://127.0.0.1:{port}", "models", made=QUICK)


def test_readiness_is_asked_once_and_no_error(call: Either, server: Scripted) -> None:
    server.says(Says(503, {"status": "starting"}))
    found = call(server.url, "ready")
    assert (found.ready, found.status, found.detail) == (False, 503, {"status": "starting"})
    assert len(server.asked) == 1
    server.says(Says(200, b"\n"))
    assert call(server.url, "ready").ready
    server.says(Says(404, b"nothing here"))
    with pytest.raises(sdk.NotFoundError):
        call(server.url, "ready")


def test_key_and_headers_go_with_every_request(call: Either, server: Scripted) -> None:
    server.answer = echo
    made = {"api_key": "secret", "headers": {"X-Team": "blue", "User-Agent": "mine"}}
    call(server.url + "/behind/a/proxy", "classify", b"x", made=made)
    (asked,) = server.asked
    assert asked.path == "/behind/a/proxy/v1/classify"
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.headers["x-team"] == "blue"
    assert asked.headers["user-agent"] == "mine"


def test_no_path_of_the_callers_is_sent(call: Either, server: Scripted, tmp_path: object) -> None:
    path = f"{tmp_path}/my-secret-name.png"
    with open(path, "wb") as stream:
        stream.write(b"cat")
    server.answer = echo
    assert call(server.url, "classify", path).image == path
    assert b"my-secret-name" not in server.asked[0].body


def test_a_client_names_itself_and_keeps_its_key_to_itself(server: Scripted) -> None:
    server.says(READY)
    with sdk.Client(server.url, api_key="secret") as client:
        client.classify(b"x")
        assert "secret" not in repr(vars(client))
    assert server.asked[0].headers["user-agent"].startswith("robustzs-client/")


@pytest.mark.parametrize("url", ["", "localhost:3000", "ftp://x", "http://", "/v1", "http://[::1"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    for client in (sdk.Client, sdk.AsyncClient):
        with pytest.raises(ValueError, match="address"):
            client(url)


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_the_service_has_a_class(call: Either, server: Scripted, code: str) -> None:
    status = CODES[code][0]
    server.says(envelope(status, code))
    with pytest.raises(sdk.APIError) as refused:
        call(server.url, "classify", b"x", made={"retries": Retries(attempts=1)})
    error = refused.value
    told = (error.code, error.status, error.param, error.request_id, error.docs)
    assert told == (code, status, "theta", "abcd1234", f"/v1/errors#{code}")
    assert isinstance(error, sdk.ServerUnavailableError) == (status == 429 or status >= 500)
    assert isinstance(error, sdk.InvalidRequestError) != isinstance(
        error, sdk.ServerUnavailableError
    )
    assert type(error) is EXPECTED.get(code, type(error))
    plain = status in PLAIN or code.startswith("calibration")
    assert plain or type(error) is not sdk.InvalidRequestError


# The rest of 4xx has nothing to do with what a caller of this package can say.
PLAIN = {400, 405, 408, 414, 415, 421, 431}
EXPECTED = {
    "unauthorized": sdk.AuthenticationError,
    "scores-withheld": sdk.PermissionDeniedError,
    "origin-refused": sdk.PermissionDeniedError,
    "model-not-found": sdk.NotFoundError,
    "stored-not-found": sdk.NotFoundError,
    "stored-damaged": sdk.ConflictError,
    "precondition-failed": sdk.ConflictError,
    "body-too-large": sdk.TooLargeError,
    "too-many-images": sdk.TooLargeError,
    "store-full": sdk.TooLargeError,
    "image": sdk.ImageRejectedError,
    "image-format": sdk.ImageRejectedError,
    "image-too-large": sdk.ImageRejectedError,
    "image-crash": sdk.ImageRejectedError,
    "label": sdk.LabelsRejectedError,
    "label-duplicate": sdk.LabelsRejectedError,
    "template": sdk.LabelsRejectedError,
    "text": sdk.LabelsRejectedError,
    "hierarchy": sdk.HierarchyRejectedError,
    "hierarchy-cycle": sdk.HierarchyRejectedError,
    "label-mismatch": sdk.HierarchyRejectedError,
    "label-ambiguous": sdk.HierarchyRejectedError,
    "rate-limited": sdk.OverloadedError,
    "queue-full": sdk.OverloadedError,
    "not-ready": sdk.ServerUnavailableError,
    "internal": sdk.ServerUnavailableError,
    "deadline": sdk.DeadlineError,
}


def test_a_code_of_a_newer_service_goes_by_its_status() -> None:
    from robustzs_client._errors import error_class

    assert error_class(413, "something-new") is sdk.TooLargeError
    assert error_class(422, "image-something-new") is sdk.ImageRejectedError
    assert error_class(418, "teapot") is sdk.InvalidRequestError
    assert error_class(507, "image-disk") is sdk.ServerUnavailableError


@pytest.mark.parametrize(
    "says",
    [
        Says(200, b"<html>welcome</html>"),
        Says(200, b""),
        Says(200, []),
        Says(200, {"results": []}),
        Says(200, {"results": [{"index": 0, "status": "ok"}]}),
        Says(200, {"results": ["cat"]}),
        Says(200, b"[" * 100_000),
        Says(200, b"\x1f\x8bnot gzip", {"Content-Encoding": "gzip"}),
    ],
)
def test_an_answer_of_something_else_is_told_as_such(
    call: Either, server: Scripted, says: Says
) -> None:
    server.says(says)
    with pytest.raises(sdk.UnexpectedResponseError):
        call(server.url, "classify", b"x", made=QUICK)


def test_a_proxys_page_keeps_its_status(call: Either, server: Scripted) -> None:
    server.says(Says(413, b"<html>nginx</html>"))
    with pytest.raises(sdk.TooLargeError, match="HTTP 413"):
        call(server.url, "classify", b"x", made=QUICK)
    server.says(Says(502, b"bad gateway"))
    with pytest.raises(sdk.ServerUnavailableError):
        call(server.url, "classify", b"x", made=QUICK)


def test_scores_that_are_withheld_are_nan(call: Either, server: Scripted) -> None:
    hidden = answer("cat")
    hidden["prediction"]["probability"] = None
    hidden["similarity"] = None
    server.says(Says(200, {"results": [{"index": 0, "status": "ok", **hidden}]}))
    found = call(server.url, "classify", b"x")
    assert found.prediction.probability != found.prediction.probability
    assert json.loads(found.model_dump_json())["similarity"] is None


def test_a_cancelled_call_ends_at_once(server: Scripted) -> None:
    server.says(Says(200, {}, seconds=2.0))

    async def cancelled() -> float:
        async with sdk.AsyncClient(server.url) as client:
            task = asyncio.create_task(client.models())
            await asyncio.sleep(0.2)
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.monotonic() - started

    assert asyncio.run(cancelled()) < 1.0


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Timeouts, {"connect": 0}),
        (Timeouts, {"total": -1.0}),
        (Timeouts, {"read": float("nan")}),
        (Retries, {"attempts": 0}),
        (Retries, {"initial": 0.0}),
        (sdk.Batching, {"max_images": 0}),
        (sdk.Batching, {"concurrency": 0}),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: type, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)


def test_asked_is_read_as_it_came() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="0"\r\n\r\na\r\n--b--'
    asked = Asked("POST", "/", {"content-type": "multipart/form-data; boundary=b"}, body, 0.0)
    assert asked.images == [b"a"]
