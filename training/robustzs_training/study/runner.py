"""Rows of the study, one after another: train, export, measure, write one JSON.

::

    OUTPUT/start/                      the start model at the study's resolution
    OUTPUT/ROW/seed-0/                 bundle, summary.json, run/ with checkpoints
    OUTPUT/ROW/seed-0/measured/        states of the measurements: sweep, full
    OUTPUT/results/ROW-seed0.json      what the report reads; ROW-seed0-full.json

Whatever stops a run, the same command goes on: within the training from its last checkpoint, within
the measurement from its last batch. What is finished is left alone.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from robustzs.bundle.store import Bundle
from robustzs.errors import CardError, DatasetNotFoundError, UsageError
from robustzs_training.command import run_train
from robustzs_training.evaluation.publish import versions
from robustzs_training.request import TrainRequest
from robustzs_training.study.measure import Measured, Pictures, Progress, Say, measure
from robustzs_training.study.protocol import Protocol
from robustzs_training.study.results import RowResult, read_result, result_path
from robustzs_training.study.rows import BASE, START, Row, find_row, places, title_of
from robustzs_training.study.start import MODEL, start_bundle

MEASURED = "measured"
TABLES = ("captions.parquet", "held_out.csv")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all rows of one output have in common.

    Attributes:
        pictures: Where the pictures lie.
        output: Folder of everything.
        protocol: How rows are measured.
        seed: Of the training.
        changes: Of the recipe, for all rows: ``schedule.steps=300``.
        model: The start model.
        resume: Go on with what is there; otherwise rows that are named start over.
    """

    pictures: Pictures
    output: Path
    protocol: Protocol
    seed: int = 0
    changes: tuple[str, ...] = ()
    model: str = MODEL
    resume: bool = True

    def asked(self, row: Row | None) -> dict[str, Any]:
        """What decides a row's numbers, as JSON values."""
        changes = [] if row is None else [*row.all_changes(), *self.changes]
        return {
            "model": self.model,
            "changes": changes,
            "pictures": pictures_digest(self.pictures),
            "protocol": self.protocol.record(),
        }


def pictures_digest(pictures: Pictures) -> str:
    """Of names, labels and captions: tells whether other pictures lie in the same folder.

    Raises:
        DatasetNotFoundError: They are not there.
    """
    total = hashlib.sha256()
    for path in (*(pictures.data / name for name in TABLES), pictures.photographs):
        if not path.is_file():
            raise DatasetNotFoundError(
                f"there is no {path}",
                hint="`python -m robustzs_training.study.data --output DIR` makes the pictures, "
                "`python -m benchmarks.heldout_photos.export --output DIR` the photographs",
            )
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def run_rows(
    study: Study, names: Sequence[str], *, say: Say, progress: Progress
) -> list[RowResult]:
    """Train and measure rows, in the given order.

    Raises:
        KeyboardInterrupt: Stopped by a signal; the same call goes on.
        RobustZSError: Whatever cannot be read, trained, measured or written.
    """
    rows = [(name, find_row(name)) for name in names]
    for _, row in rows:  # what is misspelt is told before hours of work
        if row is not None:
            row.recipe([*places(study.pictures.data, study.model), *study.changes])
    pictures_digest(study.pictures)
    return [_run_row(study, name, row, say, progress) for name, row in rows]


def _run_row(study: Study, name: str, row: Row | None, say: Say, progress: Progress) -> RowResult:
    asked = study.asked(row)
    title = title_of(name)
    finished = _finished(study, name, asked)
    if finished is not None:
        say(f"{title}, seed {finished.seed}: finished before")
        return finished
    seed = study.seed if row is not None else 0
    say(f"{title}, seed {seed}")
    started = time.monotonic()
    start = start_bundle(
        study.output / "start", study.protocol.image_size, model=study.model
    ).resolve()
    seconds = {"start": time.monotonic() - started}
    folder = study.output / name / f"seed-{seed}"
    summary, recipe = None, None
    if row is not None:
        changes = (*row.all_changes(), *places(study.pictures.data, str(start)), *study.changes)
        request = TrainRequest(
            recipe=BASE, output=folder, changes=changes, seed=seed, resume=study.resume
        )
        recipe = request.resolve()
        outcome = run_train(request, say=lambda line: say(f"  {line}"), progress=progress)
        if outcome.interrupted or outcome.summary is None:
            raise KeyboardInterrupt
        summary = outcome.summary
        seconds |= {key: float(value) for key, value in summary["seconds"].items()}
        say(f"  trained: {outcome.steps} steps, {seconds.get('training', 0.0):.0f} s")
    model = folder if row is not None else start
    measured = measure(
        model,
        study.pictures,
        study.protocol,
        folder / MEASURED / study.protocol.name,
        say=say,
        progress=progress,
        resume=study.resume,
    )
    seconds["evaluation"] = _evaluation_seconds(measured)
    seconds["this command"] = time.monotonic() - started
    result = RowResult(
        row=name,
        title=title,
        seed=seed,
        asked=asked,
        recipe=None if recipe is None else recipe.document(),
        recipe_digest=None if recipe is None else recipe.digest,
        bundle=Bundle.load(model, verify=False).digest,
        training=None if summary is None else _training(summary),
        cards=measured.cards,
        clean=measured.clean,
        seconds={key: round(value, 1) for key, value in seconds.items()},
        versions=versions(),
        machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    path = result.write(study.output)
    say(f"  written: {path} ({time.monotonic() - started:.0f} s)")
    return result


def _finished(study: Study, name: str, asked: Mapping[str, Any]) -> RowResult | None:
    """The row as it was finished by the very same request.

    Raises:
        UsageError: It was finished by another one.
    """
    seed = study.seed if name != START else 0
    path = result_path(study.output, name, seed, full=study.protocol.full)
    if not study.resume or not path.is_file():
        return None
    try:
        found = read_result(path)
    except CardError:
        return None  # of an older version, or damaged: made again
    if found.asked != dict(asked):
        differing = sorted(key for key in asked if found.asked.get(key) != asked[key])
        raise UsageError(
            f"{path} was made with other {', '.join(differing) or 'settings'}",
            hint="name another --output, or --fresh to do the row again",
        )
    return found


def _evaluation_seconds(measured: Measured) -> float:
    return sum(card.timings.seconds for card in measured.cards.values() if card.timings)


def _training(summary: Mapping[str, Any]) -> dict[str, Any]:
    names = ("steps", "images_seen", "final", "data", "threat", "objective")
    return {name: summary[name] for name in names}
