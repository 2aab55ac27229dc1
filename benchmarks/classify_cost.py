"""What `robustzs classify` costs, beside the same job in open_clip and torch.

    python -m benchmarks.classify_cost [--runs 5] [--photos 200] [--threads 2]

One photo: process start to exit, both sides warm (class features cached), runs taken in turn. Then
a folder of photos, and robustzs alone at a quarter, all and twice as many, to see whether memory
grows. Last, where the time of one run goes. Wall seconds, CPU seconds and peak resident memory are
the operating system's own account of each finished process (``wait4``).
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Cost:
    """One finished process."""

    wall: float
    cpu: float
    peak_mb: float


def measure(command: list[str], environment: dict[str, str]) -> Cost:
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=REPOSITORY
    )
    stderr = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[:4]} failed: {stderr.decode(errors='replace')[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compare(title: str, ours: list[str], theirs: list[str], runs: int, env: dict[str, str]) -> None:
    measure(ours, env), measure(theirs, env)  # warm both: file cache, class features
    pairs = [(measure(ours, env), measure(theirs, env)) for _ in range(runs)]
    print(f"\n{title}   ({runs} runs of each, taken in turn; median, min-max)")
    for name, costs in (("robustzs", [a for a, _ in pairs]), ("open_clip", [b for _, b in pairs])):
        print(
            f"  {name:<10}"
            + "   ".join(
                f"{field} {statistics.median(v):8.2f} ({min(v):.2f}-{max(v):.2f})"
                for field in ("wall", "cpu", "peak_mb")
                for v in [[getattr(cost, field) for cost in costs]]
            )
        )
    for field in ("wall", "peak_mb"):
        ratios = [getattr(a, field) / getattr(b, field) for a, b in pairs]
        print(f"  robustzs / open_clip, {field}: {statistics.median(ratios):.3f} (pair by pair)")


def make_photos(folder: Path, count: int) -> list[Path]:
    """Photos of different sizes and encodings, all cut from the shipped ones."""
    from PIL import Image

    sources = sorted(
        path for path in (REPOSITORY / "examples" / "photos").iterdir() if path.suffix != ".md"
    )
    images = [Image.open(path).convert("RGB") for path in sources]
    made = []
    for index in range(count):
        image = images[index % len(images)]
        width, height = image.size
        edge = 0.6 + 0.4 * (index / count)
        cut = image.crop((0, 0, int(width * edge), int(height * edge)))
        suffix = ("jpg", "png", "webp")[index % 3]
        path = folder / f"{index:04d}.{suffix}"
        buffer = io.BytesIO()
        cut.save(buffer, "JPEG" if suffix == "jpg" else suffix.upper())
        path.write_bytes(buffer.getvalue())
        made.append(path)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    photo = str(REPOSITORY / "examples" / "photos" / "chelsea.png")
    threads = str(arguments.threads)
    print(
        f"python {platform.python_version()}, {os.cpu_count()} CPUs, {threads} threads on each side"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {
            **os.environ,
            "ROBUSTZS_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": threads,
            "HF_HUB_OFFLINE": "1",
        }
        ours = [sys.executable, "-m", "robustzs", "classify", "--threads", threads]
        theirs = [sys.executable, "-m", "benchmarks.torch_reference", "--threads", threads]
        theirs += ["--cache", str(folder / "class_features.npy")]
        compare("one photo", [*ours, photo], [*theirs, photo], arguments.runs, env)

        pictures = folder / "photos"
        pictures.mkdir()
        made = make_photos(pictures, 2 * arguments.photos)
        some = [str(path) for path in made[: arguments.photos]]
        batch = ["--batch-size", "16"]
        few_runs = max(arguments.runs // 2, 2)
        compare(
            f"{arguments.photos} photos",
            [*ours, *batch, "--format", "jsonl", *some],
            [*theirs, *batch, *some],
            few_runs,
            env,
        )
        print("\nrobustzs alone, number of photos against peak memory")
        for count in (arguments.photos // 4, arguments.photos, 2 * arguments.photos):
            paths = [str(path) for path in made[:count]]
            cost = measure([*ours, *batch, "--format", "jsonl", *paths], env)
            speed = f"{cost.wall:7.2f} s   {count / cost.wall:6.1f} images/s"
            print(f"  {count:>5} photos   {speed}   {cost.peak_mb:7.1f} MB")

        print("\nwhere the time of one robustzs run goes")
        command = [sys.executable, "-m", "benchmarks.where_time_goes", photo, threads]
        subprocess.run(command, env=env, check=True, cwd=REPOSITORY)


if __name__ == "__main__":
    main()
