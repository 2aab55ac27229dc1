"""Reads the held-out pictures by the labels of ``labels.csv``.

Columns of the table, one line per picture of the folders that it covers:

``source``, ``path``  the package, and the file in it (``x.rcc/...``: inside that Qt resource file)
``name``              what the file is called
``synset``, ``wnid``  the WordNet 3.0 noun that the name means; empty where there is none
``kind``              ``photo`` or ``drawing`` (whatever is not a photograph)
``scorable``          ``yes`` where an ImageNet-1k class can be right: see `robustzs.metrics.right`
``sha256``            of the file
``note``              why there is no synset, or how it was found
"""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from benchmarks.heldout_photos.cache import FETCH_COMMAND, HeldoutError, package_folder
from benchmarks.heldout_photos.rcc import RccArchive, RccError
from robustzs.hierarchy.noun_index import NounIndex

LABELS = Path(__file__).with_name("labels.csv")
FASHION_CLASSES = (
    "t-shirt or top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""Names of Fashion-MNIST's ten classes, by class number."""

_IDX_IMAGES, _IDX_LABELS = 0x00000803, 0x00000801
_ROOTS = {
    "gcompris-qt-data": "usr/share/gcompris-qt/rcc",
    "opencv-doc": "usr/share/doc/opencv-doc/examples",
    "scikit-image": "skimage/data",
}
Kind = Literal["photo", "drawing"]


@dataclass(frozen=True)
class PhotoLabel:
    """One line of the table."""

    source: str
    path: str
    name: str
    synset: str | None
    wnid: str | None
    kind: Kind
    scorable: bool
    sha256: str
    note: str

    @property
    def id(self) -> str:
        """Source and path, unique in the table."""
        return f"{self.source}/{self.path}"


@dataclass(frozen=True)
class Photo:
    """A labelled picture with its encoded bytes, as in the package."""

    id: str
    source: str
    data: bytes
    name: str
    synset: str
    wnid: str


def read_labels(path: Path = LABELS) -> list[PhotoLabel]:
    """The table, in its own order (by source, then path)."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            PhotoLabel(
                source=row["source"],
                path=row["path"],
                name=row["name"],
                synset=row["synset"] or None,
                wnid=row["wnid"] or None,
                kind="photo" if row["kind"] == "photo" else "drawing",
                scorable=row["scorable"] == "yes",
                sha256=row["sha256"],
                note=row["note"],
            )
            for row in csv.DictReader(lines)
        ]


def load_photos(
    kind: Kind | None = "photo", scorable: bool | None = True, cache: Path | None = None
) -> list[Photo]:
    """The labelled pictures, read from the cache and checked against their digests.

    Args:
        kind: only photographs, only drawings, or (None) both.
        scorable: only those that an ImageNet-1k class can get right, only the others, or
            (None) all that have a synset.
        cache: the cache folder, if not the usual one.

    Raises:
        HeldoutError: the packages are not fetched, or a picture is not the one that was labelled.
    """
    photos = []
    for label in read_labels():
        if label.synset is None or label.wnid is None:
            continue
        if kind not in (None, label.kind) or scorable not in (None, label.scorable):
            continue
        data = read_picture(label, cache)
        photos.append(Photo(label.id, label.source, data, label.name, label.synset, label.wnid))
    return photos


def read_picture(label: PhotoLabel, cache: Path | None = None) -> bytes:
    """The encoded bytes of one line's picture.

    Raises:
        HeldoutError: it is not in the cache, or differs from the labelled one.
    """
    folder = package_folder(label.source, cache) / _ROOTS[label.source]
    try:
        if ".rcc/" in label.path:
            data = _read_resource(folder, label.path)
        else:
            data = (folder / label.path).read_bytes()
    except OSError as error:
        raise HeldoutError(f"{label.id}: not in the cache; run {FETCH_COMMAND}") from error
    except RccError as error:
        raise HeldoutError(f"{label.id}: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != label.sha256:
        raise HeldoutError(
            f"{label.id}: sha256 {found}, labelled was {label.sha256}: this release of "
            f"{label.source} ships another picture, which needs a look before it is measured"
        )
    return data


def wordnet_closure(index: NounIndex) -> Callable[[str], frozenset[str]]:
    """For a wnid all its hypernyms and instance hypernyms, itself included; remembers."""

    @functools.cache
    def closure_up(wnid: str) -> frozenset[str]:
        synset = index.get(wnid)
        above = (closure_up(w) for w in (*synset.hypernyms, *synset.instance_hypernyms))
        return frozenset({wnid}).union(*above)

    return closure_up


def load_fashion_mnist(
    split: Literal["test", "train"] = "test", cache: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST as arrays.

    Returns:
        Grey pictures, uint8 ``[N, 28, 28]``, white on black, and class numbers, int64 ``[N]``;
        names in `FASHION_CLASSES`. N is 10,000 (test) or 60,000 (train).

    Raises:
        HeldoutError: the package is not fetched, or a file is broken.
    """
    stem = {"test": "t10k", "train": "train"}[split]
    folder = package_folder("dataset-fashion-mnist", cache) / "usr/share/datasets/fashion-mnist"
    pictures = _read_idx(folder / f"{stem}-images-idx3-ubyte.gz", _IDX_IMAGES)
    classes = _read_idx(folder / f"{stem}-labels-idx1-ubyte.gz", _IDX_LABELS)
    if len(pictures) != len(classes):
        raise HeldoutError(f"{folder}: {len(pictures)} pictures but {len(classes)} labels")
    return pictures, classes.astype(np.int64)


def _read_idx(path: Path, magic: int) -> np.ndarray:
    """Reads one gzipped IDX file of unsigned bytes (the format of MNIST's own page)."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise HeldoutError(f"{path}: not in the cache; run {FETCH_COMMAND}") from error
    except (OSError, EOFError) as error:
        raise HeldoutError(f"{path}: cannot be read: {error}") from error
    if int.from_bytes(raw[:4], "big") != magic:
        raise HeldoutError(f"{path}: magic number {raw[:4].hex()}, not {magic:08x}")
    n_dims = magic & 0xFF
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", n_dims, 4))
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * n_dims)
    if values.size != np.prod(shape):
        raise HeldoutError(f"{path}: {values.size} bytes for shape {shape}")
    return values.reshape(shape)


def _read_resource(folder: Path, path: str) -> bytes:
    """``categorization.rcc/images/x.webp`` is a file of that activity's resources."""
    archive, _, inside = path.partition("/")
    activity = archive.removesuffix(".rcc")
    return _open_archive(folder / archive).read(
        f"gcompris/src/activities/{activity}/resource/{inside}"
    )


@functools.lru_cache(maxsize=8)
def _open_archive(path: Path) -> RccArchive:
    return RccArchive.open(path)


def main(
    listing: Annotated[bool, typer.Option("--list", help="One line per picture.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Cache folder.")] = None,
) -> None:
    """Counts, or lists, the held-out pictures."""
    labels = read_labels()
    if listing:
        for label in labels:
            scorable = "scorable" if label.scorable else "-"
            row = (label.id, label.kind, scorable, label.synset or "-", label.wnid or "-")
            typer.echo("\t".join((*row, label.note)))
        return
    counts = Counter(
        (label.source, label.kind, _state(label.synset is not None, label.scorable))
        for label in labels
    )
    for (source, kind, state), n in sorted(counts.items()):
        typer.echo(f"{source:18} {kind:8} {state:14} {n:4}")
    photos = load_photos(cache=cache)
    typer.echo(f"{len(photos)} scorable photographs are in the cache, digests right")


def _state(has_synset: bool, scorable: bool) -> str:
    if not has_synset:
        return "no synset"
    return "scorable" if scorable else "not scorable"


if __name__ == "__main__":
    typer.run(main)
