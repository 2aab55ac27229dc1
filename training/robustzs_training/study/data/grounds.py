"""What a thing is put on: photographs, photographed surfaces, plain colours, generated textures.

What photographs show was written by hand, looking at them (``photographs.txt``). One in four
photographs and surfaces is kept for the held-out pictures, so that these share no ground with the
pictures that are trained on.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from robustzs.errors import DatasetNotFoundError
from robustzs.labels.articles import with_article
from robustzs_training.data.grounds import draw_texture
from robustzs_training.study.data.looks import color_name
from robustzs_training.study.data.packages import Packages

GroundKind = Literal["photograph", "surface", "plain", "texture"]
_SHARES: tuple[tuple[GroundKind, float], ...] = (
    ("photograph", 0.48),
    ("surface", 0.17),
    ("plain", 0.15),
    ("texture", 0.20),
)
_SHORT_SIDE = 640
_HELD_OUT_BELOW = 64  # of 256
_TEXTURE = re.compile(r"^(name|image)#(\d+)=(.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """One line of ``photographs.txt``, or a surface.

    Attributes:
        key: Unique, short.
        source: Package.
        place: File, or archive and member with ``!`` between them.
        shows: What it shows, in words.
        synset: What it is a picture of; ``None`` where it is a ground and no more.
        is_ground: Whether things are put on it.
        kind: ``photograph`` or ``surface``.
    """

    key: str
    source: str
    place: str
    shows: str
    synset: str | None
    is_ground: bool
    kind: GroundKind

    @property
    def is_held_out(self) -> bool:
        """Whether only held-out pictures use it as a ground."""
        return hashlib.sha256(self.key.encode()).digest()[0] < _HELD_OUT_BELOW


@dataclass(frozen=True, kw_only=True)
class Ground:
    """One that was drawn: its words, its kind, and which photograph."""

    shows: str
    kind: GroundKind
    key: str


def list_photographs(packages: Packages) -> tuple[Photograph, ...]:
    """The photographs of the table, then the surfaces of ``sweethome3d``.

    Raises:
        DatasetNotFoundError: A file of the table is not in this release of its package.
    """
    text = (resources.files("robustzs_training.study.data") / "photographs.txt").read_text("utf-8")
    found = []
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        package, below, use, shows = (cell.strip() for cell in line.split("|"))
        path = packages.path(package, below)
        if not path.is_file():
            raise DatasetNotFoundError(
                f"this release of {package} has no {below!r}",
                hint="the photographs were chosen from Debian 12's packages",
            )
        synset = None if use == "ground" else use.removesuffix(" only")
        found.append(
            Photograph(
                key=f"{package}/{_name_of(below)}",
                source=package,
                place=str(path),
                shows=shows,
                synset=synset,
                is_ground=not use.endswith(" only"),
                kind="photograph",
            )
        )
    return (*found, *_surfaces(packages))


def _name_of(below: str) -> str:
    path = Path(below)
    return path.parts[3] if "contents" in path.parts else path.stem


def _surfaces(packages: Packages) -> list[Photograph]:
    jar = packages.path("sweethome3d", "usr/share/sweethome3d/sweethome3d.jar")
    with zipfile.ZipFile(jar) as file:
        [name] = [n for n in file.namelist() if n.endswith("TexturesCatalog.properties")]
        text = file.read(name).decode("latin-1")
    entries: dict[int, dict[str, str]] = {}
    for field, number, value in _TEXTURE.findall(text.replace("\r", "")):
        entries.setdefault(int(number), {})[field] = value.strip()
    return [
        Photograph(
            key=f"surface/{Path(entry['image']).stem}",
            source="sweethome3d",
            place=f"{jar}!{entry['image'].lstrip('/')}",
            shows=_surface_words(entry["name"]),
            synset=None,
            is_ground=True,
            kind="surface",
        )
        for _, entry in sorted(entries.items())
        if {"name", "image"} <= entry.keys()
    ]


def _surface_words(name: str) -> str:
    words = name.lower()
    return f"a {words} sky" if words.endswith("cloudy") else with_article(words)


def prepare(photographs: Sequence[Photograph], folder: Path) -> None:
    """Keep each photograph with a short side of 640 pixels; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for photograph in photographs:
        path = path_of(photograph, folder)
        if path.is_file():
            continue
        picture = open_photograph(photograph, _SHORT_SIDE)
        part = path.with_suffix(".part")
        picture.save(part, "JPEG", quality=95)
        os.replace(part, path)


def path_of(photograph: Photograph, folder: Path) -> Path:
    """Where :func:`prepare` keeps it."""
    return folder / f"{photograph.key.replace('/', '--')}.jpg"


def open_photograph(photograph: Photograph, short_side: int) -> Image.Image:
    """The picture itself, RGB, its short side at most ``short_side`` pixels; surfaces repeated."""
    picture = _open(photograph.place, short_side)
    if photograph.kind == "surface":
        picture = _tiled(picture)
    scale = short_side / min(picture.size)
    if scale < 1.0:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return picture


def _open(place: str, short_side: int) -> Image.Image:
    if "!" in place:
        archive, _, member = place.partition("!")
        with zipfile.ZipFile(archive) as file:
            return Image.open(io.BytesIO(file.read(member))).convert("RGB")
    with Image.open(place) as picture:
        picture.draft("RGB", (2 * short_side, 2 * short_side))
        return picture.convert("RGB")


def _tiled(tile: Image.Image) -> Image.Image:
    """A small photograph of a surface, repeated."""
    columns, rows = (max(1, -(-2 * 320 // side)) for side in tile.size)
    whole = Image.new("RGB", (columns * tile.width, rows * tile.height))
    for row in range(rows):
        for column in range(columns):
            whole.paste(tile, (column * tile.width, row * tile.height))
    return whole


def draw_ground(
    photographs: Sequence[Photograph],
    folder: Path,
    size: int,
    generator: np.random.Generator,
) -> tuple[Ground, Image.Image]:
    """Draw a ground of ``size`` by ``size`` pixels.

    Args:
        photographs: Those that may be used.
        folder: Where :func:`prepare` keeps them.
        size: Side, in pixels.
        generator: Random numbers.
    """
    kinds = [kind for kind, _ in _SHARES]
    kind = kinds[int(generator.choice(len(kinds), p=[share for _, share in _SHARES]))]
    if kind == "plain":
        color = generator.integers(0, 256, 3)
        name = color_name(*(float(c) / 255.0 for c in color))
        picture = Image.new("RGB", (size, size), (int(color[0]), int(color[1]), int(color[2])))
        return Ground(shows=f"a plain {name} ground", kind=kind, key=f"plain-{name}"), picture
    if kind == "texture":
        shows, picture = draw_texture(size, generator)
        return Ground(shows=shows, kind=kind, key=f"texture-{shows}"), picture
    fitting = [p for p in photographs if p.kind == kind]
    chosen = fitting[int(generator.integers(len(fitting)))]
    picture = random_crop(_kept(path_of(chosen, folder)), (0.4, 1.0), size, generator)
    return Ground(shows=chosen.shows, kind=kind, key=chosen.key), picture


@lru_cache(maxsize=128)
def _kept(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        return opened.convert("RGB")


def random_crop(
    picture: Image.Image, shares: tuple[float, float], size: int, generator: np.random.Generator
) -> Image.Image:
    """A square part whose side is within ``shares`` of the short side, resized."""
    side = max(8, int(min(picture.size) * generator.uniform(*shares)))
    left = int(generator.integers(0, picture.width - side + 1))
    top = int(generator.integers(0, picture.height - side + 1))
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
