"""What a run would do, and how long it would take, without doing it: `robustzs train --dry-run`.

Data, model, memory and disk are looked at as a run would look at them; one step is taken on one
batch, and its weights are thrown away; the attack that measures looks once at a batch of what is
held out. Nothing is written to the output folder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from robustzs.errors import ImageError, PreflightError
from robustzs.threat import format_size
from robustzs_training.assemble import Clock, Place, Say, Workshop, assemble
from robustzs_training.caption_features import distinct_captions
from robustzs_training.data.base import Examples, Keyed, SampleSource
from robustzs_training.estimate import MeasuringTime, export_seconds, time_measuring
from robustzs_training.finish import RUN_FOLDER
from robustzs_training.gain import check_measurable
from robustzs_training.loop.machine import lay_out
from robustzs_training.loop.preflight import PreflightReport, gib, image_size_of, preflight
from robustzs_training.loop.step import as_pixels
from robustzs_training.objective_options import CAPTIONED
from robustzs_training.recipe import Recipe
from robustzs_training.request import TrainRequest, check_output

_N_READ = 200
_READ_SECONDS = 15.0
_QUICK_SECONDS = 5.0
_PATIENCE_SECONDS = 60.0  # the first step also prepares kernels, so one more is worth a minute
_N_NAMED = 5
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was found.

    Attributes:
        lines: Titles and texts for people.
        document: The same for programs.
        problems: Why the run would not start; empty if it would.
    """

    lines: tuple[tuple[str, str], ...]
    document: dict[str, Any]
    problems: tuple[str, ...]


def make_plan(request: TrainRequest, *, say: Say) -> Plan:
    """Look at everything, and time one step.

    Args:
        request: As for the run.
        say: Takes notes of the data and the model.

    Raises:
        RobustZSError: The run could not even be put together.
    """
    recipe = request.resolve()
    check_output(request.output)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = Clock()
    shop = assemble(recipe, Place(device=device), clock=clock, keep_captions=False)
    notes = [*shop.notes, *check_measurable(shop)]
    for note in notes:
        say(note)
    data = data_report(shop.data)
    size = image_size_of(shop.objective, recipe)
    report = preflight(
        shop.objective, recipe, request.output / RUN_FOLDER, image_size=size, device=device
    )
    problems = _problems(report)
    times = None if problems else _take_times(shop, device, clock)
    document = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "data": {**data, "seconds_to_open": round(clock.seconds["data"], 3)},
        "steps": shop.steps,
        "steps_per_epoch": shop.loader.steps_per_epoch,
        "batch_size": recipe.run.batch_size,
        "image_size": list(size),
        "n_trained": report.n_trained,
        "memory": {"needed": report.memory_needed, "free": report.memory_free},
        "disk": {"needed": report.disk_needed, "free": report.disk_free},
        "device": str(device),
        **_times_record(times),
        "trees": [tree.name for tree in shop.trees],
        "problems": list(problems),
    }
    lines = _lines(shop, data, report, size, times)
    return Plan(lines=tuple(lines), document=document, problems=problems)


# ---- data ----------------------------------------------------------------------------------------


def data_report(data: SampleSource) -> dict[str, Any]:
    """Counts, and the first broken images of a spread of examples."""
    n = len(data)
    captions, rows = distinct_captions(data)
    without = captions.index("") if "" in captions else -1
    broken: list[dict[str, str]] = []
    n_read, start = 0, time.monotonic()
    for index in range(0, n, max(1, n // _N_READ)):
        if time.monotonic() - start > _READ_SECONDS:
            break
        n_read += 1
        try:
            data.read(index)
        except ImageError as error:
            key = data.key_of(index) if isinstance(data, Keyed) else f"example {index}"
            broken.append({"key": key, "reason": error.message})
    return {
        "n": n,
        "n_classes": None if data.labels is None else len(data.labels),
        "n_captioned": n - int((rows == without).sum()),
        "n_distinct_captions": len(captions) - (without >= 0),
        "n_read": n_read,
        "n_broken": len(broken),
        "first_broken": broken[:_N_NAMED],
        "digest": data.digest,
    }


# ---- one step ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one step, and of reading its images."""

    seconds: float
    load_seconds: float
    n_taken: int


def time_step(shop: Workshop, device: torch.device) -> StepTime:
    """Take one step, or a few if they are quick; the last one's time counts.

    The weights do not move, and ``torch.compile`` is left out.
    """
    recipe = shop.recipe
    start = time.monotonic()
    examples = next(iter(shop.loader.epoch(0)))
    load_seconds = time.monotonic() - start
    shop.loader.close()
    objective = shop.objective
    lay_out(objective, device, channels_last=recipe.run.channels_last)
    n_taken, total = 0, 0.0
    seconds = 0.0
    while total < (_QUICK_SECONDS if n_taken > 1 else _PATIENCE_SECONDS) and n_taken < 3:
        start = time.monotonic()
        for part in _parts(examples, recipe.run.accumulation):
            _one_step(shop, part, device, first=n_taken == 0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.monotonic() - start
        total += seconds
        n_taken += 1
    objective.zero_grad(set_to_none=True)
    return StepTime(seconds=seconds, load_seconds=load_seconds, n_taken=n_taken)


def _parts(examples: Examples, n_parts: int) -> list[Examples]:
    from robustzs_training.loop.contract import split

    return split(examples, n_parts)


def _one_step(shop: Workshop, examples: Examples, device: torch.device, *, first: bool) -> None:
    recipe, objective = shop.recipe, shop.objective
    dtype = _DTYPES.get(recipe.run.precision)
    half = torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
    batch = shop.to_batch(examples, device)
    pixels = as_pixels(batch.pixels, device, channels_last=recipe.run.channels_last)
    batch = replace(batch, pixels=pixels)
    objective.train()
    with half:
        if first:
            objective.begin_(batch)
        batch = objective.prepare(batch)
    with half:
        attack = recipe.attack.build(recipe.run.seed)
        perturbed = objective.perturb(batch, recipe.threat.build(), attack)
    with half:
        found = objective(batch, perturbed)
    found.total.backward()


def training_seconds(shop: Workshop, step: StepTime) -> float:
    """Of the whole run: reading goes on beside it where loader processes do it."""
    n_workers = shop.recipe.data.n_workers
    if n_workers == 0:
        return shop.steps * (step.seconds + step.load_seconds)
    return shop.steps * max(step.seconds, step.load_seconds / n_workers)


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of a run's parts; ``None`` for a part that it does not have."""

    data: float
    step: StepTime
    training: float
    measuring: MeasuringTime | None
    export: float | None

    @property
    def total(self) -> float:
        """Of all parts."""
        measuring = 0.0 if self.measuring is None else self.measuring.seconds
        return self.data + self.training + measuring + (self.export or 0.0)


def _take_times(shop: Workshop, device: torch.device, clock: Clock) -> Times:
    step = time_step(shop, device)
    return Times(
        data=clock.seconds["data"],
        step=step,
        training=training_seconds(shop, step),
        measuring=time_measuring(shop),
        export=export_seconds(shop),
    )


def _times_record(times: Times | None) -> dict[str, float | None]:
    names = ("step", "load", "training", "evaluation", "export", "total")
    found: list[float | None] = [None] * len(names)
    if times is not None:
        measuring = None if times.measuring is None else times.measuring.seconds
        found = [times.step.seconds, times.step.load_seconds, times.training]
        found += [measuring, times.export, times.total]
    return {f"{name}_seconds": value for name, value in zip(names, found, strict=True)}


# ---- for people ----------------------------------------------------------------------------------


def _problems(report: PreflightReport) -> tuple[str, ...]:
    try:
        report.check()
    except PreflightError as error:
        return (str(error),)
    return ()


def _lines(
    shop: Workshop,
    data: dict[str, Any],
    report: PreflightReport,
    size: tuple[int, int],
    times: Times | None,
) -> list[tuple[str, str]]:
    recipe = shop.recipe
    attack, threat = recipe.attack, recipe.threat
    lines = [
        ("recipe", f"{recipe.name}: {recipe.summary}".rstrip(": ")),
        ("data", _data_line(data)),
        *[("  broken", f"{each['key']}: {each['reason']}") for each in data["first_broken"]],
    ]
    if recipe.objective.name in CAPTIONED:
        lines.append(
            ("captions", f"{data['n_captioned']} of {data['n']}, {data['n_distinct_captions']} "
             "different")
        )  # fmt: skip
        if 2 * data["n_distinct_captions"] < recipe.run.batch_size:
            lines.append(
                ("  repeated", f"{recipe.run.batch_size} images of a batch share so few captions "
                 "that they are each other's negatives; richer captions (robustzs caption) help")
            )  # fmt: skip
    lines += [
        ("model", f"{shop.source.source.description}; {report.n_trained / 1e6:.1f} million "
         f"numbers train, at {size[0]} x {size[1]} pixels"),
        ("attack", f"{threat.norm} eps {format_size(threat.eps)}, {attack.n_steps} "
         f"step{'s' * (attack.n_steps != 1)} of {255.0 * attack.step_size:.3g}/255"),
        ("length", f"{shop.steps} steps of {recipe.run.batch_size} images, "
         f"{shop.steps / shop.loader.steps_per_epoch:.3g} epochs"),
        ("memory", f"about {gib(report.memory_needed)} for a step; {gib(report.memory_free)} free "
         f"on {report.device}"),
        ("disk", f"at most {gib(report.disk_needed)}; {gib(report.disk_free)} free"),
    ]  # fmt: skip
    if shop.trees:
        lines.append(("trees", f"{len(shop.trees)}: {', '.join(t.name for t in shop.trees)}"))
    if times is not None:
        lines += _time_lines(shop, times)
    return lines


def _data_line(data: dict[str, Any]) -> str:
    classes = "no classes" if data["n_classes"] is None else f"{data['n_classes']} classes"
    bad = f"{data['n_broken']} broken" if data["n_broken"] else "none broken"
    return f"{data['n']} images, {classes}; {bad} of {data['n_read']} that were read"


def _time_lines(shop: Workshop, times: Times) -> list[tuple[str, str]]:
    step = times.step
    taken = "one step" if step.n_taken == 1 else f"the last of {step.n_taken} steps"
    reading = f"reading a batch took {step.load_seconds:.2g} s"
    lines = [
        ("time", f"about {duration(times.training)} of training: {taken} on one batch took "
         f"{step.seconds:.2g} s here, and {reading}; one process, nothing else running"),
        ("  then", _measuring_line(shop.recipe, times.measuring)),
    ]  # fmt: skip
    if times.export is not None:
        lines.append(
            ("  then", f"about {duration(times.export)} of export: by the size of the model")
        )
    return [*lines, ("in all", f"about {duration(times.total)}")]


def _measuring_line(recipe: Recipe, found: MeasuringTime | None) -> str:
    part = recipe.evaluate
    if part is None or found is None:
        return "nothing is measured"
    return (
        f"about {duration(found.seconds)} of measuring: {found.n} images before and after, APGD-CE "
        f"with {part.n_steps} iterations at eps {format_size(part.eps)}; {found.fraction_right:.0%}"
        f" of {found.n_tried} are right now, one look at these took {found.look_seconds:.2g} s, "
        f"and one that withstands is looked at {found.n_looks} times"
    )


def duration(seconds: float) -> str:
    """A time as people say it."""
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
