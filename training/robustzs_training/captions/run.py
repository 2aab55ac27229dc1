"""From images to a caption table: what is done is not done again, what fails is counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from robustzs.errors import CaptionError
from robustzs_training.captions.journal import Journal, Outcome

MAX_STREAK = 25
"""So many failures of the server in a row end the run."""
_TOKENS_PER_PRICE = 1_000_000


class Captioner(Protocol):
    """Whoever writes captions."""

    @property
    def settings(self) -> dict[str, str]:
        """``source``, ``prompt`` and ``model``, as in the table."""

    def caption(self, keys: Iterable[str]) -> Generator[Sequence[Outcome], None, None]:
        """Outcomes in groups, in any order; a group is written down together.

        Raises:
            RobustZSError: No image can be captioned any more.
        """


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a million tokens cost, in any currency; 0 where nothing is charged."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, journal: Journal) -> float:
        """The cost of all tokens of all runs."""
        total = self.prompt * journal.prompt_tokens + self.completion * journal.completion_tokens
        return total / _TOKENS_PER_PRICE


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a run is.

    Attributes:
        done: Images dealt with, earlier runs included.
        total: All images.
        failed: Images without a caption, earlier runs included.
        cost: Of the tokens of all runs, by the prices.
        eta: Seconds that are left at this run's pace.
    """

    done: int
    total: int
    failed: int
    cost: float
    eta: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run left.

    Attributes:
        total: All images.
        captioned: Those with a caption.
        new: Those of this run.
        failures: How many failed for each reason.
        prompt_tokens: Of all runs.
        completion_tokens: Of all runs.
        cost: Of all runs.
        seconds: Of this run.
        is_stopped: The cost reached its limit before all images were asked.
    """

    total: int
    captioned: int
    new: int
    failures: Counter[str]
    prompt_tokens: int
    completion_tokens: int
    cost: float
    seconds: float
    is_stopped: bool


def caption_images(
    keys: Sequence[str],
    captioner: Captioner,
    journal: Journal,
    *,
    retry_failed: bool = False,
    prices: Prices | None = None,
    max_cost: float | None = None,
    report: Callable[[State], None] | None = None,
) -> Summary:
    """Caption what has no caption yet.

    Args:
        keys: All images.
        captioner: Who does it.
        journal: Where every outcome is written down at once.
        retry_failed: Try those again that failed for a reason of their own. Those that the server
            failed are tried in any case.
        prices: For the cost.
        max_cost: Ask no more once this is reached; answers on their way may exceed it.
        report: Told how far it is, after every group.

    Raises:
        CaptionError: The server fails again and again.
        RobustZSError: As the captioner says.
    """
    start = time.monotonic()
    charged = prices or Prices()
    before = sum(key in journal for key in keys)
    todo = [key for key in keys if journal.is_open(key, retry_failed=retry_failed)]
    streak, n_new, is_stopped = 0, 0, False
    with closing(captioner.caption(todo)) as groups:
        for group in groups:
            journal.append(group)
            n_new += len(group)
            streak = _streak(streak, group)
            cost = charged.of(journal)
            if report is not None and n_new:
                eta = (time.monotonic() - start) / n_new * (len(todo) - n_new)
                done, failed = len(keys) - len(todo) + n_new, len(journal.failures)
                report(State(done=done, total=len(keys), failed=failed, cost=cost, eta=eta))
            if max_cost is not None and cost >= max_cost and n_new < len(todo):
                is_stopped = True
                break
    known = set(keys)
    captioned = sum(key in journal for key in keys)
    return Summary(
        total=len(keys),
        captioned=captioned,
        new=captioned - before,
        failures=Counter(why for key, why in journal.failures.items() if key in known),
        prompt_tokens=journal.prompt_tokens,
        completion_tokens=journal.completion_tokens,
        cost=charged.of(journal),
        seconds=time.monotonic() - start,
        is_stopped=is_stopped,
    )


def _streak(streak: int, group: Sequence[Outcome]) -> int:
    """Failures of the server in a row.

    Raises:
        CaptionError: Too many.
    """
    for outcome in group:
        streak = streak + 1 if outcome.passing else 0
        if streak >= MAX_STREAK:
            raise CaptionError(
                f"the last {streak} images all failed: {outcome.message}",
                hint="see to the server, then run the same command again: it goes on from here",
            )
    return streak


def one_line(text: str, *, is_cut: bool = False) -> str:
    """A model's answer as a caption: one line, no control characters, whole sentences.

    Args:
        text: The answer.
        is_cut: It was stopped by the limit of tokens; the sentence that was cut is left out,
            unless it is the only one.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if is_cut:
        whole = max(line.rfind(". "), line.rfind("! "), line.rfind("? "))
        if whole > 0 and not line.endswith((".", "!", "?")):
            line = line[: whole + 1]
    return line
