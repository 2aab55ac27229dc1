"""A model as attacks see it: finite float32 logits, several right labels as one, verdicts.

Where several labels are right, losses see them as one class whose logit is the logsumexp of theirs
(``mass``: the probability of exactly these labels falls) or their maximum (``top``: the margin of
the verdict itself). That is of the model's own logits; what attacks see is scaled afterwards. With
one right label per image the logits are left as they are, bit for bit.
The verdict is always top-1 of the logits as they are.
"""

from __future__ import annotations

from typing import Literal

import torch

from robustzs.errors import EvaluationError, UntrustworthyResultError, UsageError
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.base import TensorFunction

Fold = Literal["mass", "top"]

GAP = 10.0
"""What attacks see between the largest and the smallest logit; see :mod:`..apgd`."""
_TOLERANCE = 1e-6  # float32 rounding of x + eps; a 1/255 is 4e-3


def finite_logits(logits_of: TensorFunction, pixels: torch.Tensor) -> torch.Tensor:
    """Float32 logits ``[B, C]``, computed without autocast.

    Raises:
        UntrustworthyResultError: Half precision, or a logit that is not finite.
    """
    laid_out = pixels.contiguous(memory_format=torch.channels_last)
    with torch.autocast(pixels.device.type, enabled=False):
        logits = logits_of(laid_out)
    if logits.dtype not in (torch.float32, torch.float64):
        raise UntrustworthyResultError(
            f"logits are {logits.dtype}", hint="measure in float32: half precision masks"
        )
    if not bool(logits.isfinite().all()):
        raise UntrustworthyResultError(
            "a logit is not finite", hint="the weights may have diverged"
        )
    return logits.float()


def judge(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The verdict, bool ``[B]``: whether the largest logit's label is right.

    Args:
        logits: ``[B, C]``, as deployed.
        right: bool ``[B, C]``.
    """
    return right.gather(1, logits.argmax(dim=1, keepdim=True)).squeeze(1)


def fold(
    logits: torch.Tensor, right: torch.Tensor, how: Fold = "mass"
) -> tuple[torch.Tensor, torch.Tensor]:
    """All right labels as one.

    Args:
        logits: ``[B, C]``.
        right: bool ``[B, C]``, at least one in every row.
        how: See above. With ``top``, the margin is positive exactly where the verdict is right,
            and negative where it is wrong: a tie becomes the smallest lead.

    Returns:
        ``[B, C]`` with ``-inf`` for all right labels but the first, and int64 ``[B]``, the place of
        that one.
    """
    first = right.int().argmax(dim=1)
    column = first[:, None]
    others = right.scatter(1, column, False)
    if how == "mass":
        if not bool(others.any()):
            return logits, first
        joined = logits.masked_fill(~right, -torch.inf).logsumexp(dim=1, keepdim=True)
    else:
        joined = logits.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        joined = joined + _tie_break(joined.detach(), logits.detach(), right)
    return logits.masked_fill(others, -torch.inf).scatter(1, column, joined), first


def _tie_break(joined: torch.Tensor, logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    rival = logits.masked_fill(right, -torch.inf).amax(dim=1, keepdim=True)
    end = torch.where(judge(logits, right)[:, None], torch.inf, -torch.inf).to(joined)
    lead = torch.nextafter(joined, end) - joined
    return torch.where(rival == joined, lead, torch.zeros_like(lead))


def fold_scaled(
    logits: torch.Tensor, right: torch.Tensor, factors: torch.Tensor, how: Fold = "mass"
) -> tuple[torch.Tensor, torch.Tensor]:
    """What losses see: all right labels as one, as :func:`fold` has it, then scaled.

    A logsumexp of scaled logits would be that of a model with another temperature: the warmer it
    is, the more labels that hardly count share in it.

    Args:
        logits: ``[B, C]``, as deployed.
        right: bool ``[B, C]``.
        factors: ``[B]``, above 0.
        how: See :func:`fold`.
    """
    column = factors[:, None]
    if how == "top":  # the same, scaled before or after; a tie's lead would be rounded away after
        return fold(logits * column, right, how)
    folded, first = fold(logits, right, how)
    return folded * column, first


def factors_of(logits: torch.Tensor, right: torch.Tensor | None = None) -> torch.Tensor:
    """What to multiply each image's logits by for a gap of :data:`GAP`: ``[B]``.

    Args:
        logits: ``[B, C]``, as deployed.
        right: bool ``[B, C]``, for :func:`fold_scaled`: the mass of many labels may be further
            from the others than any logit is, and what is seen of it has no larger gap either.

    Raises:
        UntrustworthyResultError: An image's logits are all equal.
    """
    logits = logits.detach()
    gap = logits.amax(dim=1) - logits.amin(dim=1)
    if logits.shape[1] < 2 or bool((gap <= 0.0).any()):
        raise UntrustworthyResultError(
            "all logits are equal: nothing tells the classes apart",
            hint="check the class features, and that the model is the trained one",
        )
    if right is not None:
        folded, _ = fold(logits, right)
        least = folded.masked_fill(~folded.isfinite(), torch.inf).amin(dim=1)
        gap = gap.maximum(folded.amax(dim=1) - least)
    return GAP / gap


class Enough(Exception):
    """An attack has looked at the model often enough."""


class Gradients:
    """Looks at what flows back into pixels: finite, and not zero for good."""

    def __init__(self, n: int, device: torch.device) -> None:
        self.moved = torch.zeros(n, dtype=torch.bool, device=device)

    def watch(self, pixels: torch.Tensor) -> None:
        """Look at the gradient of these ``[n, 3, H, W]`` when it comes."""
        pixels.register_hook(self._look)

    def _look(self, gradient: torch.Tensor) -> None:
        if not bool(gradient.isfinite().all()):
            raise UntrustworthyResultError(
                "a gradient is not finite", hint="the weights may have diverged"
            )
        self.moved |= gradient.flatten(1).abs().amax(dim=1) > 0.0

    def check(self, standing: torch.Tensor) -> None:
        """Refuse if some of the images that stand, bool ``[n]``, never had a gradient.

        Raises:
            UntrustworthyResultError: Some had none.
        """
        stuck = int((~self.moved & standing).sum())
        if stuck:
            raise UntrustworthyResultError(
                f"the gradient is zero for {stuck} of {len(standing)} images: no attack can move",
                hint="a rounding or saturated step in the model masks gradients; remove it",
            )


def differentiable(outputs: torch.Tensor) -> torch.Tensor:
    """``outputs``, if gradients can flow through them.

    Raises:
        UntrustworthyResultError: They cannot.
    """
    if not outputs.requires_grad:
        raise UntrustworthyResultError(
            "logits do not depend differentiably on pixels",
            hint="give the torch model, not its exported or quantised form",
        )
    return outputs


class Watch:
    """The model as a gradient attack sees it; notes the first break of every image.

    A broken image costs nothing from then on: the model is only shown those that stand, and the
    attack sees zeros for the others. Attributes as the attack left them: ``broken`` bool ``[B]``,
    ``found`` ``[B, 3, H, W]`` (where broken: the image that did it; else the last one shown).

    Args:
        logits_of: The model.
        right: bool ``[B, C]``.
        factor: On logits that are folded: a number, or ``[B]``.
        n_calls: End after so many looks.
        how: See :func:`fold`.
    """

    def __init__(
        self,
        logits_of: TensorFunction,
        right: torch.Tensor,
        factor: torch.Tensor | float,
        *,
        n_calls: int | None = None,
        how: Fold = "mass",
    ) -> None:
        self.logits_of = logits_of
        self.right = right
        self.how: Fold = how
        n = len(right)
        self.factor = torch.as_tensor(factor, device=right.device).expand(n)
        self.n_calls = n_calls
        self.calls = 0
        self.broken = torch.zeros(n, dtype=torch.bool, device=right.device)
        self.found: torch.Tensor | None = None
        self.gradients = Gradients(n, right.device)

    @property
    def labels(self) -> torch.Tensor:
        """int64 ``[B]``: where a folded row has what is right."""
        return self.right.int().argmax(dim=1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Folded logits ``[B, C]``, after the factor."""
        all_stand = not bool(self.broken.any())
        places = (~self.broken).nonzero().flatten()
        shown = pixels if all_stand else pixels[places]
        right = self.right[places]
        logits = differentiable(finite_logits(self.logits_of, shown))
        with torch.no_grad():
            fresh = places[~judge(logits, right)]
            if self.found is None:
                self.found = pixels.detach().clone()
            self.found[places] = shown.detach()
            self.broken[fresh] = True
        self.calls += 1
        if self.calls == self.n_calls or bool(self.broken.all()):
            raise Enough
        self.gradients.watch(pixels)
        seen = fold_scaled(logits, right, self.factor[places], self.how)[0]
        if all_stand:
            return seen
        return seen.new_zeros(len(self.right), seen.shape[1]).index_copy(0, places, seen)

    def check(self) -> None:
        """Refuse if an image that stands never had a gradient."""
        self.gradients.check(~self.broken)


def starting_points(
    clean: torch.Tensor, threat: ThreatModel, seed: int, rows: list[int], *, run: int = 0
) -> torch.Tensor:
    """Where each image starts, as APGD draws it: on the surface of its own ball.

    Args:
        clean: ``[B, 3, H, W]``.
        threat: Norm and radius.
        seed: Of all images.
        rows: Places in the set, ``B`` of them: an image's noise depends on nothing else.
        run: Of several restarts or targets.
    """
    points = []
    for image, row in zip(clean, rows, strict=True):
        generator = generator_of(seed, row, run)
        if threat.norm == "Linf":
            noise = 2.0 * torch.rand(image.shape, generator=generator) - 1.0
            noise = noise / noise.abs().amax()
        else:
            noise = torch.randn(image.shape, generator=generator)
            noise = noise / noise.norm()
        points.append((image + threat.eps * noise.to(image)).clamp(0.0, 1.0))
    return torch.stack(points)


def generator_of(seed: int, row: int, run: int = 0) -> torch.Generator:
    """Randomness of one image in one run."""
    return torch.Generator().manual_seed((seed * 1_000_003 + row + run * 7_919_000_000_017) % 2**63)


def check_bounds(clean: torch.Tensor, adversarial: torch.Tensor, threat: ThreatModel) -> float:
    """The largest perturbation, which the threat model must allow.

    Raises:
        EvaluationError: It does not, or pixels are outside [0, 1].
    """
    if not len(clean):
        return 0.0
    delta = (adversarial.double() - clean.double()).flatten(1)
    sizes = delta.abs().amax(dim=1) if threat.norm == "Linf" else delta.norm(dim=1)
    allowed = threat.eps + _TOLERANCE * (1.0 if threat.norm == "Linf" else max(threat.eps, 1.0))
    largest = float(sizes.amax())
    outside = float(adversarial.amin()) < 0.0 or float(adversarial.amax()) > 1.0
    if not largest <= allowed or outside or not bool(adversarial.isfinite().all()):
        raise EvaluationError(
            f"a perturbation of size {largest:.6g} in {threat.norm}, allowed {threat.eps:.6g}"
            + (", with pixels outside [0, 1]" if outside else ""),
            hint="this is a fault of the attack, not of the model; report it",
        )
    return largest


def check_pixels(pixels: torch.Tensor) -> None:
    """Refuse pixels of another kind.

    Raises:
        UsageError: Not float32 ``[n, 3, H, W]`` in [0, 1], or none.
    """
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
