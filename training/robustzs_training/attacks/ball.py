"""The ball around a clean input, rounding included.

Every point that leaves this module satisfies, in the exact arithmetic of its float32 values,
``|x_adv - x| <= eps`` in its norm, and lies within the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustzs.threat import ThreatModel

# Keeps the float64 norm of a projected point below eps after its own rounding.
_L2_MARGIN = 1e-9


@dataclass(frozen=True)
class Ball:
    """Points around ``clean`` that the threat model allows.

    Args:
        clean: float32 ``[B, ...]``; the L2 norm is taken over all but the first dimension.
        threat: Norm and radius.
        bounds: Lowest and highest value of any element, or ``None``.
    """

    clean: torch.Tensor
    threat: ThreatModel
    bounds: tuple[float, float] | None

    def corners(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The lowest and highest float32 value that each element may take, by ``eps`` alone."""
        return self._toward_clean(-self.threat.eps), self._toward_clean(self.threat.eps)

    def _toward_clean(self, delta: torch.Tensor | float) -> torch.Tensor:
        """``clean + delta`` in float32, never further from ``clean`` than ``|delta|``."""
        wide = self.clean.double()
        nearest = (wide + delta).to(self.clean.dtype)
        size = delta.abs() if isinstance(delta, torch.Tensor) else abs(delta)
        too_far = (nearest.double() - wide).abs() > size
        return torch.where(too_far, torch.nextafter(nearest, self.clean), nearest)

    def _bounded(self, x_adv: torch.Tensor) -> torch.Tensor:
        return x_adv if self.bounds is None else x_adv.clamp(*self.bounds)

    def project(
        self, x_adv: torch.Tensor, corners: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """The allowed point for ``x_adv``: into the ball, then into the bounds.

        For L2 the step into the bounds can only shorten the perturbation, because ``clean`` lies
        within them.
        """
        if self.threat.norm == "Linf":
            return self._bounded(torch.clamp(x_adv, *corners))
        delta = x_adv.double() - self.clean.double()
        norms = _norms(delta)
        limit = self.threat.eps * (1.0 - _L2_MARGIN)
        delta = delta * (limit / norms.clamp_min(max(limit, 1e-300)))
        return self._bounded(self._toward_clean(delta))

    def sample(self, generator: torch.Generator, *, part: tuple[int, int] = (0, 1)) -> torch.Tensor:
        """A point drawn uniformly from the ball; the bounds are not looked at.

        Args:
            generator: Of the whole batch's noise.
            part: ``(i, n)``: ``clean`` is part ``i`` of ``n`` equal ones of a batch. Noise is
                drawn for all of it, so that a row's is the same in however many parts.
        """
        place, n_parts = part
        n_rows = len(self.clean)
        noise = self._noise((n_parts * n_rows, *self.clean.shape[1:]), generator)
        return self.clean + noise[place * n_rows : (place + 1) * n_rows].to(self.clean)

    def _noise(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        eps, device = self.threat.eps, generator.device
        if self.threat.norm == "Linf":
            return (2.0 * torch.rand(shape, generator=generator, device=device) - 1.0) * eps
        direction = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
        n_dims = max(math.prod(shape[1:]), 1)
        shape_1 = (shape[0],) + (1,) * (len(shape) - 1)
        radius = torch.rand(shape_1, generator=generator, device=device, dtype=torch.float64)
        scale = eps * radius ** (1.0 / n_dims) / _norms(direction).clamp_min(1e-300)
        return (direction * scale).to(self.clean.dtype)


def direction(gradient: torch.Tensor, threat: ThreatModel) -> torch.Tensor:
    """Steepest ascent in the norm: the sign, or each row divided by its L2 norm; 0 stays 0."""
    if threat.norm == "Linf":
        return gradient.sign()
    wide = gradient.double()
    return (wide / _norms(wide).clamp_min(1e-300)).to(gradient.dtype)


def _norms(rows: torch.Tensor) -> torch.Tensor:
    """L2 norm of each row, shaped to divide it: ``[B, 1, ...]``."""
    flat = rows.flatten(1).norm(dim=1)
    return flat.reshape(-1, *(1,) * (rows.ndim - 1))
