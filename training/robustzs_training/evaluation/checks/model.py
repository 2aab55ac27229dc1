"""Checks of a model: its mode, its logits, its gradients, and a radius that must break it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from robustzs.threat import ThreatModel, format_size
from robustzs_training.evaluation.attacks.build import build_attack
from robustzs_training.evaluation.attacks.view import GAP, factors_of, finite_logits, fold_scaled
from robustzs_training.evaluation.base import Victim
from robustzs_training.evaluation.checks.report import CheckReport, CheckResult

_SAME = 1e-3  # of the gap between an image's largest and smallest logit
_AGREES = (0.5, 1.5)  # of what the gradient predicts
_ENOUGH_AGREE = 0.75
_NO_ROBUSTNESS = 8.0 / 255.0
_NOTHING_STANDS = 128.0 / 255.0  # every image can be made one and the same grey


def check_mode(model: nn.Module) -> CheckResult:
    """Whether every part is in evaluation mode."""
    kind = type(model).__name__
    training = [name or kind for name, part in model.named_modules() if part.training]
    return CheckResult(
        name="evaluation-mode",
        passed=not training,
        value=float(len(training)),
        allowed="no part in training mode",
        finding=f"{len(training)} parts are in training mode"
        + (f", the first is {training[0]!r}" if training else ""),
        reason="Dropout draws at random, and BatchNorm mixes the images of a batch",
        remedy="call model.eval() before measuring",
    )


def check_victim(
    victim: Victim,
    pixels: torch.Tensor,
    right: torch.Tensor,
    *,
    model: nn.Module | None = None,
    rescale: bool = True,
) -> CheckReport:
    """Look at a model before it is attacked.

    Args:
        victim: The model as attacked.
        pixels: float32 ``[B, 3, H, W]`` in [0, 1]: some of the set's; 8 to 32 are enough.
        right: bool ``[B, C]``.
        model: Its modules, where they are at hand.
        rescale: Whether attacks see logits scaled to one gap.

    Raises:
        UntrustworthyResultError: Logits are not finite, of half precision, or all equal.
    """
    pixels, right = pixels.to(victim.device), right.to(victim.device)
    with torch.no_grad():
        logits = finite_logits(victim.logits_of, pixels)
        again = finite_logits(victim.logits_of, pixels)
        alone = torch.cat([finite_logits(victim.logits_of, image[None]) for image in pixels])
    gap = factors_of(logits).reciprocal()[:, None] * GAP
    results = [] if model is None else [check_mode(model)]
    results += [
        _check_probabilities(logits),
        _check_same("repeatable", float(((again - logits).abs() / gap).max())),
        _check_same("independent-of-the-batch", float(((alone - logits).abs() / gap).max())),
        _check_saturation(logits, right, rescale),
    ]
    return CheckReport((*results, *_check_gradients(victim, pixels, right, logits)))


def _check_probabilities(logits: torch.Tensor) -> CheckResult:
    sums = logits.sum(dim=1)
    furthest = float((sums - 1.0).abs().max())
    within = bool(((logits >= -1e-6) & (logits <= 1.0 + 1e-6)).all())
    found = within and furthest < 1e-4
    return CheckResult(
        name="logits-not-probabilities",
        passed=not found,
        value=furthest,
        allowed="rows that leave [0, 1], or do not sum to 1",
        finding=f"rows sum to 1 within {furthest:.2g} and "
        + ("lie in [0, 1]" if within else "leave [0, 1]"),
        reason="The softmax of a softmax is nearly flat, and attacks on it are weak",
        remedy="give the logits, before any softmax",
    )


def _check_same(name: str, difference: float) -> CheckResult:
    random = name == "repeatable"
    return CheckResult(
        name=name,
        passed=difference <= _SAME,
        value=difference,
        allowed=f"at most {_SAME:g} of the gap between largest and smallest logit",
        finding=("two looks at the same images" if random else "an image alone and in its batch")
        + f" give logits that differ by {difference:.3g} of their gap",
        reason="A gradient of one draw says little about the next"
        if random
        else "An image's verdict would depend on its neighbours",
        remedy="remove what is random, or report the expectation over many draws"
        if random
        else "put BatchNorm into evaluation mode, quantise with fixed ranges",
    )


def _check_saturation(logits: torch.Tensor, right: torch.Tensor, rescale: bool) -> CheckResult:
    own = logits.softmax(dim=1).masked_fill(~right, 0.0).sum(dim=1)
    share = float((own >= 1.0).double().mean())
    return CheckResult(
        name="not-saturated",
        passed=rescale or share == 0.0,
        value=share,
        allowed="any, since attacks see scaled logits" if rescale else "none",
        finding=f"{share:.0%} of the images have probability 1 in float32",
        reason="Cross-entropy has no gradient there, and images look robust that are not",
        remedy="let attacks rescale the logits",
    )


def _objective(
    victim: Victim, pixels: torch.Tensor, right: torch.Tensor, factors: torch.Tensor
) -> torch.Tensor:
    """Smooth margin of the wrong labels over the right ones, of scaled logits: ``[B]``."""
    folded, first = fold_scaled(finite_logits(victim.logits_of, pixels), right, factors)
    wrong = folded.scatter(1, first[:, None], -torch.inf).logsumexp(dim=1)
    return wrong - folded.gather(1, first[:, None]).squeeze(1)


def _gradient(
    victim: Victim, pixels: torch.Tensor, right: torch.Tensor, factors: torch.Tensor
) -> torch.Tensor | None:
    with torch.enable_grad():
        leaf = pixels.detach().clone().requires_grad_()
        value = _objective(victim, leaf, right, factors)
        if not value.requires_grad:
            return None
        return torch.autograd.grad(value.sum(), leaf)[0].detach()


def _check_gradients(
    victim: Victim, pixels: torch.Tensor, right: torch.Tensor, logits: torch.Tensor
) -> tuple[CheckResult, ...]:
    breakable = ~right.all(dim=1)
    factors = factors_of(logits, right)[breakable]
    base, right = pixels[breakable], right[breakable]
    # On 8-bit values, off the ends: where rounding to them would hide a small step altogether.
    base = ((base * 255.0).round() / 255.0).clamp(1.0 / 255.0, 254.0 / 255.0)
    first = _gradient(victim, base, right, factors)
    if first is None or not len(base):
        return (_check_moving(len(base), len(base), "there is no gradient at all"),)
    slopes = first.double().flatten(1).abs().sum(dim=1)
    stuck = int((slopes == 0.0).sum()) + int((~slopes.isfinite()).sum())
    moving = _check_moving(stuck, len(base), f"{stuck} of {len(base)} gradients are zero")
    if not moving.passed:
        return (moving,)
    second = _gradient(victim, base, right, factors)
    one, other = (each.double().flatten(1) for each in (first, first if second is None else second))
    steady = _check_steady(float(torch.cosine_similarity(one, other, dim=1).min()))
    return moving, steady, _check_followed(victim, base, right, factors, first, slopes)


def _check_moving(stuck: int, n: int, finding: str) -> CheckResult:
    return CheckResult(
        name="gradient-not-zero",
        passed=stuck == 0,
        value=stuck / n if n else 0.0,
        allowed="a gradient for every image",
        finding=finding,
        reason="Attacks that follow gradients cannot move, whatever the model is worth",
        remedy="remove rounding and saturation from the model, or attack a twin that lets "
        "gradients through; give the torch model, not its export",
    )


def _check_steady(agreement: float) -> CheckResult:
    return CheckResult(
        name="gradient-not-random",
        passed=agreement >= 0.99,
        value=agreement,
        allowed="a cosine of at least 0.99 between two gradients of the same image",
        finding=f"two gradients of the same image have a cosine of {agreement:.4f} at least",
        reason="Each step would follow another draw",
        remedy="remove what is random, or average gradients over many draws",
    )


@torch.no_grad()
def _check_followed(
    victim: Victim,
    base: torch.Tensor,
    right: torch.Tensor,
    factors: torch.Tensor,
    gradient: torch.Tensor,
    slopes: torch.Tensor,
) -> CheckResult:
    """A small step along the gradient changes the loss as the gradient says."""
    size = (0.05 / slopes).clamp_max(0.25 / 255.0).to(base.dtype)
    step = size.view(-1, 1, 1, 1) * gradient.sign()
    ahead, behind = base + step, base - step
    moved = (ahead - behind).double()
    predicted = (gradient.double() * moved).flatten(1).sum(dim=1)
    change = _objective(victim, ahead, right, factors) - _objective(victim, behind, right, factors)
    ratios = change.double() / predicted
    share = float(((ratios >= _AGREES[0]) & (ratios <= _AGREES[1])).double().mean())
    return CheckResult(
        name="gradient-followed",
        passed=share >= _ENOUGH_AGREE,
        value=float(ratios.median()),
        allowed=f"a change of {_AGREES[0]:g} to {_AGREES[1]:g} times what the gradient predicts, "
        f"for {_ENOUGH_AGREE:.0%} of the images",
        finding=f"a small step changes the loss by {float(ratios.median()):.3g} times what the "
        f"gradient predicts (median); {share:.0%} of the images pass",
        reason="The gradient is not the model's: it is masked, as by rounding to 8 bits",
        remedy="attack the model without the rounding, and report the rounded one as deployed",
    )


def check_limit(
    victim: Victim,
    pixels: torch.Tensor,
    right: torch.Tensor,
    rows: Sequence[int],
    *,
    claims_robustness: bool,
    n_steps: int = 40,
    seed: int = 0,
) -> CheckResult:
    """Attack a few images with a radius that must break them.

    Args:
        victim: The model.
        pixels: float32 ``[B, 3, H, W]``: 8 to 16 images are enough.
        right: bool ``[B, C]``.
        rows: Their places in the set.
        claims_robustness: Whether the model was hardened: then 128/255, at which every image can
            be made the same grey; else 8/255, at which none of an ordinary model stands.
        n_steps: Of APGD on the cross-entropy.
        seed: Of the attack.
    """
    eps = _NOTHING_STANDS if claims_robustness else _NO_ROBUSTNESS
    attack = build_attack("apgd-ce", ThreatModel(eps=eps), n_steps=n_steps, seed=seed)
    with torch.no_grad():
        clean = finite_logits(victim.logits_of, pixels.to(victim.device))
    wrong = ~right.to(victim.device).gather(1, clean.argmax(dim=1, keepdim=True)).squeeze(1)
    broken = attack(victim, pixels, right, rows).broken
    counted = ~wrong & ~right.to(victim.device).all(dim=1)
    n, standing = int(counted.sum()), int((counted & ~broken).sum())
    allowed = 0 if claims_robustness else max(1, n // 50)
    return CheckResult(
        name="limit",
        passed=standing <= allowed,
        value=standing / n if n else 0.0,
        allowed=f"at most {allowed} of {n} stand at {format_size(eps)}",
        finding=f"{standing} of {n} images stand at {format_size(eps)}, {n_steps} steps",
        reason="No model that sees its input stands there"
        if claims_robustness
        else "A model that was not hardened does not stand there",
        remedy="look for what masks gradients; compare with Square, which needs none",
    )
