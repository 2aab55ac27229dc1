"""When a call is tried again, for both clients: one policy over tenacity."""

from __future__ import annotations

import logging
import random
from typing import TypedDict

import tenacity
from tenacity import RetryCallState

from robustzs_client._errors import RobustZSClientError
from robustzs_client._settings import Retries

_logger = logging.getLogger("robustzs_client")


class Policy(TypedDict):
    """Arguments of tenacity's ``Retrying`` and ``AsyncRetrying``."""

    retry: tenacity.retry_if_exception
    stop: tenacity.stop.stop_base
    wait: Wait
    before_sleep: Log
    reraise: bool


class Wait:
    """Full jitter under an exponential bound; where the service names a time, that and a little."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._backoff = tenacity.wait_random_exponential(retries.initial, retries.longest)

    def __call__(self, state: RetryCallState) -> float:
        """Seconds before the next try."""
        asked = getattr(_error(state), "retry_after", None)
        if asked is None:
            return self._backoff(state)
        # Clients that were told the same second shall not all come in it.
        return float(asked) + random.uniform(0.0, self._retries.initial)


class Log:
    """One line for each wait."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __call__(self, state: RetryCallState) -> None:
        """Tell of a wait that begins."""
        _logger.info(
            "%s: try %d failed, next in %.2f s: %s",
            self._what,
            state.attempt_number,
            state.upcoming_sleep,
            _error(state),
        )


def retry_policy(retries: Retries, total: float | None, what: str) -> Policy:
    """The policy for one call.

    Args:
        retries: How often, and how long to wait.
        total: Seconds of all tries and waits; a wait that would pass it is not begun.
        what: The call, for the log.
    """
    stop: tenacity.stop.stop_base = tenacity.stop_after_attempt(retries.attempts)
    if total is not None:
        stop = stop | tenacity.stop_before_delay(total)
    return Policy(
        retry=tenacity.retry_if_exception(_helps),
        stop=stop,
        wait=Wait(retries),
        before_sleep=Log(what),
        reraise=True,
    )


def _helps(error: BaseException) -> bool:
    return isinstance(error, RobustZSClientError) and error.transient


def _error(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()
