"""The service beside the same work without HTTP, a plain server and infinity.

    python -m benchmarks.service.compare [--rounds 5] [--seconds 6] [--infinity VENV]

All servers run at once and are asked in turn, round by round, so that what else the machine does
meets all of them alike; one that is not asked does nothing. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.service.load import Load, put_load
from benchmarks.service.pictures import FORM, make_pictures, write_embedding_calls, write_forms
from benchmarks.service.raw import Arrangement, RawRun, RawWorkers, workers
from benchmarks.service.servers import Server, running
from robustzs.backends.threads import available_cpus

CLIENTS = (1, 8, 64)
BATCHES = (1, 4, 8, 16)


@dataclass
class Side:
    """A server under load.

    Attributes:
        name: in the table.
        load: puts load on it: clients, seconds.
        found: by number of clients, a run per round.
    """

    name: str
    load: Callable[[int, float], Load]
    found: dict[int, list[Load]] = field(default_factory=lambda: {n: [] for n in CLIENTS})


def best_raw(stack: ExitStack, pictures: Path, threads: int) -> tuple[Arrangement, RawWorkers]:
    """The arrangement that was fastest in a short try; its workers stay."""
    tried: list[tuple[float, Arrangement, RawWorkers]] = []
    for processes, each, ahead in ((threads, 1, False), (1, threads, True)):
        crew = stack.enter_context(
            workers("robustzs-lite", pictures, processes=processes, threads=each, ahead=ahead)
        )
        for batch in BATCHES:
            arrangement = Arrangement(processes, each, ahead, batch)
            rate = max(crew.run(batch, 2.0).rate for _ in range(2))
            print(f"  tried: {arrangement}: {rate:.1f} images/s", flush=True)
            tried.append((rate, arrangement, crew))
    _, arrangement, crew = max(tried, key=lambda one: one[0])
    return arrangement, crew


def ours(stack: ExitStack, folder: Path, name: str, model: str, **settings: str) -> Server:
    """`robustzs serve`, as it comes, but for the port and the folders."""
    command = [sys.executable, "-m", "robustzs", "serve", "--port", "{port}", "--model", model]
    return stack.enter_context(
        running(
            command,
            "/readyz",
            folder / f"{name}.log",
            ROBUSTZS_STORE_DIR=str(folder / "stored"),
            **settings,
        )
    )


def sides_of(
    stack: ExitStack, folder: Path, pictures: list[Path], arguments: argparse.Namespace
) -> Iterator[Side]:
    """Every server, started."""
    threads = str(arguments.threads)
    asked = write_forms(folder / "classify", pictures, hierarchy="wordnet")
    server = ours(stack, folder, "robustzs", "robustzs-lite", ROBUSTZS_THREADS=threads)
    yield Side("robustzs", _loader(server, "/v1/classify", asked, FORM))
    plain = stack.enter_context(
        running(
            [sys.executable, "-m", "uvicorn", "benchmarks.service.plain:app", "--port", "{port}"],
            "/health",
            folder / "plain.log",
            PLAIN_THREADS=threads,
            PLAIN_CACHE=str(folder / "class_features.npy"),
            OMP_NUM_THREADS=threads,
            HF_HUB_OFFLINE="1",
        )
    )
    form = write_forms(folder / "plain", pictures)
    tried = []
    for path in ("/classify", "/classify-async"):
        load = _loader(plain, path, form, FORM)
        rate = max(load(8, 4.0).rate for _ in range(2))
        print(f"  tried: plain {path}: {rate:.1f} requests/s", flush=True)
        tried.append((rate, load))
    yield Side("FastAPI + open_clip", max(tried, key=lambda one: one[0])[1])
    if arguments.infinity is None:
        return
    yield from vit_sides(stack, folder, pictures, arguments)


def vit_sides(
    stack: ExitStack, folder: Path, pictures: list[Path], arguments: argparse.Namespace
) -> Iterator[Side]:
    """A CLIP of the same weights in the service and in infinity, asked for features."""
    threads = str(arguments.threads)
    bundle, model = str(arguments.vit / "bundle"), str(arguments.vit / "hf")
    server = ours(stack, folder, "robustzs-vit", bundle, ROBUSTZS_THREADS=threads)
    asked = write_forms(folder / "embed", pictures, encoding="base64")
    yield Side("robustzs ViT-B/32", _loader(server, "/v1/embed", asked, FORM))
    command = [str(arguments.infinity / "bin" / "infinity_emb"), "v2", "--model-id", model]
    command += ["--served-model-name", "clip", "--port", "{port}", "--host", "127.0.0.1"]
    command += ["--engine", "torch", "--device", "cpu", "--dtype", "float32"]
    command += ["--batch-size", "16", "--no-bettertransformer", "--log-level", "warning"]
    infinity = stack.enter_context(
        running(
            command,
            "/health",
            folder / "infinity.log",
            HF_HUB_OFFLINE="1",
            DO_NOT_TRACK="1",
            INFINITY_ANONYMOUS_USAGE_STATS="0",
            OMP_NUM_THREADS=threads,
            PYTHONPATH="",
        )
    )
    calls = write_embedding_calls(folder / "infinity", pictures, "clip")
    yield Side("infinity ViT-B/32", _loader(infinity, "/embeddings", calls, "application/json"))


def _loader(
    server: Server, path: str, bodies: Path, content_type: str
) -> Callable[[int, float], Load]:
    def load(clients: int, seconds: float) -> Load:
        return put_load(server, path, bodies, content_type, clients=clients, seconds=seconds)

    return load


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--infinity", type=Path, help="a virtual environment with infinity_emb")
    parser.add_argument("--vit", type=Path, help="folder of benchmarks.service.vit")
    arguments = parser.parse_args()
    print(
        f"python {platform.python_version()}, {os.cpu_count()} CPUs, {arguments.threads} threads "
        f"on each side, {arguments.rounds} rounds of {arguments.seconds:g} s"
    )
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        pictures = make_pictures(folder / "pictures")
        arrangement, crew = best_raw(stack, folder / "pictures", arguments.threads)
        print(f"raw: {arrangement}", flush=True)
        sides = list(sides_of(stack, folder, pictures, arguments))
        for side in sides:
            side.load(8, 4.0)
        raw: list[RawRun] = []
        for number in range(arguments.rounds):
            raw.append(crew.run(arrangement.batch, arguments.seconds))
            for clients in reversed(CLIENTS):
                for side in sides:
                    side.found[clients].append(side.load(clients, arguments.seconds))
            raw.append(crew.run(arrangement.batch, arguments.seconds))
            print(f"round {number + 1}, load average {os.getloadavg()[0]:.1f}", flush=True)
        report(raw, sides, arguments.threads)


def report(raw: list[RawRun], sides: Sequence[Side], threads: int) -> None:
    """The tables."""
    print("\nmedian (min-max) of the rounds          requests/s            p50 ms       p99 ms")
    print("                                                    CPU ms a request: server, generator")
    print(f"{'raw':<20}{'':<11}{_spread([run.rate for run in raw])}")
    print(f"{'':<31}CPU {_spread([1e3 * run.cpu / run.images for run in raw])}")
    for side in sides:
        for clients, runs in side.found.items():
            print(
                f"{side.name:<20}{clients:>3} clients {_spread([run.rate for run in runs])}"
                f"{_median([run.p50 for run in runs]):>9.1f}"
                f"{_median([run.p99 for run in runs]):>11.1f}"
                f"      CPU {_median([1e3 * run.server_cpu / run.requests for run in runs]):7.2f}"
                f"{_median([1e3 * run.own_cpu / run.requests for run in runs]):6.2f}"
                + (f"   {sum(run.failed for run in runs)} failed" * any(r.failed for r in runs))
            )
    by_name = {side.name: side.found for side in sides}
    around = [(a.rate + b.rate) / 2 for a, b in zip(raw[::2], raw[1::2], strict=True)]
    cpu = [
        (a.cpu + b.cpu) / (a.images + b.images) for a, b in zip(raw[::2], raw[1::2], strict=True)
    ]
    full = by_name["robustzs"][CLIENTS[-1]]
    print("\nratios, round by round: median (min-max)")
    _ratio("robustzs, 64 clients / raw", [r.rate for r in full], around)
    _ratio("  the generator's CPU apart", [r.rate_apart(threads) for r in full], around)
    _ratio("  by CPU time an image", cpu, [r.server_cpu / r.requests for r in full])
    for clients in CLIENTS:
        mine = [run.rate for run in by_name["robustzs"][clients]]
        theirs = [run.rate for run in by_name["FastAPI + open_clip"][clients]]
        _ratio(f"robustzs / FastAPI + open_clip, {clients} clients", mine, theirs)
    if "infinity ViT-B/32" in by_name:
        for clients in CLIENTS:
            mine = [run.rate for run in by_name["robustzs ViT-B/32"][clients]]
            theirs = [run.rate for run in by_name["infinity ViT-B/32"][clients]]
            _ratio(f"robustzs / infinity, ViT-B/32, {clients} clients", mine, theirs)


def _ratio(what: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    print(f"  {what:<50}{_median(ratios):6.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def _spread(values: Sequence[float]) -> str:
    return f"{_median(values):7.2f} ({min(values):6.2f}-{max(values):6.2f})"


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
