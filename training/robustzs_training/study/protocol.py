"""What is measured of every row, and how: the same for all, so that rows can be paired."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from robustzs.errors import UsageError
from robustzs.threat import parse_size

CONCEPTS, PHOTOGRAPHS, FASHION = "held-out-concepts", "held-out-photographs", "fashion-mnist"
SETS = (CONCEPTS, PHOTOGRAPHS, FASHION)
"""Sets of pictures, in the tables' order."""
LABELS, CAPTIONS, FEATURES, FULL = "apgd-ce", "captions", "features", "autoattack"
"""Attacks: on the labels, on the picture's caption, on features alone; and the full ensemble."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The measurement of a row.

    Attributes:
        image_size: Pixels a side of what is measured.
        n_images: Most pictures of a set.
        n_photographs: Most photographs; all attacks see the same ones.
        eps: Radii of the label attack, Linf; the other attacks have the first.
        n_steps: Iterations of every attack but the full ensemble, which has its own.
        depths: Of superclass attacks on photographs.
        full: The full ensemble on all sets within all radii, and nothing else.
        seed: Of draws and attacks; not of the training.
        batch_size: Pictures that are attacked together.
        fashion: Folder of Fashion-MNIST; ``None`` for Debian's.
    """

    image_size: int = 128
    n_images: int = 200
    n_photographs: int = 200
    eps: tuple[str, ...] = ("1/255", "2/255")
    n_steps: int = 20
    depths: tuple[int, ...] = (4, 8)
    full: bool = False
    seed: int = 0
    batch_size: int = 32
    fashion: str | None = None

    def __post_init__(self) -> None:
        sizes = [parse_size(each) for each in self.eps]
        if not sizes or sizes != sorted(set(sizes)) or sizes[0] <= 0.0:
            raise UsageError(
                f"radii {', '.join(self.eps) or 'none'}", hint="ascending, such as 1/255,2/255"
            )
        for name in ("n_images", "n_photographs", "n_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", hint="at least 1")

    @property
    def name(self) -> str:
        """For folders: a row may be measured both ways."""
        return "full" if self.full else "sweep"

    def record(self) -> dict[str, Any]:
        """Everything that decides a number, as JSON values."""
        found = asdict(self)
        del found["batch_size"], found["fashion"]
        return {**found, "eps": list(self.eps), "depths": list(self.depths)}
