"""What `robustzs train` does, once its options are read.

Under ``torchrun`` every process trains; the first one alone measures, exports and speaks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from filelock import FileLock, Timeout

from robustzs.bundle.manifest import MANIFEST_NAME
from robustzs.bundle.store import Bundle
from robustzs.errors import RobustZSError, TrainingStateError, UsageError
from robustzs_training.assemble import Clock, Place, Say, Workshop, assemble
from robustzs_training.finish import RUN_FOLDER, SUMMARY, calibration_note, write_bundle
from robustzs_training.gain import NOT_MEASURED, check_measurable, measure_gain
from robustzs_training.loop import RunResult, Trainer
from robustzs_training.loop.machine import make_accelerator
from robustzs_training.loop.preflight import check_writable
from robustzs_training.loop.trainer import LOCK
from robustzs_training.objectives import Objective
from robustzs_training.recipe import Recipe
from robustzs_training.request import TrainRequest, check_output

Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
_CLOCK = "seconds.json"


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """How it went.

    Attributes:
        summary: What stands in ``summary.json``; ``None`` in processes that do not write it, and
            of a run that was interrupted.
        is_main: Whether this process speaks.
        interrupted: Stopped by a signal; the same command goes on.
        was_finished: The run had ended before, and nothing was done.
        steps: That the weights have seen.
    """

    summary: dict[str, Any] | None
    is_main: bool
    interrupted: bool = False
    was_finished: bool = False
    steps: int = 0


def choose_device(device: str) -> None:
    """Make ``--device`` so, before anything touches a GPU.

    Raises:
        UsageError: There is no such device.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif device == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here", hint="leave --device away, or cpu")
    elif device not in ("auto", "cuda"):
        raise UsageError(
            f"--device {device!r}",
            hint="cpu, cuda or auto; CUDA_VISIBLE_DEVICES chooses among several GPUs",
        )


@contextmanager
def _unseen(what: str) -> Iterator[Callable[[int, int], None]]:
    del what
    yield lambda done, total: None


def run_train(
    request: TrainRequest,
    *,
    say: Say = print,
    progress: Progress = _unseen,
    own: type[Objective] | None = None,
) -> TrainOutcome:
    """Train, measure, export.

    Args:
        request: The options.
        say: Takes a line for people; used by the main process alone.
        progress: Shows how far a part is; used by the main process alone.
        own: A class to train with instead of the recipe's objective; see
            :func:`robustzs_training.factory.build_objective`.

    Raises:
        RobustZSError: Whatever cannot be read, trained, measured or written.
    """
    recipe, output = request.resolve(), request.output
    if own is not None:
        recipe = recipe.model_copy(update={"own_objective": f"{own.__module__}.{own.__qualname__}"})
    check_output(output)
    finished = _finished(recipe, output) if request.resume else None
    if finished is not None:
        return TrainOutcome(
            summary=finished,
            is_main=os.environ.get("RANK", "0") == "0",
            was_finished=True,
            steps=int(finished["steps"]),
        )
    check_writable(output / RUN_FOLDER)  # captions may take hours to encode before the loop looks
    clock = Clock()
    accelerator = make_accelerator(recipe.run)
    is_main = accelerator.is_main_process
    tell = say if is_main else _silent
    shop = _open_shop(request, recipe, accelerator, clock, tell, progress, own)
    result = _train(shop, accelerator, output, clock)
    if is_main:
        clock = _all_starts(clock, output)
    if result.interrupted or not is_main:
        return TrainOutcome(
            summary=None, is_main=is_main, interrupted=result.interrupted, steps=result.steps
        )
    summary = conclude(shop, result, output, clock, progress=progress, say=tell)
    return TrainOutcome(summary=summary, is_main=True, steps=result.steps)


def _open_shop(
    request: TrainRequest,
    recipe: Recipe,
    accelerator: Accelerator,
    clock: Clock,
    say: Say,
    progress: Progress,
    own: type[Objective] | None,
) -> Workshop:
    """Everything before the first step, and what people should know of it."""
    place = Place(
        device=accelerator.device,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    with progress("captions") as report:
        shop = assemble(
            recipe, place, clock=clock, report=report if place.is_main else None, own=own
        )
    for note in shop.notes:
        say(note)
    if place.is_main:
        for note in check_measurable(shop):
            say(note)
        if not request.resume:
            _start_over(request.output)
    accelerator.wait_for_everyone()
    return shop


def _train(shop: Workshop, accelerator: Accelerator, output: Path, clock: Clock) -> RunResult:
    """All steps; afterwards every process is on its own."""
    trainer = Trainer(
        shop.objective,
        shop.loader,
        shop.recipe,
        output / RUN_FOLDER,
        to_batch=shop.to_batch,
        provenance=_provenance(shop),
        accelerator=accelerator,
        progress=accelerator.is_main_process,
    )
    with clock.counts("training"):
        result = trainer.run()
    shop.loader.close()
    _leave_group()
    return result


def conclude(
    shop: Workshop,
    result: RunResult,
    output: Path,
    clock: Clock,
    *,
    progress: Progress,
    say: Say,
) -> dict[str, Any]:
    """Measure, export and write ``summary.json``: of the trained model in ``shop``."""
    recipe = shop.recipe
    measured = dict(NOT_MEASURED)
    if recipe.evaluate is not None:
        with clock.counts("evaluation"), progress("measuring") as report:
            measured = measure_gain(shop, report=report, say=say)
    summary: dict[str, Any] = {
        "schema_version": 1,
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "objective": _objective_record(recipe),
        "threat": str(recipe.threat.build()),
        "model": shop.source.source.description,
        "data": _data_record(shop),
        "asked": _asked(recipe),
        "steps": result.steps,
        "images_seen": result.steps * recipe.run.batch_size,
        "final": dict(result.final_terms),
        **measured,
        "bundle": None,
    }
    if recipe.export.enabled:
        with clock.counts("export"):
            bundle = write_bundle(
                recipe,
                shop.source,
                shop.objective,
                output,
                steps=result.steps,
                training=_training_record(shop, result, measured),
                data=shop.data,
                say=say,
            )
        summary["bundle"] = {"name": bundle.manifest.name, "digest": bundle.digest}
    summary["seconds"] = {name: round(value, 3) for name, value in sorted(clock.seconds.items())}
    write_json(output / SUMMARY, summary)
    return summary


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document at once: the old one stays until the new one is whole.

    Raises:
        TrainingStateError: The disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainingStateError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="free disk space, then start the same command again",
        ) from error


# ---- parts ---------------------------------------------------------------------------------------


def _silent(line: str) -> None:
    del line


def _finished(recipe: Recipe, output: Path) -> dict[str, Any] | None:
    """The summary of a run of this recipe that came to its end, bundle and all."""
    try:
        found = json.loads((output / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("recipe_digest") != recipe.digest:
        return None
    asked, answered = _asked(recipe), found.get("asked")
    if recipe.evaluate is None and isinstance(answered, dict):  # numbers are kept where they are
        asked["evaluate"] = answered.get("evaluate")
    if asked != answered or not isinstance(found.get("steps"), int):
        return None
    if recipe.export.enabled:
        try:
            digest = Bundle.load(output, verify=False).digest
        except RobustZSError:
            return None
        if digest != (found.get("bundle") or {}).get("digest"):
            return None
    return found


def _asked(recipe: Recipe) -> dict[str, Any]:
    """What decides a summary beside the weights: where the data lie, and what follows training."""
    full = recipe.document()
    places = {key: full["data"][key] for key in ("path", "captions")}
    return {"data": places, "evaluate": full["evaluate"], "export": full["export"]}


def _start_over(output: Path) -> None:
    """Remove an earlier run, unless a process is at it."""
    run = output / RUN_FOLDER
    if not run.is_dir():
        return
    try:
        with FileLock(run / LOCK, timeout=0):
            (output / SUMMARY).unlink(missing_ok=True)
            (output / MANIFEST_NAME).unlink(missing_ok=True)
            for path in run.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
    except Timeout as error:
        raise TrainingStateError(
            f"another process is training in {output}",
            hint="wait for it, or name a new folder for --output",
        ) from error
    except OSError as error:
        raise TrainingStateError(
            f"the old run in {output} cannot be removed: {error.strerror or error}",
            hint="name a new folder for --output",
        ) from error


def _leave_group() -> None:
    """Leave the other processes: what follows is one process's work, and may take long."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _all_starts(clock: Clock, output: Path) -> Clock:
    """Seconds of this start added to those of earlier ones, and kept."""
    path = output / RUN_FOLDER / _CLOCK
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        earlier = {}
    total = {
        name: float(earlier.get(name, 0.0)) + clock.seconds.get(name, 0.0)
        for name in {*earlier, *clock.seconds}
    }
    write_json(path, total)
    return Clock(total)


def _provenance(shop: Workshop) -> dict[str, Any]:
    manifest = shop.source.manifest
    return {
        "model": shop.source.source.model_dump(mode="json"),
        "bundle": None if manifest is None else manifest.name,
        "notes": list(shop.notes),
    }


def _objective_record(recipe: Recipe) -> dict[str, Any]:
    if recipe.own_objective is not None:
        return {"name": recipe.own_objective}
    return recipe.objective.model_dump(mode="json")


def _data_record(shop: Workshop) -> dict[str, Any]:
    labels = shop.data.labels
    return {
        "source": shop.recipe.data.source,
        "n": len(shop.data),
        "n_classes": None if labels is None else len(labels),
        "trees": [tree.name for tree in shop.trees],
        "digest": shop.data.digest,
        "trouble": shop.loader.trouble.summary(),
    }


def _training_record(
    shop: Workshop, result: RunResult, measured: Mapping[str, Any]
) -> dict[str, Any]:
    """For ``bundle.json``: nothing of time and place, so that equal runs give equal bundles."""
    recipe, manifest = shop.recipe, shop.source.manifest
    record: dict[str, Any] = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "settings": {k: v for k, v in recipe.decisive().items() if k != "model"},
        "threat": str(recipe.threat.build()),
        "steps": result.steps,
        "images_seen": result.steps * recipe.run.batch_size,
        "data": {
            "n": len(shop.data),
            "digest": shop.data.digest,
            "trees": [tree.name for tree in shop.trees],
        },
        "calibration": calibration_note(shop.source, shop.objective),
        "notes": list(shop.notes),
        "evaluation": _without_seconds(measured),
    }
    if manifest is not None:
        record["trained_from"] = {"name": manifest.name, "training": manifest.training}
    if shop.start is not None:
        record["started_from"] = {"name": shop.start.name, "training": shop.start.training}
    return record


def _without_seconds(measured: Mapping[str, Any]) -> dict[str, Any] | None:
    if measured.get("after") is None:
        return None
    return {
        name: {k: v for k, v in part.items() if k != "seconds"}
        for name, part in measured.items()
        if isinstance(part, Mapping)
    }
