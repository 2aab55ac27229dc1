"""What attacks cost: steps, and seconds of a step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from robustzs_training.evaluation.base import Victim

_FORWARD_SHARE = 1.0 / 3.0  # of a step with gradients


def steps_of(protocol: Mapping[str, Any]) -> float:
    """Looks at the model with gradients, or as many as cost the same, for a picture that stands.

    Args:
        protocol: An attack's, see :class:`~robustzs_training.evaluation.base.Attack`.
    """
    members = protocol.get("members")
    if isinstance(members, Sequence) and not isinstance(members, str):
        return sum(steps_of(member) for member in members)
    runs = _number(protocol, "n_restarts") * _number(protocol, "n_targets")
    if "n_queries" in protocol:
        return runs * _number(protocol, "n_queries") * _FORWARD_SHARE
    return runs * _number(protocol, "n_steps")


def _number(protocol: Mapping[str, Any], key: str) -> float:
    value = protocol.get(key)
    return float(value) if isinstance(value, int | float) and value > 0 else 1.0


def seconds_per_step(victim: Victim, pixels: torch.Tensor) -> float:
    """Time of one look with gradients at one picture, from a batch ``[B, 3, H, W]``; seconds."""
    fastest = float("inf")
    for _ in range(2):  # the first one pays for what is set up once
        shown = pixels.to(victim.device).contiguous(memory_format=torch.channels_last)
        shown.requires_grad_(True)
        started = time.monotonic()
        with torch.enable_grad():
            victim.logits_of(shown).amax(dim=1).sum().backward()
        if victim.device.type == "cuda":
            torch.cuda.synchronize(victim.device)
        fastest = min(fastest, time.monotonic() - started)
    return fastest / len(pixels)


def in_words(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    if seconds < 90.0 * 60.0:
        return f"{seconds / 60.0:.0f} min"
    if seconds < 36.0 * 3600.0:
        return f"{seconds / 3600.0:.1f} h"
    return f"{seconds / 86400.0:.1f} days"
