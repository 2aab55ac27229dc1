"""Checks of what attacks did: their perturbations, and who broke more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from robustzs.errors import EvaluationError
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.build import VERDICTS
from robustzs_training.evaluation.attacks.view import check_bounds
from robustzs_training.evaluation.checks.report import CheckReport, CheckResult

Verdicts = npt.NDArray[np.bool_]
"""bool ``[n]``: right before and under an attack."""

BLACK_BOX = ("square",)
INDIRECT = ("features", "captions", "prompts", "transfer")
_P_VALUE = 0.01
_LEFT_OVER = 0.02  # share of images that only the weaker attacker may break


def check_perturbation(
    clean: torch.Tensor, adversarial: torch.Tensor, threat: ThreatModel
) -> CheckResult:
    """Whether every image is inside the ball around its clean one and within [0, 1]."""
    allowed = f"{threat}, pixels in [0, 1], up to float32 rounding"
    try:
        largest, passed = check_bounds(clean, adversarial, threat), True
        finding = f"the largest perturbation is {largest:.6g}"
    except EvaluationError as error:
        delta = (adversarial.double() - clean.double()).flatten(1)
        sizes = delta.abs().amax(dim=1) if threat.norm == "Linf" else delta.norm(dim=1)
        largest, passed, finding = float(sizes.max()), False, error.message
    return CheckResult(
        name="perturbation-allowed",
        passed=passed,
        value=largest,
        allowed=allowed,
        finding=finding,
        reason="The attacker did what the threat model does not allow",
        remedy="this is a fault of the attack, not of the model; report it",
    )


def check_order(
    name: str, stronger: Verdicts, weaker: Verdicts, *, names: tuple[str, str], remedy: str
) -> CheckResult:
    """Whether a weaker attacker breaks no more than a stronger one, by more than noise.

    Refused if the images that only the weaker one breaks outnumber those that only the stronger one
    breaks (exact one-sided sign test, 1%), or are more than 2% of all (and more than 2).

    Args:
        name: Of the check.
        stronger: Verdicts under the attack that ought to be stronger.
        weaker: Verdicts under the other, of the same images.
        names: Of the stronger and the weaker, for people.
        remedy: What to do.

    Raises:
        EvaluationError: Verdicts of different images.
    """
    if stronger.shape != weaker.shape or stronger.ndim != 1:
        raise EvaluationError(
            f"verdicts of {stronger.shape} and {weaker.shape} images",
            hint="compare two attacks on the same images",
        )
    only_weaker = int((stronger & ~weaker).sum())
    only_stronger = int((~stronger & weaker).sum())
    chance = _sign_test(only_weaker, only_stronger)
    passed = chance >= _P_VALUE and only_weaker <= max(2, _LEFT_OVER * len(stronger))
    return CheckResult(
        name=name,
        passed=passed,
        value=float(only_weaker),
        allowed=f"at most 2 or {_LEFT_OVER:.0%} of the images, and not more than noise",
        finding=f"{names[1]} breaks {only_weaker} of {len(stronger)} images that {names[0]} "
        f"leaves standing, and misses {only_stronger} that it breaks (p = {chance:.2g})",
        reason=f"{names[0]} is the stronger attacker, so it was kept from what it could do",
        remedy=remedy,
    )


def check_outcomes(robust: Mapping[str, Verdicts], *, transfers: Iterable[str] = ()) -> CheckReport:
    """Compare attacks of one radius on the same images.

    All white-box verdicts (APGD, AutoAttack) together are held against each black-box attack, each
    that does not look at the deployed logits, and each of ``transfers``.

    Args:
        robust: Verdicts by the attacks' names; other names are left out.
        transfers: Names in ``robust`` of images that were made on another model or precision.
    """
    direct = [robust[name] for name in VERDICTS if name in robust]
    if not direct:
        return CheckReport()
    strongest = np.logical_and.reduce(direct)
    pairs = [
        ("black-box-not-stronger", name, "square needs no gradients: something masks them")
        for name in BLACK_BOX
        if name in robust
    ]
    pairs += [
        ("transfer-not-stronger", name, "give the direct attack more steps and restarts")
        for name in dict.fromkeys((*INDIRECT, *transfers))
        if name in robust
    ]
    return CheckReport(
        tuple(
            check_order(
                check, strongest, robust[name], names=("the white-box attack", name), remedy=remedy
            )
            for check, name, remedy in pairs
        )
    )


def check_leftovers(
    broken: Mapping[str, int],
    n: int,
    *,
    direct: str = "the attack on the twin",
    reason: str = "The twin does not lead to what breaks the deployed graph",
    remedy: str = "give the attack more steps; look at the twin's cosine in the protocol",
) -> CheckReport:
    """Whether an attack from inside left little to replays and to Square.

    They try what it left standing, so that each picture they break is one that it missed.

    Args:
        broken: Pictures that each part broke: ``replays`` and ``square``.
        n: Pictures.
        direct: The attack from inside, for people.
        reason: Why too many say that it is no good.
        remedy: What to do.
    """
    told = {
        "replays": ("transfer-not-stronger", "images made on the float32 model break"),
        "square": ("black-box-not-stronger", "Square breaks"),
    }
    allowed = int(max(2, _LEFT_OVER * n))
    return CheckReport(
        tuple(
            CheckResult(
                name=told[part][0],
                passed=count <= allowed,
                value=float(count),
                allowed=f"at most {allowed} of {n}",
                finding=f"{told[part][1]} {count} of {n} pictures that {direct} left standing",
                reason=reason,
                remedy=remedy,
            )
            for part, count in broken.items()
        )
    )


def check_steps(fewer: Verdicts, more: Verdicts, *, steps: tuple[int, int]) -> CheckResult:
    """Whether more steps break no less than fewer.

    Args:
        fewer: Verdicts after few steps.
        more: Verdicts after many, of the same attack on the same images.
        steps: How many each.
    """
    return check_order(
        "more-steps-not-weaker",
        more,
        fewer,
        names=(f"the attack of {steps[1]} steps", f"that of {steps[0]}"),
        remedy="the loss does not lead the attack: rescale the logits, try another loss",
    )


def _sign_test(only_weaker: int, only_stronger: int) -> float:
    """Chance of at least so many for the weaker one if both were equally strong."""
    n = only_weaker + only_stronger
    ways = sum(math.comb(n, k) for k in range(only_weaker, n + 1))
    return ways / 2**n
