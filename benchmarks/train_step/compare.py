"""One training step of QT-AFT, beside its authors' own loop.

    python -m benchmarks.train_step.compare --qtaft DIR [--architecture ViT-B-16] [--batch-size 4]

DIR is a checkout of https://github.com/futakw/QTAFT; OpenAI's ``clip`` must be importable, too
(``pip install clip-anytorch``). Without ``--qtaft`` only our own sides run.

Every side lives in a process of its own, with the same random weights and the same batch; steps are
taken in turn, after one of each that does not count. First the mathematics is compared: the loss at
one starting point, and where each side's attack ends from there. Peak memory is each process's own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.train_step.setting import write_weights
from benchmarks.train_step.worker import SIDES

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Side:
    """A worker, and what its steps cost."""

    name: str
    process: subprocess.Popen[str]
    steps: list[dict[str, float]] = field(default_factory=list)

    def ask(self, command: str) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} stopped with status {self.process.wait()}")
        found: dict[str, float] = json.loads(line)
        return found

    def of(self, key: str) -> list[float]:
        return [step[key] for step in self.steps]


def start(name: str, weights: Path, arguments: argparse.Namespace) -> Side:
    command = [sys.executable, "-m", "benchmarks.train_step.worker", name]
    command += [arguments.architecture, str(weights), "--threads", str(arguments.threads)]
    command += ["--batch-size", str(arguments.batch_size), "--n-steps", str(arguments.n_steps)]
    command += ["--seed", str(arguments.seed)]
    if arguments.qtaft:
        command += ["--qtaft", str(arguments.qtaft.resolve())]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    paths = [str(REPOSITORY), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    side = Side(name, process)
    side.answer()
    return side


def check(sides: list[Side], folder: Path) -> None:
    """Print how far the losses and the attacks' results lie apart from the first side's."""
    print("\nthe same mathematics: loss at one start, and after each side's own attack from it")
    first: tuple[dict[str, float], np.ndarray] | None = None
    for side in sides:
        path = folder / f"{side.name}.npy"
        found, images = side.ask(f"check {path}"), np.load(path)
        first = first or (found, images)
        apart = abs(found["start"] / first[0]["start"] - 1.0)
        # Float32 rounding may turn the sign of a gradient that is as good as zero.
        same = float((np.abs(images - first[1]) < 1e-6).mean())
        print(
            f"  {side.name:<20} start {found['start']:.6f} ({apart:.1e} apart)   "
            f"end {found['end']:.6f}   {100 * same:.2f}% of pixels the same"
        )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.2f} ({min(values):.2f}-{max(values):.2f})"


def report(sides: list[Side]) -> None:
    print("\none step (median, min-max)")
    for side in sides:
        peak = max(side.of("peak_mb"))
        print(
            f"  {side.name:<20} wall s {spread(side.of('wall'))}   cpu s {spread(side.of('cpu'))}"
            f"   peak MB {peak:7.0f}"
        )
    first = sides[0]
    for side in sides[1:]:
        for key in ("wall", "cpu"):
            ratios = [a / b for a, b in zip(first.of(key), side.of(key), strict=True)]
            print(f"  {first.name} / {side.name}, {key}: {spread(ratios)} (round by round)")
        memory = max(side.of("peak_mb")) / max(first.of("peak_mb"))
        print(f"  {side.name} / {first.name}, peak memory: {memory:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--qtaft", type=Path)
    parser.add_argument("--architecture", default="ViT-B-16")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--n-steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    arguments = parser.parse_args()
    names = [name for name in arguments.sides if name != "theirs" or arguments.qtaft]
    print(
        f"{arguments.architecture}, {arguments.batch_size} images, PGD-{arguments.n_steps}, "
        f"{arguments.rounds} rounds, seed {arguments.seed}; python {platform.python_version()}, "
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{arguments.threads} threads",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(arguments.architecture, folder / "weights.safetensors", arguments.seed)
        sides = [start(side, folder / "weights.safetensors", arguments) for side in names]
        try:
            check(sides, folder)
            for count in range(arguments.rounds + 1):
                for side in sides:
                    found = side.ask("step")
                    print(f"{count} {side.name} {found['wall']:.2f} s", file=sys.stderr, flush=True)
                    if count:  # the first one of each warms up
                        side.steps.append(found)
        finally:
            for side in sides:
                side.process.kill()
                side.process.communicate()
        report(sides)


if __name__ == "__main__":
    main()
