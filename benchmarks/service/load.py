"""Load, by wrk: written in C, so that it takes about 1% of what the servers take."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.service.servers import Server

_SCRIPT = Path(__file__).with_name("post.lua")


@dataclass(frozen=True)
class Load:
    """What one run measured.

    Attributes:
        requests: answered with status 200.
        seconds: the run took.
        failed: other answers, and none.
        p50, p99: milliseconds from request to answer.
        server_cpu: seconds of all processes of the server.
        own_cpu: seconds of the load generator.
    """

    requests: int
    seconds: float
    failed: int
    p50: float
    p99: float
    server_cpu: float
    own_cpu: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def rate_apart(self, cpus: int) -> float:
        """Requests per second of the time in which the generator did not hold the processors."""
        return self.requests / (self.seconds - self.own_cpu / cpus)


def put_load(
    server: Server, path: str, bodies: Path, content_type: str, *, clients: int, seconds: float
) -> Load:
    """So many clients, each with a connection of its own, asking again when answered."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "60s"]
    environment = {**os.environ, "BODIES": str(bodies), "CONTENT_TYPE": content_type}
    before = server.cpu_seconds()
    process = subprocess.Popen(
        [*command, "-s", str(_SCRIPT), f"{server.url}{path}"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    spent = server.cpu_seconds() - before
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode != 0 or not lines:
        raise SystemExit(f"wrk failed at {server.url}{path}: {output[-1000:]}")
    found = json.loads(lines[-1])
    if found["requests"] < 1:
        raise SystemExit(f"{server.url}{path} answered nothing with 200 in {seconds:g} s: {found}")
    return Load(**found, server_cpu=spent, own_cpu=usage.ru_utime + usage.ru_stime)
