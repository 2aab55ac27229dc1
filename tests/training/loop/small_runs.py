"""Runs of seconds: a tiny model, examples in memory, recipes with few steps.

``python -m tests.training.loop.small_runs OUTPUT NAME [JSON]`` is one run in a process of its own:
``NAME`` is an objective (several with commas: a folder for each), the JSON overrides the recipe.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from robustzs_training.data.base import Examples
from robustzs_training.loop import RunResult, Trainer
from robustzs_training.objectives import Batch, Fare, Objective
from robustzs_training.processes import rank, world_size
from robustzs_training.recipe import Recipe

from tests.training.tiny_models import make_adapter, make_pixels, make_tokens

N_CLASSES = 7


class Counted:
    """Counts nothing but what it is told."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = int(state["count"])


class MemoryLoader:
    """Random images with labels, in an order that the epoch decides."""

    def __init__(
        self,
        batch_size: int,
        *,
        n: int = 24,
        size: int = 16,
        seed: int = 5,
        pause: float = 0.0,
        stop_at: int | None = None,
    ) -> None:
        self.pixels = (make_pixels(n, size, seed=seed) * 255).round().to(torch.uint8)
        self.labels = torch.arange(n) % N_CLASSES
        self.batch_size = batch_size
        self.trouble = Counted()
        self.pause = pause
        self.stop_at = stop_at

    @property
    def steps_per_epoch(self) -> int:
        return len(self.labels) // self.batch_size

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.pixels.numpy().tobytes()).hexdigest()

    def epoch(self, epoch: int, *, skip: int = 0) -> Iterator[Examples]:
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(epoch))
        share = self.batch_size // world_size()
        for step in range(skip, self.steps_per_epoch):
            start = step * self.batch_size + rank() * share
            rows = order[start : start + share]
            self.trouble.count += 1
            time.sleep(self.pause)
            if epoch * self.steps_per_epoch + step + 1 == self.stop_at and rank() == 0:
                signal.raise_signal(signal.SIGTERM)  # to this process alone
            yield Examples(
                indices=rows,
                keys=tuple(f"image-{row}" for row in rows.tolist()),
                pixels=self.pixels[rows],
                labels=self.labels[rows],
            )


def to_batch(examples: Examples, device: torch.device) -> Batch:
    assert examples.labels is not None
    tokens = make_tokens(64, seed=3)[examples.indices]
    return Batch(
        pixels=examples.pixels,
        labels=examples.labels.to(device),
        caption_ids=tokens.to(device),
    )


def make_recipe(**parts: Mapping[str, Any]) -> Recipe:
    """Six steps of four images; ``run={"seed": 3}`` changes one setting."""
    document: dict[str, dict[str, Any]] = {
        "model": {"source": "tiny"},
        "data": {"source": "folder"},
        "objective": {"name": "fare"},
        "threat": {"eps": "4/255"},
        "attack": {"n_steps": 2, "step_size": "2/255", "momentum": 0.9},
        "optimizer": {"lr": 1e-3, "weight_decay": 1e-2},
        "schedule": {"warmup_steps": 2, "steps": 6},
        "run": {
            "batch_size": 4,
            "precision": "fp32",
            "checkpoint_every": 2,
            "log_every": 1,
            "trackers": [],
        },
        "export": {"enabled": False},
    }
    for name, changes in parts.items():
        document[name] = {**document.get(name, {}), **changes}
    return Recipe.model_validate({"name": "small", **document})


def make_objective(name: str = "fare") -> Objective:
    """Fresh, in float32: FARE on a CNN, or any of those in two_processes.py."""
    if name == "fare-cnn":
        return Fare(make_adapter("cnn"))
    from tests.training.objectives.two_processes import build

    return build(name).float()


def make_trainer(
    output: Path,
    recipe: Recipe | None = None,
    *,
    objective: Objective | None = None,
    loader: MemoryLoader | None = None,
    **options: Any,
) -> Trainer:
    recipe = recipe or make_recipe()
    return Trainer(
        objective or make_objective(),
        loader or MemoryLoader(recipe.run.batch_size),
        recipe,
        output,
        to_batch=to_batch,
        provenance={"note": "a test"},
        **{"progress": False, **options},
    )


def weights(objective: Objective) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in objective.trainable().items()}


def metrics(output: Path) -> list[dict[str, Any]]:
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def main() -> None:
    """One run, or one after another; says how each ended on stdout."""
    output, names = Path(sys.argv[1]), sys.argv[2].split(",")
    given = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    torch.set_num_threads(1)
    for name in names:
        result = run_one(output if len(names) == 1 else output / name, name, given, progress=True)
        if rank() == 0:
            json.dump({"steps": result.steps, "interrupted": result.interrupted}, sys.stdout)
            sys.stdout.flush()
    if world_size() > 1:
        torch.distributed.destroy_process_group()


def run_one(
    output: Path, name: str, given: Mapping[str, Any], *, progress: bool = False
) -> RunResult:
    """Train an objective by name; ``options`` of ``given`` are not the recipe's."""
    options = given.get("options", {})
    recipe = make_recipe(**{key: value for key, value in given.items() if key != "options"})
    objective = make_objective(name)
    if options.get("double"):
        objective.double()
    loader = MemoryLoader(
        recipe.run.batch_size,
        size=32 if name == "fare-cnn" else 16,
        pause=options.get("pause", 0.0),
        stop_at=options.get("stop_at"),
    )
    return make_trainer(output, recipe, objective=objective, loader=loader, progress=progress).run()


if __name__ == "__main__":
    main()
