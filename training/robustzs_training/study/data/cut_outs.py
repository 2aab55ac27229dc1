"""Rendered drawings on disk, what was measured of them, and which of them are the same picture."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from robustzs_training.study.data.drawings import Drawing
from robustzs_training.study.data.looks import fingerprint, main_colors
from robustzs_training.study.data.render import render

_MAX_BITS = 3
_MAX_LEVELS = 9.0
_VERSION = 1
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a drawing looks like.

    Attributes:
        key: The drawing's.
        file: Name of the PNG; empty where there is a fault.
        fault: Why it cannot be used; empty where it can.
        colors: One or two.
        bits: Difference hash, 64 bits, in hex.
        cells: Mean colours of 8 by 8 cells, ``[192]``, 0 to 255.
    """

    key: str
    file: str = ""
    fault: str = ""
    colors: tuple[str, ...] = ()
    bits: str = "0"
    cells: tuple[int, ...] = ()


def look_at(drawings: Sequence[Drawing], folder: Path, *, jobs: int) -> dict[str, Look]:
    """Render all drawings that are not in the folder yet; by key."""
    folder.mkdir(parents=True, exist_ok=True)
    looks = spread(partial(_look, folder=folder), drawings, jobs=jobs)
    return {look.key: look for look in looks}


def spread(
    work: Callable[[_Task], _Result], tasks: Iterable[_Task], *, jobs: int
) -> Iterator[_Result]:
    """Results in the tasks' order, by ``jobs`` processes; one job stays in this process."""
    if jobs <= 1:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, tasks, chunksize=4)


def write_json(path: Path, content: Any) -> None:
    """Write a file that is whole or not there."""
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_text(json.dumps(content), encoding="utf-8")
    os.replace(part, path)


def _look(drawing: Drawing, folder: Path) -> Look:
    stem = hashlib.sha256(f"{_VERSION} {drawing.key}".encode()).hexdigest()[:20]
    stored = folder / f"{stem}.json"
    if stored.is_file():
        found: dict[str, Any] = json.loads(stored.read_text("utf-8"))
        return Look(**{**found, "colors": tuple(found["colors"]), "cells": tuple(found["cells"])})
    cut_out = render(drawing)
    if cut_out.image is None:
        look = Look(key=drawing.key, fault=cut_out.fault or "unreadable")
    else:
        bits, cells = fingerprint(cut_out.image)
        path = folder / f"{stem}.png"
        part = folder / f"{stem}.part"
        cut_out.image.save(part, "PNG")
        os.replace(part, path)
        look = Look(
            key=drawing.key,
            file=path.name,
            colors=main_colors(cut_out.image),
            bits=f"{bits:x}",
            cells=tuple(int(value) for value in cells.reshape(-1)),
        )
    write_json(stored, asdict(look))
    return look


def same_pictures(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Pairs ``(first, second)`` of near-duplicates, by place; ``first`` is the earlier one."""
    bits = np.array([int(look.bits, 16) for look in looks], np.uint64)
    cells = np.array([look.cells for look in looks], np.int16)
    pairs = []
    for i in range(len(looks) - 1):
        near = np.flatnonzero(np.bitwise_count(bits[i + 1 :] ^ bits[i]) <= _MAX_BITS) + i + 1
        for j in near.tolist():
            if float(np.abs(cells[i] - cells[j]).mean()) <= _MAX_LEVELS:
                pairs.append((i, j))
    return pairs
