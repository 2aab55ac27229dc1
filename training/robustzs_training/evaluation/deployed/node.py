"""A node of an ONNX graph as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

Attribute = int | float | str | Sequence[int] | Sequence[float] | torch.Tensor
Inputs = Sequence[torch.Tensor]
"""A node's inputs; one that is left out is an empty tensor of type bool."""


@dataclass(frozen=True)
class Node:
    """One step of a graph.

    Attributes:
        kind: Type of operator, ``com.microsoft:`` before those that are not ONNX's own.
        inputs: Names; empty where one is left out.
        outputs: Likewise.
        attributes: By name.
        opset: That the graph is written in.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    opset: int = 18

    def get(self, name: str, default: float | str) -> float | str:
        """A number or a text."""
        found = self.attributes.get(name, default)
        return found if isinstance(found, (int, float, str)) else default

    def whole(self, name: str, default: int = 0) -> int:
        """A whole number."""
        return int(self.get(name, default))

    def list(self, name: str) -> list[int] | None:
        """Whole numbers, or ``None`` where there are none."""
        found = self.attributes.get(name)
        if found is None or isinstance(found, (int, float, str, torch.Tensor)):
            return None
        return [int(value) for value in found]


Operator = Callable[[Node, Inputs], torch.Tensor | tuple[torch.Tensor, ...]]
MISSING = torch.zeros(0, dtype=torch.bool)


def given(inputs: Inputs, place: int) -> torch.Tensor | None:
    """An input that may be left out."""
    if place >= len(inputs):
        return None
    found = inputs[place]
    return None if found.dtype == torch.bool and found.numel() == 0 else found
