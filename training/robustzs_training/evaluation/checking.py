"""Checks around a measurement: what must hold before and after, or no number is published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from robustzs.cards.schema import Check
from robustzs_training.evaluation.assembly import Bench
from robustzs_training.evaluation.attacks.build import VERDICTS
from robustzs_training.evaluation.attacks.ensemble import AutoAttack
from robustzs_training.evaluation.checks import (
    BLACK_BOX,
    CheckReport,
    CheckResult,
    check_leftovers,
    check_limit,
    check_outcomes,
    check_victim,
)
from robustzs_training.evaluation.deployed import DeployedAttack
from robustzs_training.evaluation.deployed.attack import REPLAYED
from robustzs_training.evaluation.hierarchical.checks import check_transfer
from robustzs_training.evaluation.hierarchical.report import robust_outcomes
from robustzs_training.evaluation.hierarchical.scores import Scores
from robustzs_training.evaluation.publish import Judged, hardened
from robustzs_training.evaluation.run import Measurement, Verdicts
from robustzs_training.evaluation.scenes import Scene
from robustzs_training.evaluation.trials import Target, Trial

N_LOOKED_AT = 16
_UNCONFIRMED = 0.01
_DISAGREEING = 0.02


def checks_before(bench: Bench, scene: Scene, measurement: Measurement) -> list[Check]:
    """Look at the model by a few pictures that it is right about, and at the deployed bundle.

    Raises:
        UntrustworthyResultError: Logits are not finite, of half precision, or all equal.
    """
    rows = np.sort(measurement.standing(scene.targets[0])[:N_LOOKED_AT])
    checks = _agreement(measurement, scene)
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
        checks += _between_depths(each)
        checks += _of_ensembles(each)
        checks += _of_deployed(each)
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


def _between_depths(judged: Judged) -> list[Check]:
    """Whether what transfers from another depth is weaker than each depth's own attack."""
    scorer, noted = judged.scorer, judged.noted
    if scorer is None or noted is None:
        return []
    rounds: dict[str, dict[str, tuple[Trial, Verdicts]]] = {}
    for trial, verdicts in judged.trials:
        if verdicts is None or trial.attack.name not in VERDICTS:
            continue
        found = rounds.setdefault(f"{trial.attack.name} {trial.threat}", {})
        first = next((each for _, each in found.values()), verdicts)
        if len(verdicts.rows) and np.array_equal(first.rows, verdicts.rows):
            found[trial.target.name] = (trial, verdicts)
    checks: list[Check] = []
    for name, members in rounds.items():
        outcomes = {}
        for attacked, (trial, verdicts) in members.items():
            before, under = (
                Scores.from_notes(notes, scorer.names) for notes in noted(trial, verdicts.rows)
            )
            outcomes[attacked] = robust_outcomes(
                before, under, attacked=attacked, robust=verdicts.robust
            )
        checks += _named(check_transfer(outcomes), f"{judged.images.name}:{name}")
    return checks


def _of_ensembles(judged: Judged) -> list[Check]:
    """Whether an ensemble's gradients left little to its black-box member, which comes last."""
    checks: list[Check] = []
    for trial, verdicts in judged.trials:
        attack = trial.attack
        if verdicts is None or not isinstance(attack, AutoAttack):
            continue
        for member in attack.members:
            if member.name in BLACK_BOX:
                report = check_leftovers(
                    {member.name: list(verdicts.by.values()).count(member.name)},
                    len(verdicts.rows),
                    direct="the white-box members of the ensemble",
                    reason="square needs no gradients: something masks them",
                    remedy="look for rounding, saturation or randomness in the model",
                )
                name = f"{judged.images.name}:{trial.target.name}:{trial.threat}:{attack.name}"
                checks += _named(report, name)
    return checks


def _of_deployed(judged: Judged) -> list[Check]:
    """Whether the twins of deployed encoders are any good."""
    checks: list[Check] = []
    for trial, verdicts in judged.trials:
        attack = trial.attack
        if verdicts is None or not isinstance(attack, DeployedAttack) or attack.twin is None:
            continue
        by = list(verdicts.by.values())
        broken: dict[str, int] = {}
        if attack.parent is not None and attack.replayed:
            broken["replays"] = sum(name.endswith(REPLAYED) for name in by)
        if attack.by_scores is not None:
            broken["square"] = by.count(attack.by_scores.name)
        name = f"{judged.images.name}:{trial.target.name}:{trial.threat}"
        checks += _named(check_leftovers(broken, len(verdicts.rows)), name)
    return checks


def _compared(measurement: Measurement, scene: Scene) -> Target | None:
    """The deployed precision that has to answer as torch does: the bundle's default.

    Where the default is attacked for itself, torch's rows need not stand for it: they have to stand
    for its float32 sibling, if there is one.
    """
    default = next(iter(measurement.precisions), None)
    if default is None or default.precision is None:
        return None
    if all(trial.target.precision != default.precision for trial in scene.trials):
        return default
    exact = f"fp32/{default.precision.partition('/')[2]}"
    return next((each for each in measurement.precisions if each.precision == exact), default)


def _agreement(measurement: Measurement, scene: Scene) -> list[Check]:
    """Whether what is attacked answers as what is deployed does."""
    found = measurement.disagreements(_compared(measurement, scene))
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
        remedy="export the bundle again; or attack what is deployed, too: --precision default",
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
