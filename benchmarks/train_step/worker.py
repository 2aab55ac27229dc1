"""One side in a process of its own, so that its memory is its own: steps on request.

Reads one command a line from standard input (``check FILE``, ``step``, ``quit``), answers each with
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.train_step.setting import Setting

SIDES = ("theirs", "ours-fp32", "ours-fp32-captions", "ours-bf16")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("architecture")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--qtaft", type=Path)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--n-steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = Setting(
        batch_size=arguments.batch_size, n_steps=arguments.n_steps, seed=arguments.seed
    )
    if arguments.side == "theirs":
        from benchmarks.train_step.theirs import Theirs

        side = Theirs(arguments.qtaft, arguments.weights, setting)
    else:
        from benchmarks.train_step.ours import Ours

        side = Ours(
            arguments.architecture,
            arguments.weights,
            setting,
            bf16=arguments.side == "ours-bf16",
            cache=arguments.side != "ours-fp32-captions",
        )
    answer = sys.stdout
    answer.write(json.dumps({"ready": True}) + "\n")
    answer.flush()
    for line in sys.stdin:
        command, *rest = line.split()
        reply: dict[str, float]
        if command == "quit":
            break
        if command == "check":
            start, end, images = side.check()
            np.save(rest[0], images.numpy())
            reply = {"start": start, "end": end}
        else:
            wall, cpu = time.perf_counter(), time.process_time()
            loss = side.step()
            reply = {
                "wall": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
                "loss": loss,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        answer.write(json.dumps(reply) + "\n")
        answer.flush()


if __name__ == "__main__":
    main()
