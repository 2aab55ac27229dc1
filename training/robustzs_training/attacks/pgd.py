"""Projected gradient ascent, once, for every objective and every set of inputs.

With ``N`` the steepest direction of the norm (the sign for Linf, ``g / |g|_2`` per row for L2),
``P`` the projection into the ball and then into the bounds, and ``mu`` the momentum::

    x_0 = x + noise                               uniform in the ball, or x itself
    g_k = N(dL/dx_k)
    v_k = N(mu v_{k-1} + g_k)                     v_{-1} = 0
    x_{k+1} = P(x_k + step_size v_k)

This is the momentum-sign PGD of FARE and QT-AFT (``chs20/RobustVLM`` ``train/pgd_train.py``,
``futakw/QTAFT`` ``train_qtaft.py``); as there, the starting point is in the ball but is not clamped
to the bounds before the first gradient. For Linf and ``mu < 1`` momentum decides only where the
gradient is exactly zero: elsewhere ``|mu v| < |g| = 1``, so ``v_k = g_k``. ``mu = 0`` is plain PGD
(TeCoA, TGA-ZSR, AGFT).

Inputs, noise and steps are float32 whatever autocast does to the loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from robustzs.errors import UsageError
from robustzs.threat import AttackConfig, Start, ThreatModel
from robustzs_training.adapter import attack_mode
from robustzs_training.attacks.ball import Ball, direction
from robustzs_training.processes import all_sum, rank, world_size

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class PerturbedInput:
    """One tensor that the attacker changes, and how.

    Args:
        clean: float32 ``[B, ...]``, where the attack starts from.
        threat: Norm and radius; L2 is taken per row.
        bounds: Lowest and highest value of any element: ``(0, 1)`` for pixels, ``None`` for none.
        step_size: Of this tensor, or ``None`` for the attack's.
        start: Of this tensor, or ``None`` for the attack's.
        shared: One tensor for all processes (prompts), so its gradient is summed over them. Needs
            the same ``generator`` state everywhere if its start is uniform. An input that is not
            shared is this process's part of a batch: with the same ``generator`` state
            everywhere, an image starts from the same noise in however many processes.
        first: Where to start instead, shaped as ``clean``: pulled into the ball, not the bounds.
    """

    clean: torch.Tensor
    threat: ThreatModel
    bounds: tuple[float, float] | None = (0.0, 1.0)
    step_size: float | None = None
    start: Start | None = None
    shared: bool = False
    first: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.clean.dtype != torch.float32 or self.clean.ndim < 1:
            raise UsageError(
                f"a perturbed input of dtype {self.clean.dtype} and shape {list(self.clean.shape)}",
                hint="attacks run on float32 tensors [B, ...]; autocast may wrap the loss",
            )
        if self.bounds is not None and self.clean.numel():
            low, high = (float(edge) for edge in torch.aminmax(self.clean))
            if not (self.bounds[0] <= low and high <= self.bounds[1]):
                raise UsageError(
                    f"a clean input spans [{low:g}, {high:g}], outside {list(self.bounds)}",
                    hint="pixels are in [0, 1]; normalisation happens inside the model",
                )


def pgd(
    loss: Callable[[Tensors], torch.Tensor],
    inputs: Mapping[str, PerturbedInput],
    config: AttackConfig,
    *,
    module: nn.Module | None = None,
    generator: torch.Generator | None = None,
    loss_scale: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Raise ``loss`` by changing all ``inputs`` at once, each within its own ball.

    Args:
        loss: Takes the perturbed tensors by name, gives a scalar. It decides what is attacked.
        inputs: What may be changed.
        config: Steps, and the defaults of each input.
        module: Everything with weights that ``loss`` uses: in evaluation mode and without weight
            gradients during the attack, and as it was afterwards.
        generator: Of starting points; a new one from ``config.seed`` when ``None``.
        loss_scale: Multiplies the loss before its backward pass, against underflow under float16
            autocast. Directions do not depend on it.

    Returns:
        Detached float32 tensors by name, inside their balls and bounds, rounding included. With
        several restarts, the run with the highest loss: the loss need not be a sum over images, so
        a run counts as a whole.

    Raises:
        UsageError: Nothing to perturb.
    """
    if not inputs:
        raise UsageError("there is nothing to perturb", hint="name at least one input")
    if generator is None:
        generator = torch.Generator().manual_seed(config.seed)
    with attack_mode(module) if module is not None else contextlib.nullcontext():
        best = _run(loss, inputs, config, generator, loss_scale)
        if config.n_restarts == 1:
            return best
        highest = _value(loss, best)
        for _ in range(config.n_restarts - 1):
            found = _run(loss, inputs, config, generator, loss_scale)
            value = _value(loss, found)
            if value > highest:
                best, highest = found, value
    return best


def _run(
    loss: Callable[[Tensors], torch.Tensor],
    inputs: Mapping[str, PerturbedInput],
    config: AttackConfig,
    generator: torch.Generator,
    loss_scale: float,
) -> dict[str, torch.Tensor]:
    balls = {
        name: Ball(each.clean.detach(), each.threat, each.bounds) for name, each in inputs.items()
    }
    corners = {name: ball.corners() for name, ball in balls.items()}
    x_adv: dict[str, torch.Tensor] = {}
    for name, ball in balls.items():
        x_adv[name] = ball.clean.clone()
        first = inputs[name].first
        if first is not None:
            x_adv[name] = Ball(ball.clean, ball.threat, None).project(first, corners[name])
        elif (inputs[name].start or config.start) == "uniform":
            part = (0, 1) if inputs[name].shared else (rank(), world_size())
            noisy = ball.sample(generator, part=part)
            # Only the ball, not the bounds, before the first gradient.
            x_adv[name] = Ball(ball.clean, ball.threat, None).project(noisy, corners[name])
    velocity = {name: torch.zeros_like(x) for name, x in x_adv.items()}
    for _ in range(config.n_steps):
        gradients = _gradients(loss, x_adv, loss_scale)
        for name, gradient in gradients.items():
            each = inputs[name]
            g = direction(all_sum(gradient) if each.shared else gradient, each.threat)
            if config.momentum:
                g = direction(config.momentum * velocity[name] + g, each.threat)
                velocity[name] = g
            step_size = config.step_size if each.step_size is None else each.step_size
            x_adv[name] = balls[name].project(x_adv[name] + step_size * g, corners[name])
    return {name: balls[name].project(x, corners[name]) for name, x in x_adv.items()}


def _gradients(
    loss: Callable[[Tensors], torch.Tensor], x_adv: Mapping[str, torch.Tensor], loss_scale: float
) -> dict[str, torch.Tensor]:
    with torch.enable_grad():
        leaves = {name: x.detach().requires_grad_() for name, x in x_adv.items()}
        value = loss(leaves) * loss_scale
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


@torch.no_grad()
def _value(loss: Callable[[Tensors], torch.Tensor], x_adv: Tensors) -> float:
    return float(all_sum(loss(x_adv)))
