"""APGD on the cross-entropy, by ``pyautoattack``: the verdict that is independent of our own PGD.

The attack runs in float32 whatever autocast is around it. Every image starts from noise of its own,
drawn from the seed and its place alone, so that neither batch nor order decides a verdict, but for
the rounding of sums inside the model.

Cross-entropy has no gradient where the largest logit is far above all others: its softmax is 1 in
float32, and a robust-looking number would only say that the logits are large (Croce and Hein, 2020,
section 4). A positive factor on all logits changes no prediction. So the attack is given the logits
multiplied by one factor, which brings the median gap between the largest and the smallest logit of
the clean images to 10; the factor is reported.

Source: F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from robustzs.errors import UntrustworthyResultError, UsageError
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.engine import run_watched
from robustzs_training.evaluation.attacks.view import (
    GAP,
    Watch,
    check_bounds,
    check_pixels,
    finite_logits,
    starting_points,
)

LogitsOf = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, int], None]
"""Told how many images are done, and of how many."""

_LOOKS = (3, 8)
"""An image is given up once it is broken: all are attacked until APGD has looked at the model three
times, those that stand until it has looked eight times, and the rest to the end. Every attack of an
image begins anew and takes the same path, so this changes no verdict."""
FEWEST_LOOKS = _LOOKS[0]
"""At a picture that breaks at once."""


def looks_at_standing(n_iter: int) -> int:
    """How often the model is shown a picture that withstands ``n_iter`` steps, with gradients."""
    whole = n_iter + 1
    return sum(min(n_calls, whole) for n_calls in _LOOKS) + whole


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
            done += len(rows) - (0 if n_calls is None else len(survivors))
            if progress is not None:
                progress(done, n_standing)
        standing = torch.cat(left) if left else standing
    return AttackOutcome(
        clean_correct=clean_correct,
        robust_correct=torch.zeros_like(clean_correct).index_fill_(0, standing, value=True),
        logit_factor=attacker.factor,
        adversarial=attacked.adversarial,
    )


class _Attacker:
    def __init__(
        self, logits_of: LogitsOf, threat: ThreatModel, n_iter: int, device: torch.device
    ) -> None:
        self.logits_of = logits_of
        self.threat = threat
        self.n_iter = n_iter
        self.device = device
        self.factor = 1.0
        self.n_classes = 0

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
        found = finite_logits(self.logits_of, pixels)
        self.n_classes = found.shape[1]
        return found

    def run(
        self, clean: torch.Tensor, labels: torch.Tensor, starts: torch.Tensor, n_calls: int | None
    ) -> Watch:
        """Attack; ``n_calls`` ends it after so many looks at the model."""
        right = F.one_hot(labels, self.n_classes).bool()
        watch = Watch(self.logits_of, right, self.factor, n_calls=n_calls)
        return run_watched(watch, clean, starts, threat=self.threat, n_steps=self.n_iter)


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
        starts = starting_points(clean, threat, self.seed, rows.tolist())
        watch = self.attacker.run(clean, self.labels[rows], starts, n_calls)
        broken = watch.broken.cpu()
        if watch.found is not None:
            check_bounds(clean[watch.broken], watch.found[watch.broken], threat)
            if self.adversarial is not None:
                self.adversarial[rows[broken]] = watch.found[watch.broken]
        watch.check()
        return rows[~broken]


def _check(pixels: torch.Tensor, labels: torch.Tensor) -> None:
    check_pixels(pixels)
    if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
        raise UsageError(
            f"labels are {labels.dtype} {list(labels.shape)} for {len(pixels)} images",
            hint="give one int64 class for each image",
        )
