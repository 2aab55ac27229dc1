"""Checks on a finished measurement: what must hold before its numbers are published."""

from __future__ import annotations

from collections.abc import Sequence

from robustzs.cards.schema import Check
from robustzs_training.evaluation.publish import Judged
from robustzs_training.evaluation.run import Measurement

_UNCONFIRMED = 0.01
_DISAGREEING = 0.02


def checks_of(measurements: Sequence[Measurement], judged: Sequence[Judged]) -> list[Check]:
    """Of all sets, in their order."""
    checks: list[Check] = []
    for measurement, each in zip(measurements, judged, strict=True):
        checks += _agreement(measurement)
        checks += _confirmed(each)
    return checks


def _agreement(measurement: Measurement) -> list[Check]:
    """Whether what was attacked answers as what is deployed does."""
    found = measurement.disagreements()
    if found is None:
        return []
    differing, n = found
    allowed = max(1, int(_DISAGREEING * n))
    return [
        Check(
            name=f"deployed-agrees:{measurement.images.name}",
            passed=differing <= allowed,
            message=f"torch and the deployed ONNX bundle put another label on top for {differing} "
            f"of {n} clean pictures; {allowed} are allowed",
        )
    ]


def _confirmed(judged: Judged) -> list[Check]:
    """Whether perturbed images are wrong when the model looks at them again."""
    done = [verdicts for _, verdicts in judged.trials if verdicts is not None]
    if not done:
        return []
    broken = sum(len(verdicts.by) for verdicts in done)
    missed = sum(verdicts.n_unconfirmed for verdicts in done)
    allowed = max(1, int(_UNCONFIRMED * broken))
    return [
        Check(
            name=f"perturbed-images-replay:{judged.images.name}",
            passed=missed <= allowed,
            message=f"{missed} of {broken} perturbed images are right when looked at again; "
            f"{allowed} are allowed, for rounding",
        )
    ]
