"""The training loop: one run of a recipe, from its first step or from its last checkpoint.

Several processes under ``torchrun`` do what one with the whole batch does: the loader gives each
its share, the attack's noise is drawn for the whole batch, in-batch contrasts see the images of
all processes. With ``run.accumulation`` each process goes through its share in parts, and an
in-batch contrast then sees one part (of every process) at a time: less memory, another loss.

Dropout and stochastic depth of the image tower, where its configuration has them, act in the loss
but not in the attack, as in FARE and QT-AFT; BatchNorm's statistics never move.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from filelock import FileLock, Timeout

from robustzs.errors import DivergenceError, PreflightError, TrainingError
from robustzs_training.data.base import Examples
from robustzs_training.loop.contract import ExampleStream, RunResult, ToBatch
from robustzs_training.loop.guard import Divergence, Guard, advice
from robustzs_training.loop.identity import Identity, identify
from robustzs_training.loop.machine import (
    compiled,
    explained,
    lay_out,
    make_accelerator,
    plain_after,
    wrap,
)
from robustzs_training.loop.optim import (
    build_average,
    build_optimizer,
    build_schedule,
    total_steps,
)
from robustzs_training.loop.preflight import CHECKPOINTS, image_size_of, preflight
from robustzs_training.loop.provenance import (
    PROVENANCE,
    read_provenance,
    write_provenance,
)
from robustzs_training.loop.report import METRICS, MetricsFile, Reporter, start_trackers
from robustzs_training.loop.state import Moving, capture, restore
from robustzs_training.loop.step import Stepper, StepReport
from robustzs_training.loop.stopping import StopRequest, stop_on_signals
from robustzs_training.loop.store import Checkpoint, CheckpointStore
from robustzs_training.objectives.base import Objective
from robustzs_training.processes import all_sum, world_size
from robustzs_training.recipe import Recipe

DIVERGENCE = "divergence.json"
LOCK = ".lock"


@dataclass
class _Run:
    """What exists only while a run goes on."""

    stepper: Stepper
    reporter: Reporter
    identity: Identity
    step: int
    n_steps: int
    values: dict[str, float]


class Trainer:
    """Trains an objective by a recipe.

    Leaves in ``output``: ``checkpoints/``, ``metrics.jsonl``, ``provenance.json``, ``recipe.yaml``,
    ``tensorboard/`` and, of a run that went wrong, ``divergence.json``. A run that finds its own
    checkpoints there goes on from the last one that is whole.

    Args:
        objective: With the weights that training starts from; afterwards it has the trained ones.
        loader: Examples; its batches are this process's share of ``recipe.run.batch_size``.
        recipe: The settings.
        output: The folder, for this run alone.
        to_batch: Adds to a part of a share what the objective needs.
        provenance: What else ``provenance.json`` tells.
        accelerator: From :func:`make_accelerator` when ``None``.
        progress: Write to stderr: a bar on a terminal, lines otherwise.
    """

    def __init__(
        self,
        objective: Objective,
        loader: ExampleStream,
        recipe: Recipe,
        output: Path,
        *,
        to_batch: ToBatch,
        provenance: Mapping[str, Any],
        accelerator: Accelerator | None = None,
        progress: bool = True,
    ) -> None:
        self.objective = objective
        self.loader = loader
        self.recipe = recipe
        self.output = output
        self.accelerator = accelerator or make_accelerator(recipe.run)
        self._to_batch = to_batch
        self._provenance = provenance
        self._progress = progress
        self._store = CheckpointStore(output / CHECKPOINTS, keep=recipe.run.keep_checkpoints)

    def run(self) -> RunResult:
        """Train to the end of the schedule, or until a signal.

        Raises:
            PreflightError: The machine does not suffice; found before the first step.
            TrainingStateError: ``output`` belongs to another run, or a checkpoint cannot be
                written; earlier ones stay.
            DivergenceError: The loss or its gradient went wrong; the weights are those of the last
                good step.
            TrainingError: Out of memory, or data that ends too early.
        """
        recipe, objective = self.recipe, self.objective
        identity = identify(recipe, self.loader.digest, objective)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._locked())
            self._check_owner(identity)
            lay_out(objective, self.accelerator.device, channels_last=recipe.run.channels_last)
            preflight(
                objective, recipe, self.output, image_size=image_size_of(objective, recipe)
            ).check()
            stack.enter_context(plain_after(objective, self.accelerator))
            stack.enter_context(compiled(objective, enabled=recipe.run.compile))
            stopping = stack.enter_context(stop_on_signals())
            run = self._start(identity)
            stack.callback(run.reporter.close)
            return self._loop(run, stopping)

    # ---- before the first step -------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep a second run out of the folder."""
        if not self.accelerator.is_main_process:
            yield
            return
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.output / LOCK, timeout=0)
            lock.acquire()
        except Timeout as error:
            raise PreflightError(
                f"another process is training in {self.output}",
                hint="wait for it, or choose another output folder",
            ) from error
        except OSError as error:
            raise PreflightError(
                f"{self.output} cannot be written to: {error}",
                hint="choose another output folder",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _check_owner(self, identity: Identity) -> None:
        found = read_provenance(self.output)
        if found is not None:
            identity.check(found.get("identity", {}), str(self.output / PROVENANCE))
        elif self._store.steps():
            raise PreflightError(
                f"{self.output} has checkpoints but no readable {PROVENANCE}",
                hint="choose an empty output folder",
            )

    def _start(self, identity: Identity) -> _Run:
        recipe, accelerator = self.recipe, self.accelerator
        set_seed(recipe.run.seed, device_specific=True)
        generator = torch.Generator(accelerator.device).manual_seed(recipe.run.seed)
        parameters = self.objective.trainable()
        n_steps = total_steps(recipe.schedule, self.loader.steps_per_epoch)
        optimizer = build_optimizer(recipe.optimizer, parameters)
        schedule = build_schedule(recipe.schedule, optimizer, n_steps)
        wrapped, optimizer = wrap(self.objective, optimizer, accelerator)
        moving = Moving(
            parameters=parameters,
            optimizer=optimizer,
            schedule=schedule,
            generator=generator,
            average=build_average(recipe.optimizer.ema_decay, parameters.values()),
            scaler=accelerator.scaler,
        )
        guard = Guard(recipe.run.divergence_factor, scaled=accelerator.scaler is not None)
        stepper = Stepper(
            self.objective, wrapped, moving, guard, recipe, self._to_batch, accelerator
        )
        notes: list[str] = []
        checkpoint = self._store.latest(notes.append)
        step = 0 if checkpoint is None else self._resume(checkpoint, identity, stepper)
        reporter = self._reporter(identity, step, n_steps)
        for note in notes:
            reporter.note(note)
        if step:
            reporter.note(f"going on from step {step} of {n_steps}")
        return _Run(stepper, reporter, identity, step, n_steps, self._last_values(step))

    def _resume(self, checkpoint: Checkpoint, identity: Identity, stepper: Stepper) -> int:
        state = checkpoint.state
        identity.check(state["identity"], str(checkpoint.path))
        restore(stepper.moving, checkpoint.tensors, state["moving"])
        stepper.guard.load_state_dict(state["guard"])
        self.loader.trouble.load_state_dict(state["trouble"])
        return checkpoint.step

    def _reporter(self, identity: Identity, step: int, n_steps: int) -> Reporter:
        if not self.accelerator.is_main_process:
            return Reporter(n_steps, None, [], show=False)
        metrics = MetricsFile(self.output / METRICS)
        try:
            metrics.resume(step)
            document = write_provenance(
                self.output, self.recipe, identity, self._provenance, n_processes=world_size()
            )
        except OSError as error:
            raise PreflightError(
                f"{self.output} cannot be written to: {error}",
                hint="free disk space or choose another output folder",
            ) from error
        trackers = start_trackers(self.recipe, self.output, step=step, run_id=document["run_id"])
        return Reporter(n_steps, metrics, trackers, show=self._progress)

    def _last_values(self, step: int) -> dict[str, float]:
        """What was last reported, for a run that has nothing left to do."""
        path = self.output / METRICS
        if step == 0 or not path.exists():
            return {}
        lines = path.read_text(encoding="utf-8").splitlines()
        return {k: v for k, v in json.loads(lines[-1]).items() if k != "step"} if lines else {}

    # ---- the loop --------------------------------------------------------------------------------

    def _loop(self, run: _Run, stopping: StopRequest) -> RunResult:
        recipe, first = self.recipe, run.step
        run.reporter.begin(first)
        begun, interrupted = time.monotonic(), False
        with contextlib.closing(self._examples(first)) as examples:
            while run.step < run.n_steps and not interrupted:
                report = self._step(run, next(examples), stopping)
                run.step += 1
                interrupted = report.stop and run.step < run.n_steps
                seconds = time.monotonic() - begun
                self._report(run, report, first=first, seconds=seconds, last=interrupted)
                if run.step % recipe.run.checkpoint_every == 0 or interrupted:
                    self._save(run)
        seconds = time.monotonic() - begun
        if not self._store.path(run.step).exists():
            self._save(run)
        checkpoint = self._store.path(run.step)
        if interrupted:
            run.reporter.note(f"stopped after step {run.step}; the same command goes on from there")
        else:
            self._use_average(run.stepper.moving)
        n_images = (run.step - first) * recipe.run.batch_size
        return RunResult(
            steps=run.step,
            seconds=seconds,
            images_per_second=n_images / seconds if n_images else 0.0,
            final_terms=dict(run.values),
            checkpoint=checkpoint,
            interrupted=interrupted,
        )

    def _examples(self, step: int) -> Generator[Examples, None, None]:
        """This process's shares from ``step`` on, without end."""
        per_epoch = self.loader.steps_per_epoch
        if per_epoch < 1:
            raise TrainingError(
                f"the data fills no batch of {self.recipe.run.batch_size} images",
                hint="lower run.batch_size, or add images",
            )
        wanted = self.recipe.run.batch_size // world_size()
        epoch, skip = divmod(step, per_epoch)
        while True:
            n_found = skip
            for examples in self.loader.epoch(epoch, skip=skip):
                if len(examples) != wanted:
                    raise TrainingError(
                        f"the loader gave {len(examples)} images where {wanted} were due",
                        hint="build it for run.batch_size divided by the number of processes",
                    )
                yield examples
                n_found += 1
            if n_found != per_epoch:
                raise TrainingError(
                    f"epoch {epoch} ended after {n_found} of {per_epoch} batches",
                    hint="the data changed while it was read; start the same command again",
                )
            epoch, skip = epoch + 1, 0

    def _step(self, run: _Run, examples: Examples, stopping: StopRequest) -> StepReport:
        stepper = run.stepper
        measure = self._is_reported(run.step + 1, run.n_steps)
        try:
            if run.step == 0:
                with self.accelerator.autocast():
                    self.objective.begin_(stepper.batch(examples))
            report = stepper.take(examples, measure=measure, stop=stopping.asked)
        except RuntimeError as error:
            known = explained(error)
            if known is None:
                raise
            raise known from error
        if report.problem is not None:
            self._diverged(run, report, examples)
        return report

    def _is_reported(self, step: int, n_steps: int) -> bool:
        return step % self.recipe.run.log_every == 0 or step in (1, n_steps)

    def _report(
        self, run: _Run, report: StepReport, *, first: int, seconds: float, last: bool
    ) -> None:
        run.reporter.advance(run.step)
        if not (self._is_reported(run.step, run.n_steps) or last):
            return
        done = run.step - first
        terms = {**report.terms, **{f"{k}_accuracy": v for k, v in report.accuracies.items()}}
        run.values = {
            "epoch": run.step / self.loader.steps_per_epoch,
            "loss": report.loss,
            **over_processes(terms),
            "learning_rate": report.learning_rate,
            "grad_norm": report.grad_norm,
            "images_per_second": done * self.recipe.run.batch_size / seconds,
            "seconds": seconds,
        }
        run.reporter.numbers(run.step, run.values, seconds / done * (run.n_steps - run.step))

    def _save(self, run: _Run) -> None:
        tensors, document = capture(run.stepper.moving)
        if self.accelerator.is_main_process:
            self._store.save(
                run.step,
                tensors,
                {
                    "identity": run.identity.to_dict(),
                    "moving": document,
                    "guard": run.stepper.guard.state_dict(),
                    "trouble": self.loader.trouble.state_dict(),
                    "processes": world_size(),
                },
            )
        self.accelerator.wait_for_everyone()

    def _use_average(self, moving: Moving) -> None:
        if moving.average is None:
            return
        averages = moving.average.module.parameters()
        for parameter, average in zip(moving.parameters.values(), averages, strict=True):
            parameter.detach().copy_(average)

    def _diverged(self, run: _Run, report: StepReport, examples: Examples) -> None:
        recipe = self.recipe
        found = Divergence(
            reason=str(report.problem),
            step=run.step,
            loss=report.loss,
            average=run.stepper.guard.average,
            grad_norm=report.grad_norm,
            learning_rate=report.learning_rate,
            terms=over_processes(report.terms),
            keys=examples.keys,
            advice=advice(
                recipe.run.precision, clipped=recipe.optimizer.clip_grad_norm is not None
            ),
        )
        path = self.output / DIVERGENCE
        if self.accelerator.is_main_process:
            with contextlib.suppress(OSError):  # the error says the same
                path.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
        raise DivergenceError(
            f"the run diverged at step {run.step + 1}: {found.reason}",
            hint=f"try {found.advice[0]}; {path} has the terms, the images and more advice",
        )


def over_processes(values: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Mean of each scalar over processes; one message for all."""
    if not values:
        return {}
    rows = torch.stack([value.detach().double().reshape(()) for value in values.values()])
    return dict(zip(values, (all_sum(rows) / world_size()).tolist(), strict=True))
