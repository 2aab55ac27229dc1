"""From Triton's errors to ours.

tritonclient raises ``InferenceServerException`` with a gRPC status (``StatusCode.UNAVAILABLE``) or
an HTTP one (``503``), and over HTTP whatever its sockets raise. Which failure it was decides what
happens next: an unavailable server is one to go around, a failed inference is not.
"""

from __future__ import annotations

from robustzs.errors import (
    BackendError,
    BackendMismatchError,
    BackendOverloadedError,
    BackendTimeoutError,
    BackendUnavailableError,
    InferenceError,
)

# Triton's own words for a request that its queue policy turned away.
_QUEUE_WORDS = ("maximum queue size", "request timeout expired", "queue timeout")
_AWAY = ("UNAVAILABLE", "CANCELLED", "ABORTED", "UNIMPLEMENTED", "501", "502", "503")
_MAX_QUOTED = 300
_HINT_REACH = "is tritonserver running there, with this port open?"


def failure(status: str | None, message: str, *, where: str, what: str) -> BackendError:
    """The error for what a server, or the way to it, said.

    Args:
        status: ``StatusCode.NAME`` of gRPC, a number of HTTP, or ``None``.
        message: what it said; quoted shortened, for the log of whoever runs the server.
        where: the server.
        what: what was asked of it.
    """
    said = " ".join(message.split())[:_MAX_QUOTED]
    code = (status or "").removeprefix("StatusCode.")
    lower = said.lower()
    too_large = code == "RESOURCE_EXHAUSTED" and "larger than" in lower  # some proxy's limit
    if (code in ("RESOURCE_EXHAUSTED", "429") and not too_large) or any(
        words in lower for words in _QUEUE_WORDS
    ):
        return BackendOverloadedError(
            f"Triton at {where} has too much waiting for {what}: {said}", hint="ask again later"
        )
    if code in ("DEADLINE_EXCEEDED", "499", "504") or "timed out" in lower:
        return BackendTimeoutError(
            f"Triton at {where} did not finish {what} in time", hint="ask again later"
        )
    restricted = "is restricted" in lower  # gRPC: UNAVAILABLE, that is
    if restricted or code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "401", "403"):
        return BackendUnavailableError(
            f"Triton at {where} refuses access for {what}: {said}",
            hint="see --grpc-restricted-protocol and --http-restricted-api of the server",
        )
    if "unknown model" in lower or "is not found" in lower or code in ("NOT_FOUND", "404"):
        return BackendUnavailableError(
            f"Triton at {where} does not have {what} now: {said}",
            hint="write its repository with `robustzs export --triton`, and load it",
        )
    elsewhere = code.isdigit() and code.startswith("3")  # some proxy's; Triton redirects nobody
    if elsewhere or code in _AWAY:
        return BackendUnavailableError(
            f"Triton at {where} does not answer: {said}", hint=_HINT_REACH
        )
    if code in ("INVALID_ARGUMENT", "400"):
        return BackendMismatchError(
            f"Triton at {where} takes other tensors for {what}: {said}",
            hint="write its repository anew with `robustzs export --triton`",
        )
    return InferenceError(f"Triton at {where} failed at {what}: {code or 'error'}: {said}")


def unreachable(error: BaseException, *, where: str) -> BackendUnavailableError:
    """The error for sockets and TLS that failed below tritonclient."""
    if isinstance(error, TimeoutError):
        return BackendTimeoutError(
            f"Triton at {where} did not answer in time", hint="ask again later"
        )
    said = " ".join(str(error).split())[:_MAX_QUOTED] or type(error).__name__
    return BackendUnavailableError(f"Triton at {where} does not answer: {said}", hint=_HINT_REACH)


def no_triton(said: str, *, where: str) -> BackendUnavailableError:
    """The error for an answer that cannot be read: what answers is no Triton."""
    said = " ".join(said.split())[:_MAX_QUOTED]
    return BackendUnavailableError(
        f"what answers at {where} does not speak as Triton does: {said}",
        hint="is this Triton's own port, and the protocol that it speaks there?",
    )
