"""Checks around a measurement: what must hold before and after, or no number is published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from robustzs.cards.schema import Check
from robustzs_training.evaluation.assembly import Bench
from robustzs_training.evaluation.checks import (
    CheckReport,
    CheckResult,
    check_limit,
    check_outcomes,
    check_victim,
)
from robustzs_training.evaluation.publish import Judged, hardened
from robustzs_training.evaluation.run import Measurement, Verdicts
from robustzs_training.evaluation.scenes import Scene

N_LOOKED_AT = 16
_UNCONFIRMED = 0.01
_DISAGREEING = 0.02


def checks_before(bench: Bench, scene: Scene, measurement: Measurement) -> list[Check]:
    """Look at the model by a few pictures that it is right about, and at the deployed bundle.

    Raises:
        UntrustworthyResultError: Logits are not finite, of half precision, or all equal.
    """
    rows = np.sort(measurement.standing(scene.targets[0])[:N_LOOKED_AT])
    checks = _agreement(measurement)
    if len(rows) == 0:
        return checks
    victim = scene.targets[0].victim
    pixels = scene.images.pixels(rows)
    right = torch.from_numpy(np.ascontiguousarray(scene.targets[0].right[rows]))
    report = check_victim(victim, pixels, right, model=bench.model)
    if report.passed:
        limit = check_limit(
            victim,
            pixels,
            right,
            rows.tolist(),
            # what was made elsewhere may be hardened without saying so
            claims_robustness=hardened(bench.bundle.manifest) is not False,
        )
        report = report + CheckReport((limit,))
    return checks + _named(report, scene.images.name)


def checks_after(measurements: Sequence[Measurement], judged: Sequence[Judged]) -> list[Check]:
    """Hold verdicts against each other: of all sets, in their order."""
    checks: list[Check] = []
    for each in judged:
        checks += _confirmed(each)
        for name, verdicts in _rounds(each):
            robust = {attack: found.robust for attack, found in verdicts.items()}
            checks += _named(check_outcomes(robust), f"{each.images.name}:{name}")
    return checks


def _named(report: CheckReport, name: str) -> list[Check]:
    return [
        check.model_copy(update={"name": f"{check.name}:{name}"}) for check in report.for_card()
    ]


def _rounds(judged: Judged) -> Iterator[tuple[str, dict[str, Verdicts]]]:
    """Attacks of one radius on one question that saw the same pictures."""
    rounds: dict[str, dict[str, Verdicts]] = {}
    for trial, verdicts in judged.trials:
        if verdicts is None:
            continue
        found = rounds.setdefault(f"{trial.target.name}:{trial.threat}", {})
        first = next(iter(found.values()), verdicts)
        if np.array_equal(first.rows, verdicts.rows):
            found[trial.attack.name] = verdicts
    yield from rounds.items()


def _agreement(measurement: Measurement) -> list[Check]:
    """Whether what is attacked answers as what is deployed does."""
    found = measurement.disagreements()
    if found is None:
        return []
    differing, n = found
    allowed = max(1, int(_DISAGREEING * n))
    result = CheckResult(
        name="deployed-agrees",
        passed=differing <= allowed,
        value=differing / n,
        allowed=f"{allowed} of {n}",
        finding=f"torch and the deployed ONNX bundle put another label on top for {differing} of "
        f"{n} clean pictures",
        reason="What is attacked is not what is deployed",
        remedy="export the bundle again; compare its precisions",
    )
    return _named(CheckReport((result,)), measurement.images.name)


def _confirmed(judged: Judged) -> list[Check]:
    """Whether perturbed images are wrong when the model looks at them again."""
    done = [verdicts for _, verdicts in judged.trials if verdicts is not None]
    if not done:
        return []
    broken = sum(len(verdicts.by) for verdicts in done)
    missed = sum(verdicts.n_unconfirmed for verdicts in done)
    allowed = max(1, int(_UNCONFIRMED * broken))
    result = CheckResult(
        name="perturbed-images-replay",
        passed=missed <= allowed,
        value=missed / broken if broken else 0.0,
        allowed=f"{allowed}, for rounding",
        finding=f"{missed} of {broken} perturbed images are right when looked at again",
        reason="An image that broke once and not again was broken by chance",
        remedy="look for what is random in the model, or depends on a batch",
    )
    return _named(CheckReport((result,)), judged.images.name)
