"""What can be measured of a cut-out and of a composite: colours, size, place, contrast."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

_SMALL = 48
_SECOND = 0.25  # least share of a second colour
_SOLID = 128
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the thing is in its picture.

    Attributes:
        x: Centre of what is seen of it, 0 at the left edge to 1 at the right.
        y: The same from the top.
        area: Share of the picture that it covers.
    """

    x: float
    y: float
    area: float

    @property
    def words(self) -> str:
        """``at the top left``, ``in the middle``."""
        across = ("left", "", "right")[_third(self.x)]
        down = ("top", "", "bottom")[_third(self.y)]
        if not across and not down:
            return "in the middle"
        if across and down:
            return f"at the {down} {across}"
        return f"at the {down}" if down else f"on the {across}"

    @property
    def size(self) -> str:
        """How large it is, in a word; nothing where there is nothing to say."""
        if self.area < 0.09:
            return "small"
        return "large" if self.area > 0.34 else ""


def _third(value: float) -> int:
    return 0 if value < 0.40 else 2 if value > 0.60 else 1


def measure_place(alpha: Pixels) -> Place:
    """Measure a mask ``[S, S]``, 0 to 255, that is solid somewhere."""
    solid = alpha > _SOLID
    rows, columns = np.nonzero(solid)
    size = alpha.shape[0]
    return Place(
        x=float(columns.mean() + 0.5) / size,
        y=float(rows.mean() + 0.5) / size,
        area=float(solid.mean()),
    )


def color_name(red: float, green: float, blue: float) -> str:
    """One of eleven basic English colour words; channels in [0, 1]."""
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    chroma = max(red, green, blue) - min(red, green, blue)
    hue *= 360.0
    if lightness < 0.13 or (chroma < 0.10 and lightness < 0.25):
        return "black"
    if lightness > 0.93 or (chroma < 0.08 and lightness > 0.85):
        return "white"
    if chroma < 0.11 or saturation < 0.10:
        return "gray"
    if hue < 16 or hue >= 340:
        return "pink" if lightness > 0.68 else "brown" if lightness < 0.25 else "red"
    if hue < 46:
        if lightness < 0.38 or (chroma < 0.42 and lightness < 0.70):
            return "brown"
        return "beige" if lightness > 0.75 else "orange"
    if hue < 68:
        return "beige" if lightness > 0.82 and chroma < 0.3 else "yellow"
    if hue < 168:
        return "green"
    if hue < 258:
        return "blue"
    return "purple" if hue < 300 else "pink" if lightness > 0.55 else "purple"


def main_colors(drawing: Image.Image) -> tuple[str, ...]:
    """The one or two colours of a cut-out, RGBA; outlines count for as much as they cover.

    Black counts for a third: it is mostly outline and shade.
    """
    small = drawing.copy()
    small.thumbnail((_SMALL, _SMALL), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32).reshape(-1, 4) / np.float32(255.0)
    seen = pixels[pixels[:, 3] > 0.5, :3]
    counts: dict[str, float] = {}
    for red, green, blue in seen.tolist():
        name = color_name(red, green, blue)
        counts[name] = counts.get(name, 0.0) + (0.35 if name == "black" else 1.0)
    if not counts:
        return ()
    total = sum(counts.values())
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return tuple(n for i, n in enumerate(ranked[:2]) if i == 0 or counts[n] >= _SECOND * total)


def contrast(composite: Pixels, ground: Pixels, alpha: Pixels) -> float:
    """By how much the picture changed where the thing is: mean absolute difference in [0, 1].

    Args:
        composite: ``[S, S, 3]`` with the thing.
        ground: ``[S, S, 3]`` without it.
        alpha: ``[S, S]``.
    """
    solid = alpha > _SOLID
    difference = np.abs(composite[solid].astype(np.float32) - ground[solid].astype(np.float32))
    return float(difference.max(axis=1).mean()) / 255.0


def fingerprint(drawing: Image.Image) -> tuple[int, Pixels]:
    """A difference hash of 64 bits of the thing on gray, and its 8 by 8 mean colours.

    Two files with hashes a few bits and colours a few levels apart show the same drawing.
    """
    square = Image.new("RGB", (max(drawing.size),) * 2, (128, 128, 128))
    left, top = ((square.width - side) // 2 for side in drawing.size)
    square.paste(drawing, (left, top), drawing)
    gray = np.asarray(square.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = (gray[:, 1:] > gray[:, :-1]).reshape(-1)
    number = int("".join("1" if bit else "0" for bit in bits), 2)
    return number, np.asarray(square.resize((8, 8), Image.Resampling.BOX))
