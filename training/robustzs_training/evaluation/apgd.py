"""APGD on the cross-entropy, by ``pyautoattack``: the verdict that is independent of our own PGD.

The attack runs in float32 whatever autocast is around it. Every image starts from noise of its own,
drawn from the seed and its place alone, so that neither batch nor order decides a verdict, but for
the rounding of sums inside the model.

Cross-entropy has no gradient where the largest logit is far above all others: its softmax is 1 in
float32, and a robust-looking number would only say that the logits are large (Croce and Hein, 2020,
section 4). A positive factor on all logits changes no prediction. So the attack is given the logits
multiplied by one factor, which brings the median gap between the largest and the smallest logit of
the clean images to :data:`GAP`; the factor is reported.

Source: F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from pyautoattack.autopgd_base import APGDAttack

from robustzs.errors import EvaluationError, UntrustworthyResultError, UsageError
from robustzs.threat import ThreatModel

LogitsOf = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, int], None]
"""Told how many images are done, and of how many."""

GAP = 10.0
"""Median of the largest minus the smallest logit that the attack is given."""
_LOOKS = (3, 8)
"""An image is given up once it is broken: all are attacked until APGD has looked at the model three
times, those that stand until it has looked eight times, and the rest to the end. Every attack of an
image begins anew and takes the same path, so this changes no verdict."""
_TOLERANCE = 1e-6  # float32 rounding of x + eps; a 1/255 is 4e-3


@dataclass(frozen=True, kw_only=True)
class AttackOutcome:
    """What an attack left standing.

    Attributes:
        clean_correct: bool ``[n]``, right before the attack.
        robust_correct: bool ``[n]``, right before and after it.
        adversarial: float32 ``[n, 3, H, W]``: the perturbed image where the attack succeeded, the
            clean one elsewhere; ``None`` unless asked for.
        logit_factor: What the logits were multiplied by for the attack.
    """

    clean_correct: torch.Tensor
    robust_correct: torch.Tensor
    logit_factor: float
    adversarial: torch.Tensor | None = None

    @property
    def clean_accuracy(self) -> float:
        """In [0, 1]."""
        return float(self.clean_correct.double().mean())

    @property
    def robust_accuracy(self) -> float:
        """In [0, 1]."""
        return float(self.robust_correct.double().mean())


def apgd_ce(
    logits_of: LogitsOf,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    threat: ThreatModel,
    n_iter: int = 20,
    seed: int = 0,
    batch_size: int = 32,
    keep_adversarial: bool = False,
    progress: Progress | None = None,
) -> AttackOutcome:
    """Attack every image that is classified right; one restart.

    Args:
        logits_of: ``pixels`` ``[B, 3, H, W]`` in [0, 1] -> logits ``[B, C]``, not probabilities;
            one image's logits must not depend on the others in its batch. Its models are in
            evaluation mode and their weights ask for no gradient.
        pixels: float32 ``[n, 3, H, W]`` in [0, 1], on the CPU or where the model is.
        labels: int64 ``[n]``, right classes.
        threat: Norm and radius.
        n_iter: Steps.
        seed: Of starting points.
        batch_size: Images that are attacked together.
        keep_adversarial: Whether to keep the perturbed images.
        progress: Told after every batch.

    Raises:
        UsageError: Pixels or labels of another kind.
        UntrustworthyResultError: Logits or gradients are not finite, or gradients are zero.
        EvaluationError: A perturbation is larger than the threat model allows.
    """
    _check(pixels, labels)
    attacker = _Attacker(logits_of, threat, n_iter, pixels.device)
    clean, gaps = [], []
    for part, truth in zip(pixels.split(batch_size), labels.split(batch_size), strict=True):
        logits = attacker.logits(part)
        clean.append(logits.argmax(dim=1).to(truth.device) == truth)
        gaps.append((logits.amax(dim=1) - logits.amin(dim=1)).cpu())
    clean_correct = torch.cat(clean).cpu()
    attacker.set_factor(float(torch.cat(gaps).median()))
    attacked = _Attacked(attacker, pixels, labels, seed=seed, keep=keep_adversarial)
    standing = clean_correct.nonzero().flatten()
    n_standing, done = len(standing), 0
    for n_calls in (*_LOOKS, None):
        left = []
        for rows in standing.split(batch_size):
            survivors = attacked.attack(rows, n_calls)
            left.append(survivors)
            done += len(rows) if n_calls is None else len(rows) - len(survivors)
            if progress is not None:
                progress(done, n_standing)
        standing = torch.cat(left) if left else standing
    robust_correct = torch.zeros_like(clean_correct)
    robust_correct[standing] = True
    return AttackOutcome(
        clean_correct=clean_correct,
        robust_correct=robust_correct,
        logit_factor=attacker.factor,
        adversarial=attacked.adversarial,
    )


class _FromOwnNoise(APGDAttack):
    """APGD whose starting points are given instead of drawn for the whole batch."""

    start: torch.Tensor | None = None

    def attack_single_run(
        self, x: torch.Tensor, y: torch.Tensor, x_init: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        found = super().attack_single_run(x, y, self.start if x_init is None else x_init)
        return cast("tuple[torch.Tensor, ...]", found)


class _Attacker:
    def __init__(
        self, logits_of: LogitsOf, threat: ThreatModel, n_iter: int, device: torch.device
    ) -> None:
        self.logits_of = logits_of
        self.threat = threat
        self.n_iter = n_iter
        self.device = device
        self.factor = 1.0

    def set_factor(self, gap: float) -> None:
        """Choose the factor on logits from the median gap of the clean images."""
        if gap <= 0.0:
            raise UntrustworthyResultError(
                "all logits are equal: nothing tells the classes apart",
                hint="check the class features, and that the model is the trained one",
            )
        self.factor = GAP / gap

    @torch.no_grad()
    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Float32 logits, without gradients."""
        return self.finite_logits(pixels)

    def finite_logits(self, pixels: torch.Tensor) -> torch.Tensor:
        laid_out = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, enabled=False):
            logits = self.logits_of(laid_out)
        if logits.dtype not in (torch.float32, torch.float64):
            raise UntrustworthyResultError(
                f"logits are {logits.dtype}", hint="measure in float32: half precision masks"
            )
        if not bool(logits.isfinite().all()):
            raise UntrustworthyResultError(
                "a logit is not finite", hint="the weights may have diverged"
            )
        return logits.float()

    def run(
        self, clean: torch.Tensor, labels: torch.Tensor, starts: torch.Tensor, n_calls: int | None
    ) -> _Watch:
        """Attack; ``n_calls`` ends it after so many looks at the model."""
        watch = _Watch(self, labels, n_calls)
        attack = _FromOwnNoise(
            watch,
            n_iter=self.n_iter,
            norm=self.threat.norm,
            n_restarts=1,
            eps=self.threat.eps,
            loss="ce",
            device=self.device,
        )
        attack.start = starts
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), contextlib.suppress(_Enough):
            attack.init_hyperparam(clean)
            # perturb() would decide again which images to attack; rounding must not.
            attack.attack_single_run(clean, labels)
        return watch


class _Enough(Exception):
    """The attack has been looked at long enough."""


class _Watch:
    """The model as APGD sees it, and what APGD shows to it: the first break of every image."""

    def __init__(self, attacker: _Attacker, labels: torch.Tensor, n_calls: int | None) -> None:
        self.attacker = attacker
        self.labels = labels
        self.n_calls = n_calls
        self.calls = 0
        self.broken = torch.zeros_like(labels, dtype=torch.bool)
        self.found: torch.Tensor | None = None
        self.moved = torch.zeros_like(self.broken)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = self.attacker.finite_logits(pixels)
        if not logits.requires_grad:
            raise UntrustworthyResultError(
                "logits do not depend differentiably on pixels",
                hint="give the torch model, not its exported or quantised form",
            )
        with torch.no_grad():
            fresh = (logits.argmax(dim=1) != self.labels) & ~self.broken
            if self.found is None:
                self.found = pixels.detach().clone()
            self.found[fresh] = pixels.detach()[fresh]
            self.broken |= fresh
        self.calls += 1
        if self.calls == self.n_calls or bool(self.broken.all()):
            raise _Enough
        pixels.register_hook(self._look)
        return self.attacker.factor * logits

    def _look(self, gradient: torch.Tensor) -> None:
        if not bool(gradient.isfinite().all()):
            raise UntrustworthyResultError(
                "a gradient is not finite", hint="the weights may have diverged"
            )
        self.moved |= gradient.flatten(1).abs().amax(dim=1) > 0.0


class _Attacked:
    """All images of one measurement."""

    def __init__(
        self,
        attacker: _Attacker,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        *,
        seed: int,
        keep: bool,
    ) -> None:
        self.attacker = attacker
        self.pixels = pixels
        self.labels = labels
        self.seed = seed
        self.adversarial = pixels.clone() if keep else None

    def attack(self, rows: torch.Tensor, n_calls: int | None) -> torch.Tensor:
        """Attack these images; returns those that stand."""
        if not len(rows):
            return rows
        clean = self.pixels[rows].contiguous()
        threat = self.attacker.threat
        starts = _starts(clean, threat, [(self.seed, int(row)) for row in rows])
        watch = self.attacker.run(clean, self.labels[rows], starts, n_calls)
        broken = watch.broken.cpu()
        if watch.found is not None:
            _check_bounds(clean[watch.broken], watch.found[watch.broken], threat)
            if self.adversarial is not None:
                self.adversarial[rows[broken]] = watch.found[watch.broken]
        stuck = int((~watch.moved & ~watch.broken).sum())
        if stuck:
            raise UntrustworthyResultError(
                f"the gradient is zero for {stuck} of {len(rows)} images: no attack can move",
                hint="a rounding or saturated step in the model masks gradients; remove it",
            )
        return rows[~broken]


def _starts(clean: torch.Tensor, threat: ThreatModel, seeds: list[tuple[int, int]]) -> torch.Tensor:
    """Where each image starts, as APGD draws it: on the surface of its own ball."""
    rows = []
    for image, (seed, place) in zip(clean, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + place)
        if threat.norm == "Linf":
            noise = 2.0 * torch.rand(image.shape, generator=generator) - 1.0
            noise = noise / noise.abs().amax()
        else:
            noise = torch.randn(image.shape, generator=generator)
            noise = noise / noise.norm()
        rows.append((image + threat.eps * noise.to(image)).clamp(0.0, 1.0))
    return torch.stack(rows)


def _check_bounds(clean: torch.Tensor, adversarial: torch.Tensor, threat: ThreatModel) -> None:
    if not len(clean):
        return
    delta = (adversarial - clean).double().flatten(1)
    sizes = delta.abs().amax(dim=1) if threat.norm == "Linf" else delta.norm(dim=1)
    allowed = threat.eps + _TOLERANCE * (1.0 if threat.norm == "Linf" else max(threat.eps, 1.0))
    largest = float(sizes.amax())
    outside = float(adversarial.amin()) < 0.0 or float(adversarial.amax()) > 1.0
    if largest > allowed or outside or not bool(adversarial.isfinite().all()):
        raise EvaluationError(
            f"a perturbation of size {largest:.6g} in {threat.norm}, allowed {threat.eps:.6g}"
            + (", with pixels outside [0, 1]" if outside else ""),
            hint="this is a fault of the attack, not of the model; report it",
        )


def _check(pixels: torch.Tensor, labels: torch.Tensor) -> None:
    if pixels.dtype != torch.float32 or pixels.ndim != 4 or not len(pixels):
        raise UsageError(
            f"pixels are {pixels.dtype} {list(pixels.shape)}",
            hint="give float32 [n, 3, H, W] with at least one image",
        )
    if not 0.0 <= float(pixels.min()) <= float(pixels.max()) <= 1.0:
        raise UsageError(
            f"pixels span {float(pixels.min()):g} to {float(pixels.max()):g}",
            hint="pixels are in [0, 1]; normalisation happens inside the model",
        )
    if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
        raise UsageError(
            f"labels are {labels.dtype} {list(labels.shape)} for {len(pixels)} images",
            hint="give one int64 class for each image",
        )
