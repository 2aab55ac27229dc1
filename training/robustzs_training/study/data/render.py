"""From a drawing's place to a cut-out, RGBA, or to the reason why it cannot be used."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from robustzs_training.study.data.drawings import Drawing

CUT_OUT = 256
"""Longest side of a cut-out, in pixels."""
Fault = Literal["unreadable", "empty", "thin", "faint", "full", "small"]
_NOTO_SIZE = 109  # the only size that the font has
_MIN_SIDE = 24
_MIN_COVER = 0.14
_MAX_COVER = 0.985
_MAX_RATIO = 6.0
_ROOT = re.compile(r"<svg\b[^>]*>")
_LENGTH = re.compile(r"""\b(width|height)\s*=\s*["']([\d.]+)(pt|pc|mm|cm|in|px)?["']""")
_PIXELS = {"pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}


@dataclass(frozen=True, kw_only=True)
class CutOut:
    """A rendered drawing; ``image`` is ``None`` where ``fault`` says why.

    Attributes:
        image: RGBA, cut to what it covers, longest side :data:`CUT_OUT`.
        fault: ``unreadable``; ``empty`` picture; ``thin`` lines without a body; ``faint``, mostly
            transparent; ``full``, with a background of its own; ``small``.
    """

    image: Image.Image | None = None
    fault: Fault | None = None


def render(drawing: Drawing) -> CutOut:
    """Render one drawing and judge whether it can be put on a ground."""
    picture = _read(drawing.place)
    if picture is None:
        return CutOut(fault="unreadable")
    alpha = np.asarray(picture.getchannel("A"))
    box = Image.fromarray(np.where(alpha > 24, 255, 0).astype(np.uint8)).getbbox()
    if box is None:
        return CutOut(fault="empty")
    picture = picture.crop(box)
    if min(picture.size) < _MIN_SIDE or max(picture.size) > _MAX_RATIO * min(picture.size):
        return CutOut(fault="small")
    fault = _fault(np.asarray(picture.getchannel("A")), boxes=drawing.key.startswith("furniture/"))
    if fault is not None:
        return CutOut(fault=fault)
    scale = CUT_OUT / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return CutOut(image=picture.resize(size, Image.Resampling.BICUBIC))


def _fault(alpha: npt.NDArray[np.uint8], *, boxes: bool) -> Fault | None:
    cover = float((alpha > 128).mean())
    if cover < _MIN_COVER:
        return "thin"
    if float(alpha[alpha > 24].mean()) < 150:
        return "faint"
    if cover > _MAX_COVER and not boxes:
        return "full"
    return None


def _read(place: str) -> Image.Image | None:
    try:
        if "!" in place:
            archive, _, member = place.partition("!")
            with zipfile.ZipFile(archive) as file:
                return Image.open(io.BytesIO(file.read(member))).convert("RGBA")
        if "?" in place:
            font, _, codes = place.partition("?")
            return _glyph(font, "".join(chr(int(code, 16)) for code in codes.split("-")))
        return _svg(place)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _svg(path: str) -> Image.Image:
    import resvg_py

    try:
        data = resvg_py.svg_to_bytes(svg_path=path, width=2 * CUT_OUT, skip_system_fonts=True)
    except ValueError:  # resvg refuses many lengths with units
        text = Path(path).read_text("utf-8", errors="replace")
        text = _ROOT.sub(_in_pixels, text, count=1)
        data = resvg_py.svg_to_bytes(svg_string=text, width=2 * CUT_OUT, skip_system_fonts=True)
    picture = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    picture.thumbnail((2 * CUT_OUT, 2 * CUT_OUT), Image.Resampling.BICUBIC)
    return picture


def _in_pixels(root: re.Match[str]) -> str:
    """The root element with its width and height as plain numbers."""
    return _LENGTH.sub(
        lambda m: f'{m[1]}="{float(m[2]) * _PIXELS.get(m[3] or "px", 1.0):.2f}"', root[0]
    )


def _glyph(font: str, text: str) -> Image.Image | None:
    face = _face(font)
    left, top, right, bottom = face.getbbox(text)
    if right - left > 2 * _NOTO_SIZE:  # a sequence that the font does not have as one
        return None
    canvas = Image.new("RGBA", (int(right - left) + 8, int(bottom - top) + 8), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((4 - left, 4 - top), text, font=face, embedded_color=True)
    return canvas


@cache
def _face(font: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font, _NOTO_SIZE)
