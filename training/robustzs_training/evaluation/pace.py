"""How long the rest of a measurement takes, from what it took so far.

Before anything was attacked there is only a bound: no picture breaks, and every step is made. Most
pictures of a model that was not hardened break at once and cost next to nothing, so the bound can
be a hundred times too high. As soon as batches are done, their own pace counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from robustzs_training.evaluation.cost import in_words, steps_of
from robustzs_training.evaluation.run import Measurement, Progress, Report
from robustzs_training.evaluation.trials import Trial

QUIET = 30.0
"""Seconds between lines on how far a run is."""
_LONG = 30.0 * 60.0  # seconds; from here on a smaller n is suggested
_FEWEST = 10  # pictures, to suggest


class Pace:
    """The attacks on one set of pictures, done and to be done.

    Args:
        measurement: What is known.
        trials: Attacks, in their order.
        per_step: Seconds of one look with gradients at one picture.
        world_size: Processes that share the pictures.
    """

    def __init__(
        self,
        measurement: Measurement,
        trials: Sequence[Trial],
        per_step: float,
        *,
        world_size: int = 1,
    ) -> None:
        self.measurement = measurement
        self.trials = tuple(trials)
        self.per_step = per_step
        self.world_size = world_size

    @property
    def most(self) -> float:
        """Seconds if no picture breaks before the end."""
        left = sum(self.measurement.n_left(t) * self._bound(t) for t in self.trials)
        return left / self.world_size

    def left_of(self, trial: Trial) -> float:
        """Seconds that one attack has still to go; at the pace of what is done."""
        return self._to_try(trial) * self._bound(trial) * self._share(trial) / self.world_size

    @property
    def left(self) -> float:
        """Seconds of all attacks."""
        return sum(self.left_of(trial) for trial in self.trials)

    def _bound(self, trial: Trial) -> float:
        """Seconds of one picture that stands."""
        return self.per_step * steps_of(trial.attack.protocol)

    def _done(self, trial: Trial) -> tuple[int, float]:
        """Pictures that were attacked, and the seconds they took."""
        question = self.measurement.question(trial.target, trial)
        state = self.measurement.state
        return len(state.known(question)), state.seconds(question)

    def _share(self, trial: Trial) -> float:
        """What a picture costs, as a share of its bound.

        By the attack itself; else within its largest smaller radius that was tried; else by all.
        """
        for chosen in ((trial,), *((each,) for each in reversed(trial.weaker)), self.trials):
            done = [(*self._done(each), self._bound(each)) for each in chosen]
            bound = sum(n * most for n, _, most in done)
            if bound > 0.0:
                return sum(seconds for _, seconds, _ in done) / bound
        return 1.0

    def _to_try(self, trial: Trial) -> float:
        """Pictures; fewer than stand now where an attack within a smaller radius goes on."""
        left = float(self.measurement.n_left(trial))
        for each in trial.weaker:
            n, _ = self._done(each)
            waiting = self.measurement.n_left(each)
            if n and waiting:
                left -= waiting * self.measurement.n_broken(each) / n
        return max(0.0, left)


class Herald:
    """Says how far a run is: now and then a line, which needs no terminal.

    Args:
        say: Takes a line.
        progress: Shows a bar where there is a terminal.
    """

    def __init__(self, say: Callable[[str], None], progress: Progress) -> None:
        self._say = say
        self._progress = progress
        self._said = time.monotonic()
        self._advised = False
        self._pace: Pace | None = None
        self._trial: Trial | None = None

    def begin(self, name: str, pace: Pace) -> None:
        """Attacks on a set begin: tell the bound, and after the first batch what it makes of it."""
        self._pace, self._advised, self._said = pace, False, -math.inf
        self._say(
            f"{name}: at most {in_words(pace.most)} of attacks, if no picture breaks; the first "
            "batches tell more"
        )

    def attack(self, trial: Trial | None) -> None:
        """What is watched from now on; ``None``: the attacks on this set are over."""
        self._trial = trial
        if trial is None:
            self._pace = None

    @contextmanager
    def watch(self, title: str) -> Iterator[Report]:
        """Progress of one question."""
        if self._trial is None:  # clean pictures: a line if they take long
            self._said = time.monotonic()
        with self._progress(title) as show:

            def report(done: int, total: int) -> None:
                show(done, total)
                now = time.monotonic()
                if now - self._said >= QUIET and done < total:
                    self._said = now
                    self._say(f"{title}: {done} of {total}{self._ahead()}")

            yield report

    def _ahead(self) -> str:
        """How long it takes from here, at the pace so far; and what would take less."""
        pace, trial = self._pace, self._trial
        if pace is None or trial is None:
            return ""
        mine, everything = pace.left_of(trial), pace.left
        text = f", about {in_words(mine)} to go"
        if everything > mine:
            text += f", {in_words(everything)} for all attacks on these pictures"
        if everything > _LONG and not self._advised:
            self._advised = True
            smaller = int(len(pace.measurement.order) * _LONG / everything)
            if smaller >= _FEWEST:
                text += f"; --n {smaller} would take about {in_words(_LONG)}"
        return text
