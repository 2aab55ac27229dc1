"""A first answer to "how robust is it?": PGD on the held-out photographs.

It is there so that the clean model's card has a measured number; the evaluation of hardened models
needs stronger attacks than this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustzs.threat import AttackConfig, ThreatModel, format_size
from robustzs_training.attacks.pgd import PerturbedInput, pgd

THREAT = ThreatModel(norm="Linf", eps=1.0 / 255.0)
ATTACK = AttackConfig(n_steps=20, step_size=0.25 / 255.0, start="uniform", momentum=0.0, seed=0)
Logits = Callable[[torch.Tensor], torch.Tensor]


def pgd_survivors(
    logits_of: Logits,
    pixels: npt.NDArray[np.float32],
    right: npt.NDArray[np.bool_],
    *,
    batch_size: int = 16,
) -> npt.NDArray[np.bool_]:
    """Attack every picture that is right; returns which stay right, ``[n]``.

    Untargeted and white-box: the loss is minus the logarithm of the right classes' probability.

    Args:
        logits_of: ``pixels`` ``[B, 3, H, W]`` in [0, 1] -> logits ``[B, C]``; its weights are
            frozen.
        pixels: ``[n, 3, H, W]`` in [0, 1].
        right: ``[n, C]`` right classes.
        batch_size: Pictures attacked at once.
    """
    generator = torch.Generator().manual_seed(ATTACK.seed)
    alive = np.zeros(len(pixels), bool)
    for start in range(0, len(pixels), batch_size):
        alive[start : start + batch_size] = _is_right(
            logits_of, torch.from_numpy(pixels[start : start + batch_size]), right[start:]
        )
    standing = np.flatnonzero(alive)
    for start in range(0, len(standing), batch_size):
        rows = standing[start : start + batch_size]
        clean = PerturbedInput(clean=torch.from_numpy(pixels[rows]), threat=THREAT)
        target = torch.from_numpy(right[rows])

        def loss(inputs: Mapping[str, torch.Tensor], target: torch.Tensor = target) -> torch.Tensor:
            log_probs = logits_of(inputs["pixels"]).log_softmax(-1)
            return -log_probs.masked_fill(~target, -torch.inf).logsumexp(-1).sum()

        adversarial = pgd(loss, {"pixels": clean}, ATTACK, generator=generator)["pixels"]
        alive[rows] = _is_right(logits_of, adversarial, right[rows])
    return alive


def _is_right(
    logits_of: Logits, pixels: torch.Tensor, right: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    with torch.no_grad():
        best = logits_of(pixels).argmax(-1).numpy()
    return right[np.arange(len(best)), best]


def protocol() -> dict[str, Any]:
    """The attack in the card's words."""
    return {
        "attack": "PGD, untargeted, white-box, torch float32, uniform start, last step counts",
        "loss": "-log of the summed probability of the right classes",
        "norm": THREAT.norm,
        "eps": format_size(THREAT.eps),
        "n_steps": ATTACK.n_steps,
        "step_size": format_size(ATTACK.step_size),
        "n_restarts": ATTACK.n_restarts,
        "seed": ATTACK.seed,
    }
