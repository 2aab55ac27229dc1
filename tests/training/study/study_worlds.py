"""Everything that a study reads, small: pictures with captions, photographs, Fashion-MNIST."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from robustzs_training.study.measure import Pictures
from robustzs_training.study.protocol import Protocol
from robustzs_training.study.runner import Study

from robustzs.hierarchy.noun_index import NounIndex

TRAINED = ("snake.n.01", "teapot.n.01", "oak.n.02", "sofa.n.01")
HELD_OUT = ("cat.n.01", "owl.n.01", "cup.n.01", "hammer.n.02")
PHOTOGRAPHED = ("animal.n.01", "artifact.n.01")
"""Inner nodes, which many of ImageNet's classes are right for."""


def write_study(folder: Path) -> Pictures:
    """Noise with labels and captions, as the study's data have them."""
    rng = np.random.default_rng(7)
    index = NounIndex.load()
    rows: list[tuple[str, str]] = []
    held = ["path,label"]
    for split, names in (("train", TRAINED), ("val", HELD_OUT)):
        for name in names:
            wnid = index.get(name).wnid
            for number in range(4):
                key = f"{split}/{wnid}/{number}.jpg"
                _noise(rng, folder / "data" / key)
                rows.append((key, f"A {name.split('.')[0]} number {number}."))
                if split == "val":
                    held.append(f"{key},{wnid}")
    table = pa.table({"key": [key for key, _ in rows], "caption": [text for _, text in rows]})
    pq.write_table(table, folder / "data" / "captions.parquet")
    (folder / "data" / "held_out.csv").write_text("\n".join(held) + "\n", encoding="utf-8")
    photographs = ["path,label"]
    for number in range(8):
        _noise(rng, folder / "photographs" / f"{number}.png")
        photographs.append(f"{number}.png,{PHOTOGRAPHED[number % 2]}")
    path = folder / "photographs" / "data.csv"
    path.write_text("\n".join(photographs) + "\n", encoding="utf-8")
    _fashion(rng, folder / "fashion")
    return Pictures(data=folder / "data", photographs=path)


def study_of(pictures: Pictures, output: Path, model: Path, **more: Any) -> Study:
    """A study of seconds: 32 pixels, two steps, two iterations."""
    protocol = Protocol(
        image_size=32,
        n_images=8,
        n_photographs=8,
        n_steps=2,
        depths=(3, 4),
        batch_size=4,
        fashion=str(pictures.data.parent / "fashion"),
        **more.pop("protocol", {}),
    )
    changes = ("schedule.steps=2", "run.batch_size=4", "data.augment.image_size=32")
    return Study(
        pictures=pictures,
        output=output,
        protocol=protocol,
        changes=(*changes, *more.pop("changes", ())),
        model=str(model),
        **more,
    )


@contextlib.contextmanager
def unseen(title: str) -> Iterator[Any]:
    del title
    yield lambda done, total: None


def _noise(rng: np.random.Generator, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(path)


def _fashion(rng: np.random.Generator, folder: Path) -> None:
    """Fashion-MNIST's own files, with noise in them."""
    folder.mkdir()
    for part in ("t10k", "train"):
        shown = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8)
        labels = (np.arange(20) % 10).astype(np.uint8)
        for name, magic, array in (("images-idx3", 2051, shown), ("labels-idx1", 2049, labels)):
            head = np.array([magic, *array.shape], ">i4").tobytes()
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb") as file:
                file.write(head + array.tobytes())
