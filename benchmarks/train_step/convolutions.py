"""What a FARE step on robustzs-lite-clean costs on a CPU, with and without what makes it faster.

    python -m benchmarks.train_step.convolutions [--batch-size 16] [--rounds 5] [--threads 1]

Each variant lives in a process of its own (how memory is kept cannot be taken back) and takes its
steps in turn with the others. Seconds are those of the processor, the kernel's share included;
ratios are those of the same round. The picture size is 224, the attack has one step.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch

# Name -> precision, quick depthwise gradients, kept memory.
VARIANTS = {
    "bf16": ("bf16", True, True),
    "bf16, memory given back": ("bf16", True, False),
    "bf16, PyTorch's depthwise gradients": ("bf16", False, True),
    "bf16, neither": ("bf16", False, False),
    "fp32": ("fp32", True, True),
    "fp32, memory given back": ("fp32", True, False),
}


def work(name: str, batch_size: int, threads: int) -> None:
    """Take a step for every line on stdin; print CPU seconds and peak memory in MB."""
    import resource

    from robustzs_training import adapter
    from robustzs_training.allocator import keep_freed_memory
    from robustzs_training.export.sources import SourceRequest, load_source
    from robustzs_training.factory import adapter_of
    from robustzs_training.objectives import Batch, Fare

    precision, quick, kept = VARIANTS[name]
    torch.set_num_threads(threads)
    if kept:
        keep_freed_memory()
    if not quick:
        adapter.quicken_depthwise = lambda model: None  # type: ignore[assignment]
    objective = Fare(adapter_of(load_source(SourceRequest(model="robustzs-lite-clean"))))
    objective.to(memory_format=torch.channels_last)
    parameters = list(objective.model.visual_parameters().values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    torch.manual_seed(0)
    pixels = torch.rand(batch_size, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    lowered = precision == "bf16"
    for _ in sys.stdin:
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            batch = objective.prepare(Batch(pixels=pixels))
        for parameter in parameters:
            parameter.requires_grad_(False)
        moved = (pixels + 0.002).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            loss = objective.attack_loss(batch, {"pixels": moved})
        (gradient,) = torch.autograd.grad(loss, moved)
        attacked = (moved.detach() + 0.008 * gradient.sign()).clamp(0.0, 1.0)
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            total = objective.loss(batch, {"pixels": attacked}).total
        total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.process_time() - started
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", choices=list(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.batch_size, options.threads)
        return
    command = [sys.executable, "-m", "benchmarks.train_step.convolutions"]
    command += [f"--batch-size={options.batch_size}", f"--threads={options.threads}"]
    workers = {
        name: subprocess.Popen(
            [*command, f"--work={name}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in VARIANTS
    }
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    memory = dict.fromkeys(VARIANTS, 0.0)
    for number in range(2 + options.rounds):  # two that do not count
        for name, worker in workers.items():
            if worker.stdin is None or worker.stdout is None:
                raise RuntimeError("a worker without pipes")
            print(number, file=worker.stdin, flush=True)
            spent, peak = map(float, worker.stdout.readline().split())
            memory[name] = peak
            if number >= 2:
                seconds[name].append(1e3 * spent / options.batch_size)
    for worker in workers.values():
        worker.communicate()
    print("| | CPU ms a picture: median (min-max) | of plain bf16, round by round | peak MB |")
    print("|---|---|---|---|")
    plain = seconds["bf16, neither"]
    for name, spent_each in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(spent_each, plain, strict=True)]
        print(f"| {name} | {_spread(spent_each)} | {_spread(ratios)} | {memory[name]:.0f} |")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


if __name__ == "__main__":
    main()
