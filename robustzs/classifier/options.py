"""What a caller may choose, checked before anything is loaded."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from robustzs.answer import StopRule, Strategy, ThetaSource
from robustzs.errors import BundleManifestError, CalibrationMismatchError, UsageError

if TYPE_CHECKING:
    from robustzs.bundle.manifest import BundleManifest
    from robustzs.calibration.document import Binding

DEFAULT_THETA = 0.65
"""Used where neither the caller, a calibration nor the bundle says better; SpeciesNet's number."""

MAX_TOP_K = 1000
MAX_HYPONYMS = 1000

_DEPTH = re.compile(r"\s*[+-]?\d{1,9}\s*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A threshold that was set on data, and what it was set for.

    What is ``None`` is not compared with what is in use.

    Args:
        theta: the threshold, in [0, 1].
        alpha: 1 - target accuracy, in (0, 1).
        digest: of the calibration file.
        model_digest: of the bundle that it was made with.
        hierarchy_digest: of the tree that it was made with.
        strategy: that it was made with.
        rule: that it was made with.
        temperature: that it was made with.
        templates_digest: of the prompt templates that it was made with.
        binding: everything that it depends on, from a calibration file.
        warning: what every answer should say of it.
    """

    theta: float
    alpha: float
    digest: str
    model_digest: str | None
    hierarchy_digest: str
    strategy: Strategy
    rule: StopRule
    temperature: float
    templates_digest: str | None
    binding: Binding | None = None
    warning: str | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to classify.

    Args:
        strategy: where the probabilities of inner nodes come from.
        rule: how the path is chosen.
        theta: stop threshold in [0, 1], or ``None`` for the best known one.
        target_accuracy: hierarchical accuracy in (0, 1) that a calibration promises; sets theta.
        temperature: > 0, or ``None`` for the bundle's own.
        top_k: leaves to list, 1 to 1000.
        level: depth or named rank to answer at, whatever theta says.
        root: id, synset or name of a node to answer below.
        reject: allow "none of these": True for the bundle's own threshold, or the least
            similarity that is accepted.
        n_hyponyms: kinds of each label to add in strategy ``hyponyms``, 1 to 1000.

    Raises:
        UsageError: a value is out of range, not finite or unknown.
    """

    strategy: Strategy = "marginal"
    rule: StopRule = "greedy"
    theta: float | None = None
    target_accuracy: float | None = None
    temperature: float | None = None
    top_k: int = 5
    level: int | str | None = None
    root: str | None = None
    reject: bool | float = False
    n_hyponyms: int = 10

    def __post_init__(self) -> None:
        _one_of("strategy", self.strategy, get_args(Strategy))
        _one_of("rule", self.rule, get_args(StopRule))
        if self.theta is not None:
            _number("theta", self.theta)
            if not 0.0 <= self.theta <= 1.0:
                raise UsageError(f"theta must be within [0, 1], got {self.theta}")
        if self.target_accuracy is not None:
            _number("target_accuracy", self.target_accuracy)
            if not 0.0 < self.target_accuracy < 1.0:
                raise UsageError(
                    f"target_accuracy must be within (0, 1), got {self.target_accuracy}",
                    hint="such as 0.9",
                )
            if self.theta is not None:
                raise UsageError(
                    f"theta {self.theta} and target_accuracy {self.target_accuracy} were given",
                    hint="a target accuracy sets theta: give one of the two",
                )
        if self.temperature is not None:
            _number("temperature", self.temperature)
            if not 1e-6 <= self.temperature <= 1e6:
                raise UsageError(f"temperature must be within [1e-6, 1e6], got {self.temperature}")
        if not isinstance(self.reject, bool):
            _number("reject", self.reject)
        _whole("top_k", self.top_k, 1, MAX_TOP_K)
        _whole("n_hyponyms", self.n_hyponyms, 1, MAX_HYPONYMS)
        object.__setattr__(self, "level", _level(self.level))


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The stop threshold in use and where it comes from."""

    theta: float
    source: ThetaSource
    alpha: float | None = None
    calibration: str | None = None


def choose_threshold(
    options: Options, calibration: Calibration | None, manifest: BundleManifest, *, flat: bool
) -> Threshold:
    """The caller's threshold, else the calibration's, else the bundle's, else 0.65.

    Under a ``flat`` tree there is nothing to back off to but "anything": without a threshold of
    the caller's or a calibration's the answer is the best label.

    Raises:
        BundleManifestError: the bundle's own is not a probability.
    """
    if options.theta is not None:
        return Threshold(theta=float(options.theta), source="user")
    if calibration is not None:
        return Threshold(
            theta=calibration.theta,
            source="calibration",
            alpha=calibration.alpha,
            calibration=calibration.digest,
        )
    if flat:
        return Threshold(theta=0.0, source="default")
    if manifest.theta is not None:
        if not 0.0 <= manifest.theta.value <= 1.0:
            raise BundleManifestError(
                f"the model {manifest.name} has theta {manifest.theta.value}, not a probability",
                hint="give theta yourself, or export the bundle again",
            )
        return Threshold(theta=manifest.theta.value, source="bundle")
    return Threshold(theta=DEFAULT_THETA, source="default")


def check_calibration(calibration: Calibration, **in_use: object) -> None:
    """Check that a calibration was made for what is in use.

    Args:
        calibration: to check.
        in_use: fields of ``Calibration`` with the values in use; with a binding it decides alone.

    Raises:
        CalibrationMismatchError: naming everything that differs.
    """
    binding = in_use.pop("binding", None)
    if calibration.binding is not None and isinstance(binding, type(calibration.binding)):
        found = calibration.binding.differences(binding)
    else:
        found = [
            f"another {name}"
            for name, value in sorted(in_use.items())
            if getattr(calibration, name) not in (None, value)
        ]
    if found:
        raise CalibrationMismatchError(
            f"the calibration was not made for this: {'; '.join(found)}",
            hint="calibrate again with `robustzs calibrate`, or give theta yourself",
        )


def rejection_threshold(options: Options, manifest: BundleManifest) -> float | None:
    """The least similarity that is accepted, or ``None`` where everything is.

    Raises:
        UsageError: the bundle's own threshold is asked for, and it has none.
    """
    if options.reject is False:
        return None
    if options.reject is not True:
        return float(options.reject)
    if manifest.rejection is None:
        raise UsageError(
            f"the model {manifest.name} has no threshold for rejection",
            hint="give the least similarity to accept: --reject-below 0.2, in Python reject=0.2",
        )
    return manifest.rejection.value


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"unknown {name} {value!r}", hint=f"use {', '.join(allowed)}")


def _number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, got {value!r}")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def _level(level: object) -> int | str | None:
    """A depth as a number, even where a command line gave it as text."""
    if isinstance(level, str) and _DEPTH.fullmatch(level):
        level = int(level)
    if isinstance(level, bool) or not (level is None or isinstance(level, (int, str))):
        raise UsageError(f"level must be a depth or the name of a rank, got {level!r}")
    if isinstance(level, int) and level < 0:
        raise UsageError(f"level must be at least 0, got {level}", hint="0 is the root")
    return level
