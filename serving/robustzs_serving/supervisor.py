"""What BentoML's process supervisor (circus) does not do by itself.

Measured on BentoML 1.4.39: a worker that was killed is missed only by a look round every 10
seconds; any local user may give the supervisor orders over two TCP ports on the loopback address,
"run this command" among them; and when the supervisor itself is killed, its workers live on.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

_logger = logging.getLogger(__name__)
_CHECK_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def tame_supervisor() -> None:
    """Watch workers twice a second, and take orders only over a socket in a folder of our own.

    Call it in the process that will start the supervisor, before it does.
    """
    from bentoml._internal.utils import circus

    circus.create_standalone_arbiter = _arbiter


def _arbiter(watchers: list[Any], *, threaded: bool = False, **arguments: Any) -> Any:
    from bentoml._internal.utils import circus

    kind = circus.ThreadedArbiter if threaded else circus.Arbiter
    folder = tempfile.mkdtemp(prefix="robustzs-control-")
    arbiter = kind(
        watchers,
        endpoint=f"ipc://{folder}/control",
        pubsub_endpoint=f"ipc://{folder}/events",
        check_delay=arguments.pop("check_delay", _CHECK_SECONDS),
        **arguments,
    )
    arbiter.exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return arbiter


def report_nothing() -> None:
    """No usage report to BentoML's maker, whoever starts the service.

    BentoML asks ``BENTOML_DO_NOT_TRACK`` once and remembers: ``bentoml serve`` has asked before it
    loads the service, and reports at the end (seen by strace).
    """
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    from bentoml._internal.utils.analytics import usage_stats

    usage_stats.do_not_track.cache_clear()


def believe_proxies(addresses: Sequence[str]) -> None:
    """Say whose ``X-Forwarded-For`` names the client; uvicorn asks when it is started.

    By default uvicorn believes whoever is on the loopback address, and so any local user, who could
    then take a new address for each request and pass every rate.

    Args:
        addresses: addresses or networks; where there are none, what the environment says holds.
    """
    if addresses:
        os.environ["FORWARDED_ALLOW_IPS"] = ",".join(addresses)
    else:
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "")


def end_with_parent() -> None:
    """Have this process asked to stop when the supervisor dies, however it does (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        _logger.warning("this worker will outlive its supervisor if that is killed")
    if os.getppid() != parent:
        with contextlib.suppress(ProcessLookupError):
            os.kill(os.getpid(), signal.SIGTERM)
