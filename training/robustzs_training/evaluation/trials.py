"""What is asked of a model, and the attacks on it in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustzs.cards.schema import Meaning
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.base import Attack, Victim

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that a picture can be right or wrong about, and be attacked on.

    Attributes:
        depth: In the tree; ``None``: the labels.
        meaning: How the verdict at a depth comes about.
        precision: Of the deployed encoders, such as ``fp32/int8``, where these judge and not the
            float32 torch model.
        victim: Whose ``logits_of`` gives one logit for each choice.
        right: bool ``[n, C]``: which choices are right.
    """

    depth: int | None = None
    meaning: Meaning = "flat"
    precision: str | None = None
    victim: Victim
    right: BoolArray

    @property
    def name(self) -> str:
        """``flat``, ``rollup:3`` or ``flat@fp32/int8``."""
        name = self.meaning if self.depth is None else f"{self.meaning}:{self.depth}"
        return name if self.precision is None else f"{name}@{self.precision}"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An attack on a target.

    Attributes:
        attack: The attack.
        threat: Its norm and radius.
        target: What it is on.
        weaker: The same attack within smaller radii, in this run.
    """

    attack: Attack
    threat: ThreatModel
    target: Target
    weaker: tuple[Trial, ...] = ()


def ladder(
    names: Sequence[str],
    threats: Sequence[ThreatModel],
    target: Target,
    build: Callable[[str, ThreatModel], Attack],
) -> list[Trial]:
    """Every attack within every radius, small ones first.

    Args:
        names: Of attacks.
        threats: Radii, of one norm or several.
        target: What is attacked.
        build: Makes an attack.
    """
    trials: list[Trial] = []
    for name in dict.fromkeys(names):
        below: dict[str, tuple[Trial, ...]] = {}
        for threat in sorted(set(threats), key=lambda threat: (threat.norm, threat.eps)):
            weaker = below.get(threat.norm, ())
            trial = Trial(attack=build(name, threat), threat=threat, target=target, weaker=weaker)
            below[threat.norm] = (*weaker, trial)
            trials.append(trial)
    return trials
