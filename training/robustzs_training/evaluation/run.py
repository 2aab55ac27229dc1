"""The run of a measurement over one set of pictures: clean verdicts, then attack after attack.

* Pictures are taken in one fixed, shuffled order, so that what a run that was cut off has is a
  random sample: its numbers are of the longest stretch of that order whose verdicts are all known.
* Batches are cut from the pictures that stand when an attack begins, the same whatever the number
  of processes and however often the run was stopped; batch ``k`` is process ``k mod W``'s. So
  sharding and resuming change no verdict.
* A picture that is wrong before an attack is not attacked: it is wrong under it, too.
* A picture that an attack broke within a radius is not attacked again by it within a larger one:
  the perturbation that was found lies in the larger ball. This can only lower the robust accuracy
  there, towards the truth.

Processes meet only between questions, at a barrier; what each found is read from its journal.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from robustzs.errors import EvaluationError
from robustzs.threat import format_size
from robustzs_training.evaluation.attacks.view import check_bounds, judge
from robustzs_training.evaluation.base import EvaluationSet
from robustzs_training.evaluation.memory import give_back
from robustzs_training.evaluation.state import EvaluationState, Line
from robustzs_training.evaluation.trials import BoolArray, Target, Trial

if TYPE_CHECKING:
    from robustzs_training.evaluation.hierarchical.scores import Scorer

IntArray = npt.NDArray[np.int64]
Report = Callable[[int, int], None]
Progress = Callable[[str], AbstractContextManager[Report]]

Notes = dict[str, tuple[int, ...]]
"""Columns of integers, by name."""

_ANSWER, _CONFIRMED = "answer", "confirmed"
N_KEPT = 32
"""Perturbed images are kept of so many pictures, for reports."""
_ORDER = 20_231  # of the fixed order; no option, so that runs that were cut off can be paired


class DesertedError(EvaluationError):
    """Another process of the same measurement has ended before its time."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """This process among all.

    Attributes:
        rank: Its number.
        world_size: Processes.
        wait: Returns when all have come here; raises :class:`DesertedError` where one never will.
    """

    rank: int = 0
    world_size: int = 1
    wait: Callable[[], None] = lambda: None

    @property
    def is_main(self) -> bool:
        """Whether this one speaks and writes results."""
        return self.rank == 0


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What is known of one trial.

    Attributes:
        rows: int64 ``[m]``, ascending: pictures whose verdicts are known, all of them when
            ``complete``.
        clean: bool ``[m]``, right before the attack.
        robust: bool ``[m]``, right before and under it.
        by: Row -> the attack that broke it.
        complete: Whether it is all.
        n_attacked: Pictures that were attacked.
        n_unconfirmed: Broken pictures that are right when the model looks at them again.
        seconds: All processes together.
    """

    rows: IntArray
    clean: BoolArray
    robust: BoolArray
    by: dict[int, str]
    complete: bool
    n_attacked: int
    n_unconfirmed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CleanVerdicts:
    """What is known of clean pictures.

    Attributes:
        rows: int64 ``[m]``, ascending.
        right: bool ``[m]``.
        same: bool ``[m]``: the label on top is the one that the first target puts there.
    """

    rows: IntArray
    right: BoolArray
    same: BoolArray


@dataclass(kw_only=True)
class Measurement:
    """One set of pictures under a sequence of attacks.

    Attributes:
        images: The pictures.
        targets: What they are judged by.
        state: Where verdicts are kept.
        place: This process among all.
        batch_size: Pictures that are attacked together.
        deadline: Of ``time.monotonic``; no batch starts after it.
        progress: Shows how far a question is.
        scorer: Further numbers of every picture, clean and perturbed, which are kept.
    """

    images: EvaluationSet
    targets: Sequence[Target]
    state: EvaluationState
    place: Place = field(default_factory=Place)
    batch_size: int = 32
    deadline: float | None = None
    progress: Progress
    scorer: Scorer | None = None

    def __post_init__(self) -> None:
        n = len(self.images.keys)
        self.order: IntArray = np.random.default_rng(_ORDER).permutation(n).astype(np.int64)
        self._kept = set(self.order[:N_KEPT].tolist())

    # ---- questions -------------------------------------------------------------------------------

    def question(self, target: Target, trial: Trial | None = None) -> str:
        """The name of a question in journals."""
        if trial is None:
            return f"{self.images.name}|{target.name}|clean"
        size = format_size(trial.threat.eps)
        return f"{self.images.name}|{target.name}|{trial.attack.name}|{trial.threat.norm}:{size}"

    def clean(self) -> bool:
        """Judge clean pictures by all targets; whether all of them are judged now."""
        questions = [self.question(target) for target in self.targets]
        self._go(questions[0], self.order, self._judge_clean, "clean pictures")
        return all(len(self.state.known(question)) == len(self.order) for question in questions)

    def attack(self, trial: Trial) -> bool:
        """Attack what stands; whether all of it has been attacked now."""
        question = self.question(trial.target, trial)
        standing = self._standing(trial)
        title = f"{trial.attack.name} {trial.threat}"
        if trial.target.depth is not None:
            title += f", {trial.target.name}"
        self._go(question, standing, lambda rows: self._attack(trial, rows), title)
        return len(self.state.known(question)) == len(standing)

    def verdicts(self, trial: Trial) -> Verdicts | None:
        """What is known of a trial; ``None`` where nothing was done yet."""
        question = self.question(trial.target, trial)
        clean = self.state.known(self.question(trial.target))
        found = self.state.known(question)
        broken = self._broken_before(trial)
        if not clean or (not found and len(self._standing(trial))):
            return None
        rows = []
        for row in self.order.tolist():
            if row not in clean or (clean[row] and row not in broken and row not in found):
                break
            rows.append(row)
        by = {**broken, **self._by(question)}
        robust = [clean[row] and row not in broken and found[row] for row in sorted(rows)]
        confirmed = self.state.notes(question, _CONFIRMED)
        return Verdicts(
            rows=np.sort(np.asarray(rows, np.int64)),
            clean=np.asarray([clean[row] for row in sorted(rows)], np.bool_),
            robust=np.asarray(robust, np.bool_),
            by={row: by[row] for row in sorted(rows) if row in by},
            complete=len(rows) == len(self.order),
            n_attacked=len(found),
            n_unconfirmed=sum(not found[row] and not confirmed[row] for row in found),
            seconds=self.state.seconds(question),
        )

    def standing(self, target: Target) -> IntArray:
        """Rows that are right before any attack, in the order of work; int64 ``[m]``."""
        clean = self.state.known(self.question(target))
        return np.asarray([row for row in self.order.tolist() if clean.get(row)], np.int64)

    def n_left(self, trial: Trial) -> int:
        """Pictures that the attack has still to try, at most: weaker ones may break some first."""
        known = self.state.known(self.question(trial.target, trial))
        return sum(row not in known for row in self._standing(trial).tolist())

    def disagreements(self, target: Target | None = None) -> tuple[int, int] | None:
        """Pictures that torch and a deployed precision answer differently, and all compared.

        Args:
            target: The precision; ``None`` for the bundle's default.
        """
        target = target or next(iter(self.precisions), None)
        found = None if target is None else self.clean_verdicts(target)
        if found is None:
            return None
        return int((~found.same).sum()), len(found.rows)

    def n_broken(self, trial: Trial) -> int:
        """Pictures that the attack broke so far."""
        return len(self._by(self.question(trial.target, trial)))

    @property
    def precisions(self) -> list[Target]:
        """Targets that the deployed encoders judge, the bundle's default pair first."""
        return [target for target in self.targets if target.precision is not None]

    def clean_verdicts(self, target: Target) -> CleanVerdicts | None:
        """What is known of clean pictures; ``None`` where nothing is."""
        known = self.state.known(self.question(target))
        rows = list(itertools.takewhile(known.__contains__, self.order.tolist()))
        if not rows:
            return None
        rows.sort()
        torch_says, says = (
            self.state.notes(self.question(each), _ANSWER) for each in (self.targets[0], target)
        )
        return CleanVerdicts(
            rows=np.asarray(rows, np.int64),
            right=np.asarray([known[row] for row in rows], np.bool_),
            same=np.asarray([torch_says[row] == says[row] for row in rows], np.bool_),
        )

    def noted(self, trial: Trial, rows: IntArray) -> tuple[Notes, Notes]:
        """What the scorer noted of pictures before and under an attack, in the rows' order.

        Pictures that were not attacked, because they were wrong, are there as they were; those
        that broke within a smaller radius are there as they broke.
        """
        before = self._notes_of(self.question(self.targets[0]))
        under = dict(before)
        for each in (*trial.weaker, trial):
            under.update(self._notes_of(self.question(each.target, each)))
        return _columns(before, rows), _columns(under, rows)

    def _notes_of(self, question: str) -> dict[int, dict[str, int]]:
        return {
            row: {name: values[place] for name, values in line.notes.items()}
            for line in self.state.lines(question)
            for place, row in enumerate(line.rows)
        }

    def turned(self, trial: Trial, row: int) -> npt.NDArray[np.float32] | None:
        """The image ``[3, H, W]`` that broke a picture, where it was kept."""
        for each in (trial, *reversed(trial.weaker)):
            found = self.state.image(self.question(each.target, each), row)
            if found is not None:
                return found
        return None

    # ---- parts -----------------------------------------------------------------------------------

    def _standing(self, trial: Trial) -> IntArray:
        broken = self._broken_before(trial)
        rows = self.standing(trial.target)
        return np.asarray([row for row in rows.tolist() if row not in broken], np.int64)

    def _broken_before(self, trial: Trial) -> dict[int, str]:
        """Rows that the same attack broke within a smaller radius."""
        broken: dict[int, str] = {}
        for each in trial.weaker:
            broken.update(self._by(self.question(each.target, each)))
        return broken

    def _by(self, question: str) -> dict[int, str]:
        return {
            row: name
            for line in self.state.lines(question)
            for row, name, right in zip(line.rows, line.by, line.right, strict=True)
            if not right
        }

    def _go(
        self, question: str, rows: IntArray, work: Callable[[IntArray], None], title: str
    ) -> None:
        """This process's batches, as far as time allows; then wait for the others."""
        with self.progress(f"{self.images.name}: {title}") as report:
            for batch in self._batches(rows):
                known = self.state.known(question)
                left = np.asarray([row for row in batch.tolist() if row not in known], np.int64)
                if len(left) == 0:
                    continue
                if self.deadline is not None and time.monotonic() > self.deadline:
                    break
                work(left)
                give_back()
                report(len(self.state.known(question)), len(rows))
        self.place.wait()
        self.state.reload()

    def _batches(self, rows: IntArray) -> Iterator[IntArray]:
        for number, start in enumerate(range(0, len(rows), self.batch_size)):
            if number % self.place.world_size == self.place.rank:
                yield rows[start : start + self.batch_size]

    @torch.no_grad()
    def _judge_clean(self, rows: IntArray) -> None:
        started = time.monotonic()
        pixels = self.images.pixels(rows)
        # The first target tells what is done already, so it is recorded last.
        for target in reversed(self.targets):
            logits = target.victim.logits_of(_laid_out(pixels, target.victim.device))
            notes = {_ANSWER: _ints(logits.argmax(dim=1))}
            if target is self.targets[0]:
                notes |= self._score(pixels, rows)
            self.state.record(
                Line(
                    question=self.question(target),
                    rows=tuple(rows.tolist()),
                    right=_bools(judge(logits, self._right(target, rows))),
                    seconds=time.monotonic() - started,
                    notes=notes,
                )
            )
            started = time.monotonic()

    def _attack(self, trial: Trial, rows: IntArray) -> None:
        started = time.monotonic()
        victim = trial.target.victim
        pixels = self.images.pixels(rows).to(victim.device)
        right = self._right(trial.target, rows)
        found = trial.attack(victim, pixels, right, rows.tolist())
        check_bounds(pixels, found.adversarial, trial.threat)
        with torch.no_grad():
            logits = victim.logits_of(_laid_out(found.adversarial, victim.device))
            confirmed = ~judge(logits, right)
        broken = _bools(found.broken)
        question = self.question(trial.target, trial)
        for place, row in enumerate(rows.tolist()):
            if broken[place] and row in self._kept:
                image = found.adversarial[place].float().cpu().numpy()
                self.state.keep_image(question, row, image)
        names = found.broken_by or (trial.attack.name,) * len(rows)
        self.state.record(
            Line(
                question=question,
                rows=tuple(rows.tolist()),
                right=tuple(not each for each in broken),
                by=tuple(name if hit else "" for name, hit in zip(names, broken, strict=True)),
                seconds=time.monotonic() - started,
                notes={
                    _ANSWER: _ints(logits.argmax(dim=1)),
                    _CONFIRMED: _ints(confirmed),
                    **({} if trial.target.precision else self._score(found.adversarial, rows)),
                },
            )
        )

    def _score(self, pixels: torch.Tensor, rows: IntArray) -> dict[str, tuple[int, ...]]:
        """The scorer's notes on pixels, clean or perturbed; it looks through the labels' victim."""
        if self.scorer is None:
            return {}
        first = self.targets[0]
        return self.scorer(first.victim, pixels, self._right(first, rows)).to_notes()

    def _right(self, target: Target, rows: IntArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(target.right[rows])).to(target.victim.device)


def _columns(notes: dict[int, dict[str, int]], rows: IntArray) -> Notes:
    """The columns that all rows have."""
    chosen = [notes[row] for row in rows.tolist()]
    names = [name for name in chosen[0] if all(name in each for each in chosen)] if chosen else []
    return {name: tuple(each[name] for each in chosen) for name in names}


def _laid_out(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    return pixels.to(device).contiguous(memory_format=torch.channels_last)


def _bools(values: torch.Tensor) -> tuple[bool, ...]:
    return tuple(bool(value) for value in values.tolist())


def _ints(values: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(value) for value in values.tolist())
