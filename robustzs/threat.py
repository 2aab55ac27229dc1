"""What an attacker may do, and how hard an attack tries: two frozen values, standard library only.

``eps`` and ``step_size`` are in the units of pixels in [0, 1], always. The texts that people write
(``4/255``) are read once, at the edge, by :func:`parse_size` and :meth:`ThreatModel.parse`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast, get_args

from robustzs.errors import UsageError

Norm = Literal["Linf", "L2"]
Start = Literal["uniform", "none"]

_SIZE_HINT = "sizes are in units of pixels in [0, 1]: write 4/255 or 0.0157"


def parse_size(text: str | float) -> float:
    """Read a size such as ``4/255``, ``1.5/255``, ``0.5`` or ``1e-3``; a number is only checked.

    A quotient becomes the float nearest to the exact fraction.

    Raises:
        UsageError: Not a number or a quotient, not finite, or negative.
    """
    try:
        value = _read(text) if isinstance(text, str) else float(text)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise UsageError(f"{text!r} is no size", hint=_SIZE_HINT) from error
    if not math.isfinite(value) or value < 0.0:
        raise UsageError(f"a size of {text!r} is not finite and >= 0", hint=_SIZE_HINT)
    return value


def _read(text: str) -> float:
    numerator, slash, denominator = text.replace(" ", "").partition("/")
    if not slash:
        return float(numerator)
    if "e" in text.lower():  # an exact fraction of 1e99999999 would take all memory
        raise ValueError(text)
    below = Fraction(denominator) if "/" not in denominator else Fraction(0)
    if below <= 0:
        raise ValueError(text)
    return float(Fraction(numerator) / below)


def format_size(size: float) -> str:
    """Write a size as people do: ``4/255`` where it is a whole number of 255ths."""
    steps = size * 255.0
    if 0.5 < steps < 1e6 and abs(steps - round(steps)) < 1e-9 * steps:
        return f"{round(steps)}/255"
    return f"{size:g}"


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """All perturbations whose norm is at most ``eps``, of pixels that stay in [0, 1].

    Args:
        norm: ``Linf``: the largest change of any value. ``L2``: the Euclidean norm over an image.
        eps: In units of pixels in [0, 1]; at most 1 for ``Linf``.

    Raises:
        UsageError: An unknown norm, or ``eps`` out of range.
    """

    norm: Norm = "Linf"
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise UsageError(f"unknown norm {self.norm!r}", hint="choose Linf or L2")
        object.__setattr__(self, "eps", parse_size(self.eps))
        if self.norm == "Linf" and self.eps > 1.0:
            raise UsageError(
                f"eps {self.eps:g} is more than the range of a pixel",
                hint=f"write {self.eps:g}/255 if 255ths are meant",
            )

    @classmethod
    def parse(cls, text: str | float, *, norm: Norm = "Linf") -> ThreatModel:
        """Read ``4/255``, ``Linf:4/255`` or ``L2:0.5``.

        Args:
            text: The size, with the norm before a colon if it is not ``norm``.
            norm: The norm where the text names none; its case does not matter in the text.

        Raises:
            UsageError: Nothing of that form, or a size out of range.
        """
        if isinstance(text, str) and ":" in text:
            name, _, text = text.partition(":")
            known = {each.casefold(): each for each in get_args(Norm)}
            norm = cast(Norm, known.get(name.strip().casefold(), name.strip()))
        return cls(norm=norm, eps=parse_size(text))

    def __str__(self) -> str:
        return f"{self.norm}:{format_size(self.eps)}"


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """How an iterative attack searches the ball of a :class:`ThreatModel`.

    Args:
        n_steps: Gradient steps of each run; 0 evaluates the starting point.
        step_size: In units of pixels in [0, 1].
        n_restarts: Independent runs, of which the strongest counts.
        seed: Of the starting points.
        start: ``uniform``: anywhere in the ball. ``none``: at the clean image.
        momentum: Share of the last direction that is added to the next one; 0.9 in FARE and QT-AFT.

    Raises:
        UsageError: A value out of range.
    """

    n_steps: int
    step_size: float
    n_restarts: int = 1
    seed: int = 0
    start: Start = "uniform"
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.start not in get_args(Start):
            raise UsageError(f"unknown start {self.start!r}", hint="choose uniform or none")
        object.__setattr__(self, "step_size", parse_size(self.step_size))
        for name, lowest in (("n_steps", 0), ("n_restarts", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise UsageError(f"{name} is {value!r}", hint=f"a whole number >= {lowest}")
        if not (math.isfinite(self.momentum) and self.momentum >= 0.0):
            raise UsageError(f"momentum is {self.momentum!r}", hint="a number >= 0, usually 0.9")
