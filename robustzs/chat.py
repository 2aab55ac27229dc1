"""Asking a chat model behind an OpenAI-compatible endpoint: vLLM, Ollama, llama.cpp, OpenAI itself.

``POST {url}/chat/completions`` and nothing else of the protocol. What comes back is data from a
stranger: its size and its time are bounded, its shape is checked, and nothing in it is followed.
"""

from __future__ import annotations

import email.utils
import json
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robustzs.errors import ChatRefusedError, ChatUnavailableError, ServerError, UsageError

if TYPE_CHECKING:
    import httpx

Message = Mapping[str, Any]

MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_WAIT = 120.0
"""Seconds; a server that asks to be left alone for longer is not waited for any longer."""
_FIRST_WAIT = 0.5
_SHOWN = 200
_AGAIN = frozenset({408, 409, 425, 429})
_HOPELESS = {
    401: "the key is missing or wrong: name its environment variable with --api-key-env",
    403: "the key does not allow this model",
    404: "check --url (it ends in /v1 for most servers) and --model",
}


@dataclass(frozen=True)
class Reply:
    """What the model said.

    Attributes:
        text: Its answer; may be empty.
        prompt_tokens: Read by the model, as the server counts; 0 where it does not say.
        completion_tokens: Written by it.
        is_cut: It was stopped by the limit of tokens.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_cut: bool = False


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """Where to ask, and how patiently.

    Args:
        url: Base address, such as ``http://localhost:8000/v1``.
        model: As the server calls it.
        api_key_env: Environment variable that holds the key; a server of one's own needs none.
        timeout: Seconds for one whole answer.
        n_retries: How often one question is asked again after a failure that may pass.
        temperature: 0 takes the likeliest words.
        max_tokens: Longest answer.
        connections: Most questions at once.
    """

    url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    n_retries: int = 5
    temperature: float = 0.0
    max_tokens: int = 128
    connections: int = 8


class ChatClient:
    """A connection to one model; for many threads. Use it in a ``with``.

    Args:
        config: Where and how.

    Raises:
        UsageError: The address is not one of http or https, or carries a password.
    """

    def __init__(self, config: ChatConfig) -> None:
        import httpx

        self.config = config
        self._stopped = threading.Event()
        self._random = random.Random(0)
        address = _checked_url(config.url)
        key = os.environ.get(config.api_key_env, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise UsageError(
                f"the key in {config.api_key_env} has characters that a key cannot have",
                hint="set the variable again",
            )
        self._client = httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(config.timeout, connect=min(10.0, config.timeout)),
            limits=httpx.Limits(max_connections=config.connections),
            follow_redirects=False,  # a key is not carried to another place
        )

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End waits and connections, those of other threads too."""
        self._stopped.set()
        self._client.close()

    def ask(self, messages: Sequence[Message], *, json_answer: bool = False) -> Reply:
        """Ask once, or again while there is hope.

        Args:
            messages: As OpenAI's ``messages``.
            json_answer: Ask for a JSON object; the text still has to be checked.

        Raises:
            ChatUnavailableError: No answer within the retries.
            ChatRefusedError: This request will never be answered.
            ServerError: No request will: a wrong key, address or model.
        """
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": list(messages),
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
        }
        if json_answer:
            body["response_format"] = {"type": "json_object"}
        content = json.dumps(body).encode("ascii")
        for attempt in range(self.config.n_retries + 1):
            try:
                return self._once(content)
            except _TryAgain as failure:
                if attempt == self.config.n_retries or self._stopped.is_set():
                    raise ChatUnavailableError(
                        f"no answer from {self.config.url} in {attempt + 1} attempts: "
                        f"{failure.reason}",
                        status=failure.status,
                        hint="see whether the server runs, or ask it more slowly: --concurrency",
                    ) from failure
                self._stopped.wait(self._pause(attempt, failure.wait))
        raise ChatUnavailableError(f"{self.config.n_retries} retries of {self.config.url}")

    def _once(self, content: bytes) -> Reply:
        import httpx

        try:
            status, headers, answer = self._post(content)
        except httpx.TimeoutException as error:
            raise _TryAgain(f"no answer in {self.config.timeout:g} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _TryAgain(f"{type(error).__name__}: {_short(str(error))}") from error
        except RuntimeError as error:  # httpx's word for a client that was closed meanwhile
            raise _TryAgain("the connection was closed") from error
        if status == 200:
            return _reply(answer)
        reason = f"status {status}: {_message(answer)}"
        if status in _AGAIN or status >= 500:
            raise _TryAgain(reason, status=status, wait=_retry_after(headers.get("retry-after")))
        if status in _HOPELESS:
            raise ServerError(
                f"{self.config.url} answers {reason}", status=status, hint=_HOPELESS[status]
            )
        raise ChatRefusedError(reason, status=status)

    def _post(self, content: bytes) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body; read piecewise, because httpx bounds neither size nor time."""
        deadline = time.monotonic() + self.config.timeout
        headers = {"Content-Type": "application/json"}
        with self._client.stream(
            "POST", "chat/completions", content=content, headers=headers
        ) as response:
            pieces, size = [], 0
            for piece in response.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > MAX_ANSWER_BYTES:
                    raise _TryAgain(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise _TryAgain(f"no whole answer in {self.config.timeout:g} s")
        return response.status_code, response.headers, b"".join(pieces)

    def _pause(self, attempt: int, wanted: float | None) -> float:
        """Seconds to wait: what the server wants, else twice as long each time, with jitter."""
        if wanted is not None:
            return min(wanted, MAX_WAIT)
        return min(_FIRST_WAIT * 2.0**attempt, MAX_WAIT) * self._random.uniform(0.75, 1.25)


class _TryAgain(Exception):
    """A failure that may pass."""

    def __init__(
        self, reason: str, *, status: int | None = None, wait: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.wait = wait


def _checked_url(url: str) -> str:
    import httpx

    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise UsageError(f"{url!r} is not an address", hint="--url http://localhost:8000/v1") from (
            error
        )
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(
            f"{url!r} is not an address of http or https", hint="--url http://localhost:8000/v1"
        )
    if parsed.userinfo or parsed.query:
        raise UsageError(
            f"the address of {parsed.host!r} carries a name, password or query",
            hint="give the key through an environment variable: --api-key-env",
        )
    return url.rstrip("/") + "/"


def _reply(answer: bytes) -> Reply:
    try:
        document = json.loads(answer)
        choice = document["choices"][0]
        text = choice["message"]["content"]
        usage = document.get("usage") or {}
        if not isinstance(text, str):
            raise TypeError(f"content is {type(text).__name__}")
        return Reply(
            text=text,
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            is_cut=choice.get("finish_reason") == "length",
        )
    except (ValueError, RecursionError) as error:
        raise _TryAgain("the answer is not JSON, or only a part of it") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise _TryAgain("the answer lacks choices[0].message.content") from error


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


def _message(answer: bytes) -> str:
    """What the server says is wrong, in one line."""
    try:
        error = json.loads(answer)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, RecursionError, LookupError, TypeError):
        text = answer[: 4 * _SHOWN].decode("utf-8", "replace")
    return _short(str(text)) or "no reason given"


def _short(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN]).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < float("inf") else None
