"""When a run has gone wrong: not finite, or far above where it was.

"Far above" is a factor on the running average of the loss. That has no meaning for a loss that
comes to zero or below, such as Sim-CLIP's cosine in [-1, 1]: once a run has seen one, the factor is
on the usual distance of a step's loss from that average, and the loss may rise by so much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_MEMORY = 0.98  # of the running average: the last fifty steps or so
_FIRST_STEPS = 20  # until there is an average to compare with
_LEAST_SPREAD = 0.01  # of the average: steps that happen to be equal are no measure
MAX_SKIPPED = 20


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """What the report of a diverged run says.

    Attributes:
        reason: In one sentence.
        step: Of the loss; the weights are those after ``step`` steps.
        loss: As computed.
        average: Running average of the loss before; ``None`` in the first step.
        grad_norm: L2 norm over all gradients; ``None`` where the loss said it already.
        learning_rate: Of this step.
        terms: The loss's parts.
        keys: Names of this process's images in the step.
        advice: What to try.
    """

    reason: str
    step: int
    loss: float
    average: float | None
    grad_norm: float | None
    learning_rate: float
    terms: Mapping[str, float]
    keys: tuple[str, ...]
    advice: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: numbers that JSON lacks become text."""
        document = asdict(self)
        document["terms"] = {name: _number(value) for name, value in self.terms.items()}
        return {key: _number(value) for key, value in document.items()}


def _number(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


class Guard:
    """Watches losses and gradients.

    Args:
        factor: How many times its running average a loss may be; of a loss that has been zero or
            below, by how many of its usual distances from that average it may be above it.
        scaled: Gradients are scaled (float16): some that overflow are part of finding the scale.
    """

    def __init__(self, factor: float, *, scaled: bool) -> None:
        self.factor = factor
        self.scaled = scaled
        self.n_steps = 0
        self.n_skipped = 0
        self.is_signed = False
        self._weighted = 0.0
        self._distances = 0.0

    @property
    def average(self) -> float | None:
        """Running average of the losses so far."""
        if self.n_steps == 0:
            return None
        return self._weighted / (1.0 - _MEMORY**self.n_steps)

    @property
    def spread(self) -> float | None:
        """Running average of how far a loss was from the average before it."""
        if self.n_steps < 2:
            return None
        return self._distances / (1.0 - _MEMORY ** (self.n_steps - 1))

    def problem(self, loss: float, grad_norm: float) -> str | None:
        """What is wrong with a step before it is taken, in a sentence; ``None`` if nothing is."""
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        if not finite and self.scaled:
            self.n_skipped += 1
            if self.n_skipped <= MAX_SKIPPED:
                return None
            return f"{self.n_skipped} steps in a row overflowed float16, at every loss scale"
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the norm of the gradient is {grad_norm}"
        return self._too_high(loss)

    def _too_high(self, loss: float) -> str | None:
        average, spread = self.average, self.spread
        if self.n_steps < _FIRST_STEPS or average is None or spread is None:
            return None
        if not self.is_signed:
            if loss <= self.factor * average:
                return None
            return (
                f"the loss is {loss:.4g}, more than {self.factor:g} times its running average of "
                f"{average:.4g}"
            )
        usual = max(spread, _LEAST_SPREAD * abs(average))
        if usual == 0.0 or loss <= average + self.factor * usual:
            return None
        return (
            f"the loss is {loss:.4g}, above its running average of {average:.4g} by more than "
            f"{self.factor:g} times the usual {usual:.2g}"
        )

    def passed(self, loss: float) -> None:
        """A step was taken."""
        average = self.average
        if average is not None:
            distance = abs(loss - average)
            self._distances = _MEMORY * self._distances + (1.0 - _MEMORY) * distance
        self.n_skipped = 0
        self.n_steps += 1
        self.is_signed = self.is_signed or loss <= 0.0
        self._weighted = _MEMORY * self._weighted + (1.0 - _MEMORY) * loss

    def state_dict(self) -> dict[str, float]:
        """As JSON has it."""
        return {
            "steps": self.n_steps,
            "skipped": self.n_skipped,
            "signed": self.is_signed,
            "weighted": self._weighted,
            "distances": self._distances,
        }

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from there."""
        self.n_steps = int(state["steps"])
        self.n_skipped = int(state["skipped"])
        self.is_signed = bool(state["signed"])
        self._weighted = float(state["weighted"])
        self._distances = float(state["distances"])


def advice(precision: str, *, clipped: bool) -> tuple[str, ...]:
    """What to try after a divergence, the likeliest remedy first."""
    found = ["a learning rate (optimizer.lr) 3 to 10 times lower, or more schedule.warmup_steps"]
    if not clipped:
        found.append("optimizer.clip_grad_norm: 1.0")
    if precision != "fp32":
        found.append("run.precision: fp32, to see whether rounding is the cause")
    found.append("look at the images named under `keys`: an empty or broken one, a wrong caption")
    found.append("these change the recipe: start in another output folder")
    return tuple(found)
