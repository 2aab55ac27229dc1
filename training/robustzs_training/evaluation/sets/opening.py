"""From what people write to pictures: a folder, a table, shards, or a data set by name.

```
photos/                          one folder for each class: names, synsets or wnids
photos/data.csv                  path,label
shards/test-{00..03}.tar         WebDataset; also a folder of tars, or https://host/{00..03}.tar
fashion-mnist                    Debian's dataset-fashion-mnist; fashion-mnist:FOLDER elsewhere
torchvision:Food101:FOLDER       a torchvision data set that lies in FOLDER
huggingface:REPO                 a Hugging Face data set; huggingface:FOLDER for a local one
```
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from robustzs.errors import DatasetNotFoundError, UsageError
from robustzs.images.config import PreprocessConfig
from robustzs.labels import LabelSet, rules
from robustzs_training.data.base import SampleSource, Surveyed
from robustzs_training.evaluation.sets.draws import Draw, Sampling
from robustzs_training.evaluation.sets.source_set import Resolution, SourceSet, classes_of
from robustzs_training.evaluation.sets.table import open_table
from robustzs_training.evaluation.sets.truths import Truths, looked_up, own_truths
from robustzs_training.recipe import DataPart

OWN: Literal["own"] = "own"
Rename = Callable[[LabelSet], LabelSet]
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
_NAMED = ("folder", "csv", "webdataset", "torchvision", "huggingface", "fashion-mnist")
_HELD_OUT_SPLITS = ("test", "testing", "val", "valid", "validation", "eval")
_TABLES = (".csv",)
_TRAINED_ON = "whether the model was trained on these is for its owner to know"


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """Pictures, and what their labels are called.

    Attributes:
        source: Of pictures.
        texts: Distinct labels.
        codes: int64 ``[n]``, places in ``texts``.
        own: The labels as classes.
        closed: Whether the classes are what one chooses from, unless told otherwise.
        place: Where a text stands, for messages.
    """

    name: str
    source: SampleSource
    texts: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    own: Callable[[], LabelSet]
    closed: bool
    place: Callable[[int], str]
    about: Mapping[str, Any] = field(default_factory=dict)


def open_set(
    spec: str | os.PathLike[str],
    *,
    preprocess: PreprocessConfig,
    cache: Path,
    labels: LabelSet | Literal["own"] | None = None,
    n: int | None = None,
    seed: int = 0,
    sampling: Sampling = "numpy",
    split: str | None = None,
    resolution: Resolution = "model",
    name: str | None = None,
    rename: Rename | None = None,
) -> SourceSet:
    """Open pictures to measure a model on.

    Args:
        spec: Where they are; see the top of this file.
        preprocess: How a picture becomes pixels of the model.
        cache: Keeps what is unpacked, indexed or fetched.
        labels: What to choose from; ``own`` for the pictures' own labels. ``None``: ImageNet-1k's
            1000 for folders and tables, the classes of a data set that has a name.
        n: How many pictures; ``None`` for all that some label is right for.
        seed: Of the draw.
        sampling: How they are drawn.
        split: Of the data set; ``None`` for the one that is held out.
        resolution: Whether the model's input is perturbed, or the pictures' own pixels.
        name: For tables and cards; ``None`` for one made of ``spec``.
        rename: Gives the pictures' own classes other names, where they are chosen from; their
            order stays.

    Raises:
        DatasetNotFoundError: Nothing there.
        DataError: Listing what is wrong with labels or lines.
        TooManyBadSamplesError: Too many pictures that cannot be read.
        UsageError: A spec that means nothing, or ``n`` below 1.
    """
    opened = _open(os.fspath(spec), split, cache)
    truths = _truths(opened, labels, rename)
    about = {**opened.about, "trained_on": _TRAINED_ON}
    findings = opened.source.findings if isinstance(opened.source, Surveyed) else ()
    told = {
        finding.kind: {"n": finding.count, "of": finding.total, "first": list(finding.first)}
        for finding in findings
        if finding.count
    }
    return SourceSet(
        opened.source,
        truths,
        name=opened.name if name is None else name,
        preprocess=preprocess,
        draw=Draw(n=n, seed=seed, sampling=sampling),
        resolution=resolution,
        about={**about, "findings": told} if told else about,
    )


def _truths(
    opened: _Opened, labels: LabelSet | Literal["own"] | None, rename: Rename | None
) -> Truths:
    if labels is None:
        labels = OWN if opened.closed else LabelSet.imagenet1k()
    if isinstance(labels, str):
        if labels != OWN:
            raise UsageError(f"labels are {labels!r}", hint="give a LabelSet, or 'own'")
        own = opened.own()
        return own_truths(own if rename is None else rename(own), opened.codes)
    return looked_up(
        opened.texts,
        opened.codes,
        labels,
        origin=opened.name,
        place=opened.place,
    )


def _open(spec: str, split: str | None, cache: Path) -> _Opened:
    kind, _, rest = spec.partition(":")
    if kind not in _NAMED:
        kind, rest = _kind_of(spec), spec
    if kind == "csv":
        return _table(_path(rest))
    if kind == "folder":
        return _folder(_path(rest), split)
    if kind == "fashion-mnist":
        path = rest or FASHION_MNIST
        part = DataPart(source="torchvision", name="FashionMNIST", path=path, split=split or "test")
        return _from_source(part, "fashion-mnist", cache, hint=_FASHION_HINT)
    if kind == "torchvision":
        name, _, path = rest.partition(":")
        part = DataPart(source="torchvision", name=name, path=path or None, split=split or "test")
        return _from_source(part, name.lower(), cache)
    if kind == "huggingface":
        local = os.path.isdir(rest)
        part = DataPart(
            source="huggingface",
            path=rest if local else None,
            name=None if local else rest,
            split=split or "test",
        )
        return _from_source(part, _stem(rest), cache)
    part = DataPart(source="webdataset", path=rest, split=split or "test")
    return _from_source(part, _stem(rest), cache)


_FASHION_HINT = "apt install dataset-fashion-mnist, or write fashion-mnist:FOLDER"


def _kind_of(spec: str) -> str:
    if spec.startswith("https://") or spec.lower().endswith(".tar") or "{" in spec:
        return "webdataset"
    path = _path(spec)
    if path.is_dir():
        return "webdataset" if _has_tars(path) else "folder"
    return "csv" if path.suffix.lower() in _TABLES or path.is_file() else "folder"


def _has_tars(path: Path) -> bool:
    folders = (path, *(path / split for split in _HELD_OUT_SPLITS))
    return any(next(folder.glob("*.tar"), None) is not None for folder in folders)


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise DatasetNotFoundError(
            f"{text!r} names no home folder: {error}", hint="give the whole path"
        ) from error


def _stem(text: str) -> str:
    last = text.rstrip("/").rsplit("/", 1)[-1]
    return last.partition("{")[0].removesuffix(".tar").rstrip("-_") or "shards"


def _table(path: Path) -> _Opened:
    table = open_table(path)
    lines: dict[str, int] = {}
    for line in table.lines:
        lines.setdefault(line.label, line.number)
    return _Opened(
        name=path.stem,
        source=table,
        texts=table.texts,
        codes=table.codes,
        own=lambda: _own(table.texts, str(path)),
        closed=False,
        place=lambda number: f"line {lines[table.texts[number]]}",
        about={"source": f"table {path.name}"},
    )


def _folder(path: Path, split: str | None) -> _Opened:
    from robustzs_training.data.folders import open_folder

    source = open_folder(path, split=split or _held_out(path))
    labels, codes = classes_of(source, repr(str(path)))
    names, _ = source.scan.top_folders()
    return _Opened(
        name=path.absolute().name,
        source=source,
        texts=_texts_of(labels),
        codes=codes,
        own=lambda: _own(names, str(path)),
        closed=False,
        place=lambda number: f"folder {names[number]!r}",
        about={"source": f"folder {path.absolute().name}"},
    )


def _held_out(path: Path) -> str:
    for split in _HELD_OUT_SPLITS:
        if (path / split).is_dir():
            return split
    return "test"


def _from_source(part: DataPart, name: str, cache: Path, *, hint: str = "") -> _Opened:
    from robustzs_training.data.build import build_source

    try:
        source = build_source(part, cache=cache)
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(error.message, hint=hint or error.hint) from error
    origin = repr(part.path or part.name)
    labels, codes = classes_of(source, origin)
    about = {"source": f"{part.source} {part.name or name}", "split": part.split}
    return _Opened(
        name=name,
        source=source,
        texts=_texts_of(labels),
        codes=codes,
        own=lambda: labels,
        closed=True,
        place=lambda number: f"class {number}",
        about=about,
    )


def _texts_of(labels: LabelSet) -> tuple[str, ...]:
    """What each class is looked up by: its sense where it has one."""
    return tuple(label.synset or label.name for label in labels)


def _own(texts: tuple[str, ...], origin: str) -> LabelSet:
    from robustzs_training.data.resolve import labels_of_names, labels_of_wnids

    if all(map(rules.is_wnid, texts)):
        return labels_of_wnids(texts)[0]
    imagenet = LabelSet.imagenet1k()
    if sorted(texts) == sorted(map(str, range(len(imagenet)))):  # as ImageNet-V2 comes
        return LabelSet(tuple(imagenet[int(text)] for text in texts))
    return labels_of_names(texts, origin)
