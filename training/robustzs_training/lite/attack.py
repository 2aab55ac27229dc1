"""A first answer to "how robust is it?": projected gradient descent on the held-out photographs.

It is there so that the clean model's card has a measured number; the evaluation of hardened models
needs stronger attacks than this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

EPS = 1.0 / 255.0
STEP_SIZE = EPS / 4.0
N_STEPS = 20


def pgd_survivors(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    pixels: npt.NDArray[np.float32],
    right: npt.NDArray[np.bool_],
    *,
    seed: int = 0,
    batch_size: int = 16,
) -> npt.NDArray[np.bool_]:
    """Attack every picture within ``eps`` = 1/255 (Linf); returns who is still right, ``[n]``.

    20 steps of 1/4 eps on the sign of the gradient, from a random start, untargeted: the loss is
    minus the logarithm of the right classes' probability. White-box, on float32 weights. A picture
    that is wrong after any step counts as broken; one that is wrong to begin with is not right.

    Args:
        logits_of: ``pixels`` ``[B, 3, H, W]`` in [0, 1] -> logits ``[B, C]``.
        pixels: ``[n, 3, H, W]`` in [0, 1].
        right: ``[n, C]`` right classes.
        seed: Of the random start.
        batch_size: Pictures attacked at once.
    """
    generator = torch.Generator().manual_seed(seed)
    alive = np.zeros(len(pixels), bool)
    for start in range(0, len(pixels), batch_size):
        rows = slice(start, start + batch_size)
        clean = torch.from_numpy(pixels[rows])
        target = torch.from_numpy(right[rows])
        standing = _is_right(logits_of, clean, target)
        noise = torch.rand(clean.shape, generator=generator) * 2.0 - 1.0
        adversarial = (clean + EPS * noise).clamp(0.0, 1.0)
        for _ in range(N_STEPS):
            if not standing.any():
                break
            adversarial.requires_grad_(True)
            log_probs = logits_of(adversarial).log_softmax(-1)
            right_log_prob = log_probs.masked_fill(~target, -torch.inf).logsumexp(-1)
            (gradient,) = torch.autograd.grad(-right_log_prob[standing].sum(), adversarial)
            stepped = adversarial.detach() + STEP_SIZE * gradient.sign()
            adversarial = torch.minimum(torch.maximum(stepped, clean - EPS), clean + EPS)
            adversarial = adversarial.clamp(0.0, 1.0)
            standing &= _is_right(logits_of, adversarial, target)
        alive[rows] = standing.numpy()
    return alive


def _is_right(
    logits_of: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    with torch.no_grad():
        best = logits_of(pixels).argmax(-1)
    return target.gather(1, best[:, None])[:, 0]


def protocol() -> dict[str, Any]:
    """The attack in the card's words."""
    return {
        "attack": "PGD, untargeted, white-box, torch float32, random start, 1 restart",
        "loss": "-log of the summed probability of the right classes",
        "norm": "Linf",
        "eps": "1/255",
        "n_steps": N_STEPS,
        "step_size": "0.25/255",
        "seed": 0,
    }
