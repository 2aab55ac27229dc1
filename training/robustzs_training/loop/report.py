"""What people see of a run: a bar or lines on stderr, metrics.jsonl, TensorBoard, Weights & Biases.

Only the main process has these; the others get a reporter that says nothing.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustzs.errors import MissingExtraError, TrainingError
from robustzs_training.recipe import Recipe

METRICS = "metrics.jsonl"


class MetricsFile:
    """One JSON object a line, one line a reported step, none twice."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resume(self, step: int) -> None:
        """Drop what was reported after ``step``, and a line that was cut off."""
        if not self.path.exists():
            return
        kept = [line for line, found in _lines(self.path) if found["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        temporary.replace(self.path)

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a line; a number that is not finite, which JSON lacks, becomes ``null``.

        Raises:
            TrainingError: The disk refuses.
        """
        line = {key: value if _is_json(value) else None for key, value in values.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{self.path} cannot be written: {error}",
                hint="free disk space, then start the same command again: it goes on from the "
                "last checkpoint",
            ) from error


def _is_json(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            found.append((line, values))
    return found


def start_trackers(recipe: Recipe, output: Path, *, step: int, run_id: str) -> list[Any]:
    """Accelerate's trackers that the recipe names; a resumed run goes on in the same place.

    Raises:
        MissingExtraError: ``wandb`` is not installed.
    """
    from accelerate.tracking import TensorBoardTracker, WandBTracker
    from accelerate.utils import is_wandb_available

    found: list[Any] = []
    for name in recipe.run.trackers:
        if name == "tensorboard":
            # What was written after the step that the run goes on from is hidden.
            purge = {"purge_step": step + 1} if step else {}
            found.append(TensorBoardTracker("tensorboard", output, **purge))
            continue
        if not is_wandb_available():
            raise MissingExtraError("wandb", "wandb")
        found.append(
            WandBTracker("robustzs", name=recipe.name, id=run_id, resume="allow", dir=str(output))
        )
    for tracker in found:
        tracker.start()
    for tracker in found:
        if tracker.name == "wandb":
            tracker.store_init_configuration(recipe.model_dump(mode="json"))
    return found


class Reporter:
    """Shows a run.

    Args:
        n_steps: Of the whole run.
        metrics: The file of numbers, or ``None`` in a process that reports nothing.
        trackers: Accelerate's, started.
        show: Whether stderr is written to at all.
    """

    def __init__(
        self, n_steps: int, metrics: MetricsFile | None, trackers: list[Any], *, show: bool
    ) -> None:
        self.n_steps = n_steps
        self._metrics = metrics
        self._trackers = trackers
        self._show = show and metrics is not None
        self._bar: Any = None
        self._task: Any = None

    def begin(self, step: int) -> None:
        """Show the bar, at ``step``, where a person watches."""
        if not (self._show and sys.stderr.isatty()):
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
        text = TextColumn("{task.fields[numbers]}")
        self._bar = Progress(TextColumn("step"), *columns, text, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=self.n_steps, completed=step, numbers="")
        self._bar.start()

    def advance(self, step: int) -> None:
        """``step`` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def numbers(self, step: int, values: Mapping[str, float], remaining: float) -> None:
        """Report the numbers of a step; ``remaining`` seconds are left."""
        if self._metrics is not None:
            self._metrics.append({"step": step, **values})
        for tracker in self._trackers:
            tracker.log(dict(values), step=step)
        text = describe(values)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=text)
        elif self._show:
            self.note(f"step {step}/{self.n_steps}  {text}  left {_duration(remaining)}")

    def note(self, text: str) -> None:
        """Tell people something in a line."""
        if not self._show:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the terminal and the trackers in order."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        for tracker in self._trackers:
            tracker.finish()
        self._trackers = []


_SHOWN_ELSEWHERE = {"learning_rate", "seconds", "images_per_second", "epoch", "grad_norm", "loss"}


def describe(values: Mapping[str, float]) -> str:
    """``loss 2.31  l2 0.50  clean 71%  adversarial 33%  lr 1e-05  24.1 images/s``."""
    parts = [f"loss {values['loss']:.4g}"]
    margins = [value for name, value in values.items() if name.startswith("margin_level_")]
    if margins:
        parts.append("margins from the leaves up " + " ".join(f"{each:.3g}" for each in margins))
    for name, value in values.items():
        if "_level_" in name:  # too many for a line; metrics.jsonl has them
            continue
        if name.endswith("_accuracy"):
            parts.append(f"{name.removesuffix('_accuracy')} {value:.0%}")
        elif name not in _SHOWN_ELSEWHERE:
            parts.append(f"{name} {value:.4g}")
    parts.append(f"lr {values['learning_rate']:.3g}")
    parts.append(f"{values['images_per_second']:.3g} images/s")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    return (
        time.strftime("%H:%M:%S", time.gmtime(seconds))
        if seconds < 86400
        else (f"{seconds / 86400:.1f} days")
    )
