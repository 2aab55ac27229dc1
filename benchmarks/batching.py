"""BentoML's adaptive batching beside our batcher: what poison does, and what a tensor costs.

    python -m benchmarks.batching [--requests 200] [--poison 20] [--rounds 20]

The same trivial model stands behind both, so that nothing but the batching is measured. Poison: one
row makes the model raise, as a row does whose features overflow. Tensor: one picture's pixels,
float32 [1, 3, 224, 224], from a route of the service to the batched method and its features back.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
from robustzs_serving.batching import Batcher

SERVICE = """
import time

import bentoml
import numpy as np


@bentoml.service(metrics={"enabled": False}, traffic={"timeout": 60})
class Batched:
    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=60000)
    def encode(self, rows: list[float]) -> list[float]:
        time.sleep(0.005)
        if min(rows) < 0:
            raise ValueError("poison")
        return [row + 1 for row in rows]

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=60000)
    def features(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1)[:, :512]

    @bentoml.api
    async def tensor(self, rounds: int) -> dict[str, list]:
        pixels = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            features = await self.to_async.features(pixels)
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds, "dtype": [str(np.asarray(features).dtype)]}
"""


def model(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same as the service's: 5 ms, and it raises where a row is white."""
    time.sleep(0.005)
    if pixels.max() == 1.0:
        raise ValueError("poison")
    return pixels.reshape(len(pixels), -1)[:, :512]


@contextmanager
def bento(folder: Path) -> Iterator[str]:
    """The address of the service, in a process of its own."""
    (folder / "batched.py").write_text(SERVICE, encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder)}
    command = [sys.executable, "-m", "bentoml", "serve", "batched:Batched", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1"], cwd=folder, env=environment, stdout=log, stderr=log
        )
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 120.0
            while not _is_ready(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit((folder / "log").read_text(encoding="utf-8"))
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


async def poison_bento(url: str, is_poison: Sequence[bool]) -> list[bool]:
    """Which requests were answered rightly."""
    limits = httpx.Limits(max_connections=len(is_poison))
    async with httpx.AsyncClient(base_url=url, timeout=120.0, limits=limits) as client:

        async def ask(row: float) -> bool:
            answer = await client.post("/encode", json={"rows": [row]})
            return answer.status_code == 200 and answer.json() == [row + 1]

        for row in range(20):  # its dispatcher learns from the first requests
            await ask(float(row))
        rows = (-1.0 if bad else float(place) for place, bad in enumerate(is_poison))
        return list(await asyncio.gather(*(ask(row) for row in rows)))


async def poison_ours(is_poison: Sequence[bool]) -> list[bool]:
    """Which rows were answered rightly."""
    batcher = Batcher(model, shape=(3, 16, 16), queue_rows=len(is_poison))

    async def ask(value: int) -> bool:
        row = np.full((3, 16, 16), value, np.uint8)
        (result,) = await asyncio.gather(
            batcher.submit(row, deadline=time.monotonic() + 60.0), return_exceptions=True
        )
        right = np.float32(value) / np.float32(255.0)
        return isinstance(result, np.ndarray) and bool((result == right).all())

    values = (255 if bad else place % 200 for place, bad in enumerate(is_poison))
    answered = list(await asyncio.gather(*(ask(value) for value in values)))
    await batcher.close()
    return answered


async def tensor_ours(rounds: int) -> list[float]:
    """Seconds from a row to its features, without the model's 5 ms and without waiting."""
    batcher = Batcher(
        lambda pixels: pixels.reshape(len(pixels), -1)[:, :512],
        shape=(3, 224, 224),
        wait_seconds=0.0,
    )
    row = np.random.default_rng(0).integers(0, 255, (3, 224, 224), np.uint8)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        await batcher.submit(row, deadline=time.monotonic() + 60.0)
        seconds.append(time.perf_counter() - started)
    await batcher.close()
    return seconds


def _poison_line(name: str, answered: Sequence[bool], is_poison: Sequence[bool]) -> str:
    innocent = sum(not good and not bad for good, bad in zip(answered, is_poison, strict=True))
    return (
        f"  {name:<10}{sum(answered):>6} answered rightly, {innocent:>4} of "
        f"{len(is_poison) - sum(is_poison)} good ones failed"
    )


def _time_line(name: str, seconds: Sequence[float], note: str) -> str:
    low, middle, high = (1e3 * f(seconds) for f in (min, statistics.median, max))
    return f"  {name:<10}{middle:>8.2f} ms  ({low:.2f}-{high:.2f})  {note}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--poison", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    order = np.random.default_rng(0).permutation(arguments.requests)
    is_poison = [bool(place < arguments.poison) for place in order]
    with tempfile.TemporaryDirectory() as folder, bento(Path(folder)) as url:
        theirs = asyncio.run(poison_bento(url, is_poison))
        reply = httpx.post(f"{url}/tensor", json={"rounds": arguments.rounds}, timeout=300.0)
        reply.raise_for_status()
        tensor = reply.json()
    print(f"{arguments.requests} requests of one row at once, {arguments.poison} of them poison")
    print(_poison_line("BentoML", theirs, is_poison))
    print(_poison_line("ours", asyncio.run(poison_ours(is_poison)), is_poison))
    print("\none picture's pixels to the batched method and 512 features back (median, min-max)")
    print(_time_line("BentoML", tensor["seconds"], f"comes back as {tensor['dtype'][0]}"))
    ours = asyncio.run(tensor_ours(arguments.rounds))
    print(_time_line("ours", ours, "a thread's hop and a copy"))


if __name__ == "__main__":
    main()
