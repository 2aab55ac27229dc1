"""Servers in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.service.pictures import REPOSITORY

_START_SECONDS = 300.0


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        url: of its root.
        process: that was started; its children belong to it.
    """

    url: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Of all its processes that are alive."""
        total = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total


@contextmanager
def running(command: Sequence[str], ready: str, log: Path, **variables: str) -> Iterator[Server]:
    """Start a server, wait until ``GET ready`` answers 200, stop it at the end.

    Args:
        command: ``{port}`` in it becomes a free port.
        ready: a path.
        log: file for what it prints.
        variables: of its environment, besides ours.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        process = subprocess.Popen(
            [part.format(port=port) for part in command],
            cwd=REPOSITORY,
            env={**os.environ, **variables},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(f"{url}{ready}"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.3)
        yield Server(url, psutil.Process(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
