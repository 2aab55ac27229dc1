"""The chat client against a real server that misbehaves in every way that servers do."""

from __future__ import annotations

import time
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from robustzs.chat import ChatClient, ChatConfig, Reply
from robustzs.errors import ChatRefusedError, ChatUnavailableError, ServerError, UsageError
from tests.chat_server import Answer, failed, said, serving

QUESTION = [{"role": "user", "content": "what is it?"}]
CONFIG = ChatConfig(url="", model="tiny", timeout=5.0, n_retries=2)


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("robustzs.chat._FIRST_WAIT", 0.01)


def _ask(url: str, **changes: Any) -> Reply:
    with ChatClient(replace(CONFIG, url=url, **changes)) as client:
        return client.ask(QUESTION)


def test_a_good_answer_with_its_tokens() -> None:
    with serving(lambda body, n: said("a cat", 7, 3, finish_reason="length")) as server:
        assert _ask(server.url) == Reply("a cat", 7, 3, is_cut=True)
        assert server.paths == ["/v1/chat/completions"]
        assert server.requests[0]["model"] == "tiny"
        assert server.requests[0]["messages"] == QUESTION
        assert server.requests[0]["temperature"] == 0.0
        assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    "bad",
    [
        failed(429),
        failed(429, Retry_After="0"),
        failed(429, Retry_After=formatdate(usegmt=True)),
        failed(500),
        failed(503, Retry_After="nonsense"),
        Answer(body=said("a cat").body[:-10]),  # cut, but well delivered
        replace(said("a cat"), cut=10),  # the connection ends too early
        Answer(body=b"{}"),
        Answer(body=b"[]"),
        Answer(body=b'{"choices": []}'),
        Answer(body=b'{"choices": [{"message": {"content": null}}]}'),
        Answer(body=b"\xff\xfe"),
        Answer(body=b"[" * 100_000),
        Answer(body=b"", headers={"Content-Encoding": "gzip"}),
        Answer(body=b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
)
def test_what_may_pass_is_asked_again(bad: Answer) -> None:
    with serving(lambda body, n: bad if n == 0 else said("a cat")) as server:
        assert _ask(server.url).text == "a cat"
        assert len(server.requests) == 2


def test_retries_are_bounded_and_the_last_reason_is_told() -> None:
    with serving(lambda body, n: failed(500, f"broken {n}")) as server:
        with pytest.raises(
            ChatUnavailableError, match="3 attempts: status 500: broken 2"
        ) as caught:
            _ask(server.url)
        assert caught.value.status == 500
        assert len(server.requests) == 3


def test_the_servers_wish_to_wait_is_followed() -> None:
    with serving(lambda body, n: failed(429, Retry_After="0.4") if n == 0 else said("x")) as server:
        start = time.monotonic()
        _ask(server.url)
        assert time.monotonic() - start >= 0.4


def test_a_slow_server_is_given_up() -> None:
    with serving(lambda body, n: replace(said("late"), wait=5.0 if n == 0 else 0.0)) as server:
        start = time.monotonic()
        assert _ask(server.url, timeout=0.3).text == "late"
        assert time.monotonic() - start < 3


def test_endless_answers_are_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustzs.chat.MAX_ANSWER_BYTES", 10_000)
    with (
        serving(lambda body, n: Answer(body=b" " * 1_000_000)) as server,
        pytest.raises(ChatUnavailableError, match="more than 10000 bytes"),
    ):
        _ask(server.url, n_retries=0)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_request_is_not_repeated(status: int) -> None:
    with serving(lambda body, n: failed(status, "too \x1b[31m large\n")) as server:
        with pytest.raises(ChatRefusedError, match=r"too \[31m large"):
            _ask(server.url)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_no_request_will_get_past_stops_at_once(status: int) -> None:
    with serving(lambda body, n: failed(status)) as server:
        with pytest.raises(ServerError) as caught:
            _ask(server.url)
        assert type(caught.value) is ServerError
        assert caught.value.hint
        assert len(server.requests) == 1


def test_redirects_are_refused_so_that_keys_stay() -> None:
    moved = Answer(status=307, headers={"Location": "http://127.0.0.1:9/v1/chat/completions"})
    with serving(lambda body, n: moved) as server, pytest.raises(ChatRefusedError, match="307"):
        _ask(server.url)


def test_nobody_there() -> None:
    with pytest.raises(ChatUnavailableError, match="ConnectError"):
        _ask("http://127.0.0.1:9/v1", n_retries=1)


def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with serving(lambda body, n: failed(401, "bad key")) as server:
        with pytest.raises(ServerError) as caught:
            _ask(server.url, api_key_env="MY_KEY")
        assert server.headers[0]["Authorization"] == "Bearer sk-secret"
        assert "sk-secret" not in f"{caught.value} {caught.value.hint} {caught.value!r}"
    monkeypatch.setenv("MY_KEY", "sk-\nsecret")
    with pytest.raises(UsageError) as odd:
        ChatClient(replace(CONFIG, url="http://x/v1", api_key_env="MY_KEY"))
    assert "secret" not in str(odd.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://x/v1", "http://", "http://me:pw@x/v1", "http://x/v1?key=1"]
)
def test_addresses_that_cannot_be_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        ChatClient(replace(CONFIG, url=url))
    assert "pw" not in str(caught.value)
