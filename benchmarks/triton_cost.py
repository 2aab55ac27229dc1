"""What a request costs through Triton, beside ONNX Runtime here: `make benchmark-triton`.

A real Triton server on the loopback address, the python backend around the same ONNX Runtime with
the same number of threads, and one client: the difference is the way there and back. Interleaved,
so that a busy machine is busy for all; medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from robustzs.backends.onnx import OnnxBackend
from robustzs.backends.triton import TritonBackend, TritonTarget
from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from tests.triton.server import export, launch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="robustzs-lite")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    bundle = Bundle.load(resolve_model(arguments.model))
    height, width = bundle.manifest.preprocess.image_size
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = launch(export(bundle.path, folder), folder)
        try:
            ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
                "in this process": OnnxBackend(bundle, threads=1).encode_image,
                "Triton, gRPC": TritonBackend(
                    bundle, TritonTarget(urls=(server.grpc,))
                ).encode_image,
                "Triton, HTTP": TritonBackend(
                    bundle, TritonTarget(urls=(server.http,))
                ).encode_image,
            }
            print(f"{bundle.manifest.name}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
            print("| rows | pixels | way | median ms | 10% to 90% | more than in process |")
            print("|---|---|---|---|---|---|")
            for rows in (1, 8):
                white = rng.integers(0, 256, (rows, 3, height, width)).astype(np.uint8)
                grid = np.divide(white, np.float32(255), dtype=np.float32)
                floats = rng.random(grid.shape, dtype=np.float32)
                for kind, pixels in (("8 bits", grid), ("float32", floats)):
                    table(rows, kind, timed(ways, pixels, arguments.rounds))
        finally:
            server.kill()


def timed(
    ways: dict[str, Callable[[np.ndarray], np.ndarray]], pixels: np.ndarray, rounds: int
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 3):
        for name, encode in ways.items():
            started = time.perf_counter()
            encode(pixels)
            if turn >= 3:  # the first ones connect and warm up
                seconds[name].append(time.perf_counter() - started)
    return seconds


def table(rows: int, kind: str, seconds: dict[str, list[float]]) -> None:
    base = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9)) * 1e3
        print(
            f"| {rows} | {kind} | {name} | {middle:.1f} | {low:.1f} to {high:.1f} | "
            f"{middle - base * 1e3:+.1f} |"
        )


if __name__ == "__main__":
    main()
