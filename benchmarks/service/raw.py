"""Decoding and encoding alone: what the machine can do without HTTP, labels and answers.

A worker process reads ``BATCH SECONDS`` from its standard input, takes the pictures in turn for so
long (decode, resize, encode, one batch after the other), and answers with one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from benchmarks.service.pictures import REPOSITORY


@dataclass(frozen=True)
class Arrangement:
    """How the processors are used.

    Attributes:
        processes: that work at once.
        threads: of the engine, in each.
        ahead: decode the next batch in threads while the engine runs (`Embedder.embed_images`),
            or one after the other.
        batch: images in one call of the engine.
    """

    processes: int
    threads: int
    ahead: bool
    batch: int

    def __str__(self) -> str:
        """In words."""
        how = "decoding ahead" if self.ahead else "decoding in between"
        return (
            f"{self.processes} process(es) of {self.threads} thread(s), {how}, batches of "
            f"{self.batch}"
        )


@dataclass(frozen=True)
class RawRun:
    """What one run measured: images, wall seconds, CPU seconds."""

    images: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds


class RawWorkers:
    """Workers that wait for orders; the model is loaded once."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def run(self, batch: int, seconds: float) -> RawRun:
        """All workers at once."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{batch} {seconds}\n")
            process.stdin.flush()
        found = [json.loads(_line(process)) for process in self._processes]
        return RawRun(
            sum(one["images"] for one in found),
            max(one["seconds"] for one in found),
            sum(one["cpu"] for one in found),
        )


@contextmanager
def workers(
    model: str, pictures: Path, *, processes: int, threads: int, ahead: bool
) -> Iterator[RawWorkers]:
    """Start them, and end them."""
    command = [sys.executable, "-m", "benchmarks.service.raw", model, str(pictures)]
    command += [str(threads), str(int(ahead))]
    with ExitStack() as stack:
        started = []
        for _ in range(processes):
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
            started.append(process)
        for process in started:
            _line(process)
        yield RawWorkers(started)


def _line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit("a raw worker ended")
    return line


def main() -> None:
    """One worker."""
    import numpy as np

    from robustzs.classifier import Embedder
    from robustzs.images.decode import decode_image
    from robustzs.images.preprocess import preprocess

    model, folder, threads, ahead = sys.argv[1:]
    embedder = Embedder.load(model, threads=int(threads))
    config = embedder.manifest.preprocess
    pictures = [path.read_bytes() for path in sorted(Path(folder).iterdir())]

    def one_after_the_other(batch: int) -> Iterator[int]:
        source = cycle(pictures)
        while True:
            some = islice(source, batch)
            pixels = [preprocess(decode_image(data, embedder.limits), config) for data in some]
            embedder.backend.encode_image(np.stack(pixels))
            yield batch

    def decoding_ahead(batch: int) -> Iterator[int]:
        for _ in embedder.embed_images(cycle(pictures), batch_size=batch):
            yield 1

    work = decoding_ahead if ahead == "1" else one_after_the_other
    print("ready", flush=True)
    for line in sys.stdin:
        batch, seconds = line.split()
        steps = work(int(batch))
        next(steps)  # what a new shape costs once
        images, began, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < float(seconds):
            images += next(steps)
        record = {
            "images": images,
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
        }
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
