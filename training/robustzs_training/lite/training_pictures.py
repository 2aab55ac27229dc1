"""What robustzs-lite is hardened on: every picture of the study's data, and more without a class.

The study keeps concepts and grounds apart for its own held-out pictures. Nothing of that kind is
measured on the model that ships, so that it learns from all of them: the drawings of both splits,
parts of all photographs and surfaces, and the things and photographs of two more packages. What
objectives without labels need is variety: an encoder that saw few photographs keeps its features
on these and on no others. The photographs that robustzs-lite is measured on come from none of
these packages.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from robustzs_training.study.data.__main__ import default_cache
from robustzs_training.study.data.compose import QUALITY, SIDE, compose
from robustzs_training.study.data.cut_outs import spread
from robustzs_training.study.data.grounds import (
    Photograph,
    list_photographs,
    open_photograph,
    prepare,
    random_crop,
)
from robustzs_training.study.data.packages import PACKAGES, Package, find_packages

THINGS = (
    Package(
        name="qabcs-data",
        holds="usr/share/qabcs/abcs/all/pics",
        licence="GPL-3+, CC0, public domain",
        gives="animals, food, instruments, toys: drawn and photographed, most of them cut out",
    ),
    Package(
        name="pysiogame",
        holds="usr/share/games/pysiogame/res/images/art4apps",
        licence="CC BY-SA 3.0",
        gives="animals, clothes, food, people and their work: drawn",
    ),
)
ALBUMS = (
    Package(
        name="kphotoalbum",
        holds="usr/share/kphotoalbum/demo",
        licence="GPL-2+",
        gives="photographs of people, pets and places",
    ),
    Package(
        name="gnome-control-center-data",
        holds="usr/share/pixmaps/faces",
        licence="CC0, CC BY-SA 3.0 and 4.0",
        gives="photographs of things, animals and plants",
    ),
    Package(
        name="scratch",
        holds="usr/share/scratch/Media/Backgrounds",
        licence="CC BY-SA 3.0",
        gives="photographs of places",
    ),
    Package(
        name="endless-sky-data",
        holds="usr/share/games/endless-sky/images/land",
        licence="public domain, CC BY-SA 3.0 and 4.0",
        gives="photographs of landscapes and towns",
    ),
)
_GROUNDS = frozenset({"endless-sky-data", "scratch"})
_CROPS = {"study": 150, "surface": 12, "album": 24}
_PER_THING = 12
_LEAST_SIDE = 200  # pixels
_SHORT_SIDE = 1600


def _generator(key: str, number: int) -> np.random.Generator:
    words = hashlib.sha256(f"lite {key} {number}".encode()).digest()
    return np.random.default_rng(np.frombuffer(words, "<u4").tolist())


def _save(picture: Image.Image, path: Path) -> None:
    part = path.with_suffix(".part")
    picture.save(part, "JPEG", quality=QUALITY)
    os.replace(part, path)


def _sort_of(photograph: Photograph) -> str:
    if photograph.source in {package.name for package in ALBUMS}:
        return "album"
    return "surface" if photograph.kind == "surface" else "study"


def _write_crops(photograph: Photograph, target: Path) -> int:
    """Parts of the original, down to a seventh of its side: details are pictures, too."""
    picture = open_photograph(photograph, _SHORT_SIDE)
    shares = (max(1 / 7, min(1.0, _LEAST_SIDE / min(picture.size))), 1.0)
    count = _CROPS[_sort_of(photograph)]
    for number in range(count):
        path = target / f"{photograph.key.replace('/', '-')}-{number:03d}.jpg"
        if not path.is_file():
            generator = _generator(photograph.key, number)
            _save(random_crop(picture, shares, SIDE, generator), path)
    return count


def _write_thing(
    file: Path, folder: Path, photographs: list[Photograph], grounds: Path, target: Path
) -> int:
    """A cut-out on many grounds; a picture that has a ground of its own in many parts."""
    with Image.open(file) as opened:
        picture = opened.convert("RGBA")
    if min(picture.size) < _LEAST_SIDE:
        return 0
    name = "-".join(file.relative_to(folder).with_suffix("").parts)
    low, _ = picture.getchannel("A").getextrema()
    for number in range(_PER_THING):
        path = target / f"{name}-{number:02d}.jpg"
        if path.is_file():
            continue
        generator = _generator(name, number)
        if low == 0:
            made = compose(picture, photographs, grounds, generator).image
        else:
            made = random_crop(picture.convert("RGB"), (0.6, 1.0), SIDE, generator)
        _save(made, path)
    return _PER_THING


def _album(package: Package, folder: Path) -> Iterator[Photograph]:
    for file in sorted(folder.rglob("*.jpg")):
        with Image.open(file) as opened:
            if min(opened.size) < _LEAST_SIDE:
                continue
        yield Photograph(
            key=f"{package.name}/{file.relative_to(folder).with_suffix('')}",
            source=package.name,
            place=str(file),
            shows=file.stem,
            synset=None,
            is_ground=package.name in _GROUNDS,
            kind="photograph",
        )


def _link_study(study: Path, train: Path) -> int:
    """The study's pictures of both splits, without copying a byte where the disk allows it."""
    count = 0
    for source in sorted([*study.glob("train/n*/*.jpg"), *study.glob("val/n*/*.jpg")]):
        path = train / source.parent.name / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            try:
                path.hardlink_to(source)
            except OSError:
                path.write_bytes(source.read_bytes())
        count += 1
    return count


def gather(study: Path, output: Path, *, cache: Path, jobs: int = 1) -> dict[str, Any]:
    """Fill ``output/train``; what is there from an interrupted run stays.

    Args:
        study: What ``python -m robustzs_training.study.data`` made.
        output: Folder to fill, on the same disk if it is not to be a copy.
        cache: Folder for packages that are not installed.
        jobs: Processes.

    Returns:
        Numbers of pictures by where they are from.

    Raises:
        typer.BadParameter: ``study`` has no pictures.
        DatasetNotFoundError: A package cannot be had.
    """
    packages = find_packages(cache, (*PACKAGES, *THINGS, *ALBUMS))
    train, grounds = output / "train", output / ".work" / "grounds"
    found: dict[str, Any] = {"drawings": _link_study(study, train)}
    if not found["drawings"]:
        raise typer.BadParameter(f"{study} holds no pictures: make them with study.data")
    listed = list(list_photographs(packages))
    for package in ALBUMS:
        listed.extend(_album(package, packages.path(package.name, package.holds)))
    prepare(listed, grounds)
    behind = [photograph for photograph in listed if photograph.is_ground]
    crops = train / "photographs"
    crops.mkdir(parents=True, exist_ok=True)
    cut = partial(_write_crops, target=crops)
    found["photographs"] = sum(spread(cut, listed, jobs=jobs))
    found["things"] = 0
    for package in THINGS:
        folder = packages.path(package.name, package.holds)
        work = partial(
            _write_thing,
            folder=folder,
            photographs=behind,
            grounds=grounds,
            target=train / "things" / package.name,
        )
        (train / "things" / package.name).mkdir(parents=True, exist_ok=True)
        files = sorted(folder.glob("*/*.[pj][np]g"))
        found["things"] += sum(spread(work, files, jobs=jobs))
    return found


def main(
    study: Annotated[Path, typer.Option(help="What robustzs_training.study.data made.")],
    output: Annotated[Path, typer.Option(help="Folder to fill.")],
    cache: Annotated[
        Path | None, typer.Option(help="Folder for packages that are not installed.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Gather the pictures that robustzs-lite is hardened on."""
    typer.echo(gather(study, output, cache=cache or default_cache(), jobs=jobs))


if __name__ == "__main__":
    typer.run(main)
