"""A service under requests of mixed shapes for a long time: does anything grow?

`make soak`, or `python -m tests.serving.soak --requests 20000 --report soak.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.factories import make_bundle
from tests.serving.conftest import Service, end_service, start_service
from tests.serving.soak.traffic import SHARES, Ask, Traffic

_INTERVALS = 20
_SETTLED = 0.4  # of the run: by then caches are full
_GROWTH_MB = 25.0  # between the two halves of what follows


class Run:
    """Clients that send until enough has been sent, and what is seen of the service meanwhile."""

    def __init__(self, service: Service, requests: int, seconds: float, folder: Path) -> None:
        self.service, self.requests, self.folder = service, requests, folder
        self.sent = 0
        self.kinds: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.rows: list[dict[str, Any]] = []
        self._seconds: list[float] = []
        self._last = time.monotonic()
        self._until = self._last + seconds

    async def all(self, n_clients: int) -> None:
        clients = [self._client(iter(Traffic(seed))) for seed in range(n_clients)]
        await asyncio.gather(*clients)

    async def _client(self, traffic: Any) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for ask in traffic:
            if self.sent >= self.requests or time.monotonic() > self._until:
                break
            self.sent += 1
            self.kinds[ask.kind] += 1
            if self.sent % max(1, self.requests // _INTERVALS) == 0:
                await asyncio.to_thread(self._look)
            began = time.monotonic()
            for attempt in range(2):
                fresh = connection is None
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self.service.port)
                status, stays = await _exchange(*connection, ask)
                if not stays:
                    connection[1].close()
                    connection = None
                if status is not None or fresh or attempt:
                    break  # else an idle connection had just been closed: once more
            self._seconds.append(time.monotonic() - began)
            if ask.leaves_at is None and status not in ask.expected:
                self.wrong[f"{ask.kind}: {status}"] += 1
        if connection is not None:
            connection[1].close()

    def _look(self) -> None:
        (worker,) = self.service.workers()
        decoders = self.service.decoders()
        now = time.monotonic()
        seconds, self._seconds = sorted(self._seconds), []
        n = len(seconds) or 1
        row = {
            "requests": self.sent,
            "per_second": round(n / (now - self._last), 1),
            "p50_ms": round(1000 * seconds[n // 2], 1) if seconds else 0,
            "p99_ms": round(1000 * seconds[n * 99 // 100], 1) if seconds else 0,
            "worker_mb": round(worker.memory_info().rss / 1e6, 1),
            "decoders_mb": round(sum(one.memory_info().rss for one in decoders) / 1e6, 1),
            "threads": worker.num_threads(),
            "processes": len(self.service.tree()),
            "connections": sum(1 for _ in worker.net_connections(kind="tcp")),
            "files_open": worker.num_fds(),
            "files_kept": sum(1 for path in self.folder.rglob("*") if path.is_file()),
            "wrong": sum(self.wrong.values()),
        }
        self._last = now
        self.rows.append(row)
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)

    def problems(self) -> list[str]:
        """What must not be, after the run."""
        found = [f"{count} x {what}" for what, count in self.wrong.items()]
        settled = self.rows[int(len(self.rows) * _SETTLED) :]
        half = len(settled) // 2
        for name in ("worker_mb", "decoders_mb"):
            early = sum(row[name] for row in settled[:half]) / max(1, half)
            late = sum(row[name] for row in settled[half:]) / max(1, len(settled) - half)
            if late - early > _GROWTH_MB:
                found.append(f"{name} grew from {early:.0f} to {late:.0f}")
        first, last = self.rows[0], self.rows[-1]
        for name, more in (("threads", 3), ("processes", 0)):
            if last[name] > first[name] + more:
                found.append(f"{name} grew from {first[name]} to {last[name]}")
        idle = last["files_open"] - last["connections"]
        if idle > first["files_open"] - first["connections"] + 10:
            found.append(f"open files grew to {idle} without connections")
        if "Traceback" in self.service.text():
            found.append("the log has a traceback")
        return found


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ask: Ask
) -> tuple[int | None, bool]:
    """Status of the answer, and whether the connection may be used again."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        if ask.leaves_at is not None:
            writer.write(ask.sent[: ask.leaves_at])
            await writer.drain()
            return 0, False
        writer.write(ask.sent)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        if length:
            await reader.readexactly(int(length))
        elif b"transfer-encoding: chunked" in head:
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
        return status, b"connection: close" not in head
    return None, False


def run(
    requests: int, clients: int, *, seconds: float = 86_400.0, report: Path | None = None
) -> list[str]:
    """Start a service of the tiny model, ask, stop it.

    Args:
        requests: how many.
        clients: at once.
        seconds: after which it ends, however many were sent.
        report: file for what was seen, as JSON.

    Returns:
        What was wrong; nothing if all was well.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        service = start_service(
            folder,
            make_bundle(folder / "tiny"),
            # Small enough to be full early: what grows then, leaks.
            ROBUSTZS_CACHE_BYTES="4000000",
            ROBUSTZS_REQUESTS_PER_SECOND_PER_KEY="0",
            ROBUSTZS_STORE_DIR=str(folder / "store"),
            ROBUSTZS_CACHE=str(folder / "cache"),
        )
        try:
            service.wait_ready()
            next(iter(Traffic(0)))  # made before the clock starts
            seen = Run(service, requests, seconds, folder)
            began = time.monotonic()
            asyncio.run(seen.all(clients))
            took = time.monotonic() - began
            found = seen.problems()
            family = service.tree()
            if service.stop() != 0:
                found.append("it did not stop well")
            if any(process.is_running() for process in family):
                found.append("processes were left behind")
        finally:
            end_service(service)
    if report is not None:
        document = {
            "requests": seen.sent,
            "seconds": round(took, 1),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "shares": SHARES,
            "kinds": dict(seen.kinds),
            "intervals": seen.rows,
            "problems": found,
        }
        report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{seen.sent} requests in {took:.0f} s:", "; ".join(found) or "nothing grew")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=86_400.0)
    parser.add_argument("--report", type=Path)
    chosen = parser.parse_args()
    found = run(chosen.requests, chosen.clients, seconds=chosen.seconds, report=chosen.report)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
