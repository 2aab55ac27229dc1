"""What `robustzs evaluate` does, once its options are read.

Under ``torchrun`` every process attacks its batches; the first one alone speaks, compares with the
deployed bundle's answers, and writes the card.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from robustzs.cards import schema
from robustzs.cards.reading import measured_digest
from robustzs.errors import UsageError
from robustzs_training.evaluation.assembly import Bench, assemble
from robustzs_training.evaluation.checking import checks_after, checks_before
from robustzs_training.evaluation.cost import in_words, seconds_per_step
from robustzs_training.evaluation.insertion import CARD_NAME, check_writable, put_into_bundle
from robustzs_training.evaluation.pace import Herald, Pace
from robustzs_training.evaluation.place import join, stoppable
from robustzs_training.evaluation.presets import get_preset
from robustzs_training.evaluation.publish import (
    Circumstances,
    Judged,
    card_of,
    in_sentences,
    versions,
)
from robustzs_training.evaluation.request import STATE_FOLDER, EvaluateRequest
from robustzs_training.evaluation.run import DesertedError, Measurement, Place, Progress
from robustzs_training.evaluation.scenes import Scene
from robustzs_training.evaluation.state import EvaluationState, forget, write_text

Say = Callable[[str], None]
_INTERRUPTED = "interrupted"
_REFUSED = "checks refuse the model"


@dataclass(frozen=True, kw_only=True)
class EvaluateOutcome:
    """How it went.

    Attributes:
        card: ``None`` in processes that write none.
        path: Of the card's file; ``None`` where there was no ``output``.
        report: The page; ``None`` where none was asked for.
        interrupted: Stopped by a signal.
        in_bundle: Whether the card was put into the bundle.
    """

    card: schema.Card | None
    path: Path | None = None
    report: Path | None = None
    interrupted: bool = False
    in_bundle: bool = False


def run_evaluate(request: EvaluateRequest, *, say: Say, progress: Progress) -> EvaluateOutcome:
    """Measure a bundle on pictures under attacks.

    Args:
        request: The options.
        say: Takes a line for people; used by the first process alone.
        progress: Shows how far a question is; used by the first process alone.

    Raises:
        RobustZSError: Whatever cannot be read, measured or written.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(stoppable())
        place = stack.enter_context(join())
        if place.world_size > 1 and request.output is None:
            raise UsageError("several processes need a folder to meet in", hint="give --output DIR")
        output = request.output
        if output is None:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="robustzs-")))
        tell = say if place.is_main else _silent
        shown = progress if place.is_main else _unseen
        bench = assemble(request, say=tell)
        if request.write_card:
            check_writable(bench.bundle)
        state = stack.enter_context(_open_state(request, bench, output / STATE_FOLDER, place))
        deadline = None
        if request.max_minutes is not None:
            deadline = started + 60.0 * request.max_minutes
        run = _Run(request, bench, state, place, deadline, tell, shown)
        reason, interrupted = run.go()
        if not place.is_main:
            return EvaluateOutcome(card=None, interrupted=interrupted)
        card = run.card(reason)
        path = None
        if request.output is not None:
            path = output / CARD_NAME
            write_text(path, card.to_json())
        report = run.report(card, output) if request.report else None
        put = request.write_card and card.complete
        if put:
            put_into_bundle(card, bench.bundle)
        return EvaluateOutcome(
            card=card, path=path, report=report, interrupted=interrupted, in_bundle=put
        )


class _RefusedError(Exception):
    """A check refuses the model before it is attacked."""


class _Run:
    """All sets of one request."""

    def __init__(
        self,
        request: EvaluateRequest,
        bench: Bench,
        state: EvaluationState,
        place: Place,
        deadline: float | None,
        say: Say,
        progress: Progress,
    ) -> None:
        self.request = request
        self.bench = bench
        self.state = state
        self.place = place
        self.say = say
        self.herald = Herald(say, progress)
        self.checks: list[schema.Check] = []
        self.started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.clock = time.monotonic()
        self.measurements = [
            Measurement(
                images=scene.images,
                targets=scene.targets,
                state=state,
                place=place,
                batch_size=request.batch_size,
                deadline=deadline,
                progress=self.herald.watch,
                scorer=scene.scorer,
            )
            for scene in bench.scenes
        ]

    def go(self) -> tuple[str | None, bool]:
        """Do all of it; why it ended early, if it did, and whether by a signal."""
        try:
            for scene, measurement in zip(self.bench.scenes, self.measurements, strict=True):
                if not self._one(scene, measurement):
                    return (
                        f"the {self.request.max_minutes:g} minutes of --max-minutes were over",
                        False,
                    )
        except _RefusedError:
            return _REFUSED, False
        except KeyboardInterrupt:
            self.state.reload()
            return _INTERRUPTED, True
        except DesertedError as error:
            self.state.reload()
            return error.message, False
        return None, False

    def _one(self, scene: Scene, measurement: Measurement) -> bool:
        if not measurement.clean():
            return False
        name = scene.images.name
        n, n_right = len(scene.images.keys), len(measurement.standing(scene.targets[0]))
        self.say(f"{name}: {n_right} of {n} pictures are right before any attack")
        checks = checks_before(self.bench, scene, measurement)
        self.checks += checks
        if not all(check.passed for check in checks):
            raise _RefusedError
        self._estimate(scene, measurement)
        for trial in scene.trials:
            self.herald.attack(trial)
            if not measurement.attack(trial):
                return False
            found = measurement.verdicts(trial)
            if found is not None:
                what = f"{trial.attack.name} {trial.threat}"
                if trial.target.depth is not None:
                    what += f" on {trial.target.name}"
                if trial.target.precision is not None:
                    what += f" in {trial.target.precision}"
                self.say(
                    f"{name}: {int(found.robust.sum())} of {n} stand under {what} "
                    f"({in_words(found.seconds)})"
                )
        self.herald.attack(None)
        return True

    def _estimate(self, scene: Scene, measurement: Measurement) -> None:
        left = sum(measurement.n_left(trial) for trial in scene.trials)
        if not self.place.is_main or not left:
            return
        rows = measurement.standing(scene.targets[0])[: self.request.batch_size]
        if len(rows) == 0:
            return
        per_step = seconds_per_step(scene.targets[0].victim, scene.images.pixels(rows))
        pace = Pace(measurement, scene.trials, per_step, world_size=self.place.world_size)
        self.herald.begin(scene.images.name, pace)

    # ---- what came out ---------------------------------------------------------------------------

    def card(self, reason: str | None) -> schema.Card:
        """The card of what is known."""
        judged = self.judged()
        checks = [*self.checks, *checks_after(self.measurements, judged)]
        preset = None if self.request.preset is None else get_preset(self.request.preset)
        return card_of(
            judged,
            Circumstances(
                manifest=self.bench.bundle.manifest,
                checks=checks,
                protocol=self._sentences(),
                preset=self.request.preset,
                not_averaged=() if preset is None else preset.not_zero_shot,
                n_averaged=None if preset is None else preset.n_averaged,
                reason=reason,
                keep_outcomes=self.request.keep_outcomes,
                timings=self._timings(),
            ),
        )

    def judged(self) -> list[Judged]:
        """Every set with its verdicts."""
        return [
            judged_of(scene, measurement)
            for scene, measurement in zip(self.bench.scenes, self.measurements, strict=True)
        ]

    def report(self, card: schema.Card, output: Path) -> Path:
        """Write the report for people."""
        from robustzs_training.evaluation.reporting import report_of

        return report_of(card, self.bench.bundle, self.bench.scenes, self.measurements, output)

    def _sentences(self) -> list[str]:
        attacks = [trial.attack for scene in self.bench.scenes for trial in scene.trials]
        sentences = [
            "Verdicts are of the torch image tower in float32 on "
            f"{self.bench.device.type}, in evaluation mode; right means that the label with the "
            "largest logit is among the right ones.",
            "A picture that is wrong before an attack counts as wrong under it.",
            "A picture that an attack broke within a smaller radius is not attacked again within a "
            "larger one: the perturbation lies in both.",
            *in_sentences(attacks),
            *self.bench.sentences,
        ]
        for scene, measurement in zip(self.bench.scenes, self.measurements, strict=True):
            differing = measurement.disagreements()
            if differing is not None:
                sentences.append(
                    f"On {differing[1]} clean pictures of {scene.images.name} the deployed ONNX "
                    f"bundle answers {differing[0]} differently from torch."
                )
            sentences += scene.sentences
            sentences += _parts_of(scene, measurement)
        return sentences

    def _timings(self) -> schema.Timings:
        parts = {}
        for scene, measurement in zip(self.bench.scenes, self.measurements, strict=True):
            questions = [measurement.question(target) for target in scene.targets]
            questions += [measurement.question(trial.target, trial) for trial in scene.trials]
            parts.update({q: self.state.seconds(q) for q in questions})
        return schema.Timings(
            seconds=round(sum(parts.values()), 3),
            started=self.started,
            machine=self.bench.machine,
            parts={name: round(value, 3) for name, value in parts.items()},
        )


def _parts_of(scene: Scene, measurement: Measurement) -> Iterator[str]:
    """What each part of the attacks on deployed precisions broke."""
    for trial in scene.trials:
        verdicts = None if trial.target.precision is None else measurement.verdicts(trial)
        if verdicts is not None:
            parts = Counter(verdicts.by[row] for row in sorted(verdicts.by))
            told = ", ".join(f"{name} {count}" for name, count in sorted(parts.items()))
            yield (
                f"{scene.images.name}, deployed in {trial.target.precision}, {trial.threat}: "
                f"pictures broken by part: {told or 'none'}."
            )


def judged_of(scene: Scene, measurement: Measurement) -> Judged:
    """A set with what its measurement has found so far."""
    return Judged(
        images=scene.images,
        trials=[(trial, measurement.verdicts(trial)) for trial in scene.trials],
        templates=scene.templates,
        clean={
            str(target.precision): found
            for target in measurement.precisions
            if (found := measurement.clean_verdicts(target)) is not None
        },
        scorer=scene.scorer,
        theta=scene.theta,
        noted=measurement.noted,
        native=scene.native,
    )


# ---- state ---------------------------------------------------------------------------------------


def identity_of(request: EvaluateRequest, bench: Bench) -> dict[str, Any]:
    """What decides verdicts; a state of anything else is refused."""
    return {
        "format": 1,
        "model": measured_digest(bench.bundle.manifest),
        "sets": {scene.images.name: scene.images.digest for scene in bench.scenes},
        "right": {scene.images.name: _right_digest(scene) for scene in bench.scenes},
        "pictures": {scene.images.name: dict(scene.images.description) for scene in bench.scenes},
        "labels": {scene.images.name: scene.images.labels.digest for scene in bench.scenes},
        "hierarchy": {scene.images.name: scene.hierarchy for scene in bench.scenes},
        "templates": {scene.images.name: scene.templates.digest for scene in bench.scenes},
        "targets": {
            scene.images.name: [target.name for target in scene.targets] for scene in bench.scenes
        },
        "attacks": {
            f"{scene.images.name}|{trial.target.name}|{trial.attack.name}|{trial.threat}": dict(
                trial.attack.protocol
            )
            for scene in bench.scenes
            for trial in scene.trials
        },
        "text": {scene.images.name: scene.text for scene in bench.scenes},
        "seed": request.seed,
        "device": bench.device.type,
        "versions": versions(),
    }


def _right_digest(scene: Scene) -> str:
    total = hashlib.sha256()
    for target in scene.targets:
        total.update(np.packbits(target.right).tobytes())
    return total.hexdigest()


@contextmanager
def _open_state(
    request: EvaluateRequest, bench: Bench, folder: Path, place: Place
) -> Iterator[EvaluationState]:
    """The first process makes the folder, the others find it made."""
    if place.is_main and not request.resume:
        forget(folder)
    state = EvaluationState(folder, identity_of(request, bench), rank=place.rank)
    if not place.is_main:
        place.wait()
    with state:
        if place.is_main:
            place.wait()
        place.wait()
        state.reload()
        yield state


def _silent(line: str) -> None:
    del line


@contextmanager
def _unseen(title: str) -> Iterator[Callable[[int, int], None]]:
    del title
    yield lambda done, total: None
