"""Checkpoints on disk: safetensors and JSON, whole or not there.

::

    checkpoints/step-00000500/tensors.safetensors     weights, optimiser, average, random states
                              state.json              everything that is not a tensor
                              digests.json            sha256 of the two

A checkpoint is written beside its place, forced to disk, and renamed: whatever kills the process,
a folder of that name is complete. Digests find what a disk does to it later.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from robustzs.errors import TrainingStateError

_TENSORS, _STATE, _DIGESTS = "tensors.safetensors", "state.json", "digests.json"
_NAME = re.compile(r"step-(\d{8,})")
_WRITING = ".writing"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One that was read and whose digests are right."""

    path: Path
    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: Made when the first one is written.
        keep: How many of the latest stay.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        """Where the checkpoint after ``step`` steps lies."""
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, the latest first; whether they are whole is not checked."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(each.name) for each in self.folder.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def size(self) -> int:
        """Bytes that the checkpoints take now."""
        return sum(each.stat().st_size for each in self.folder.rglob("*") if each.is_file())

    # ---- writing ---------------------------------------------------------------------------------

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
    ) -> Path:
        """Write one, then remove the ones that are too many.

        Raises:
            TrainingStateError: The disk refuses. Earlier checkpoints stay as they were.
        """
        temporary = self.folder / _WRITING
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write(temporary, tensors, {"step": step, **state})
            place = self.path(step)
            if place.exists():  # a damaged one, which the run went back behind
                shutil.rmtree(place)
            os.rename(temporary, place)
            _sync(self.folder)
            for old in self.steps()[self.keep :]:
                shutil.rmtree(self.path(old))
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                shutil.rmtree(temporary, ignore_errors=True)
            raise TrainingStateError(
                f"the checkpoint of step {step} cannot be written to {self.folder}: {error}",
                hint="free disk space or repair the folder, then start the same command again; "
                + _goes_on_from(self.steps()),
            ) from error
        return place

    # ---- reading ---------------------------------------------------------------------------------

    def latest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The latest checkpoint that is whole; ``None`` where there is none at all.

        Args:
            note: Told of each one that is damaged and passed over.

        Raises:
            TrainingStateError: There are some, and all are damaged.
        """
        damaged = []
        for step in self.steps():
            try:
                found = self._read(step)
            except (OSError, ValueError, SafetensorError) as error:
                damaged.append(f"{self.path(step).name}: {error}")
                continue
            for each in damaged:
                note(f"passed over a damaged checkpoint, {each}; going on from step {step}")
            return found
        if damaged:
            raise TrainingStateError(
                f"every checkpoint in {self.folder} is damaged: {'; '.join(damaged)}",
                hint="remove that folder to start over, or restore it from a backup",
            )
        return None

    def _read(self, step: int) -> Checkpoint:
        place = self.path(step)
        wanted = json.loads((place / _DIGESTS).read_text(encoding="utf-8"))
        for name in (_STATE, _TENSORS):
            if not isinstance(wanted, dict) or file_digest(place / name) != wanted.get(name):
                raise ValueError(f"{name} is not what was written")
        state = json.loads((place / _STATE).read_text(encoding="utf-8"))
        tensors = load_file(place / _TENSORS)
        return Checkpoint(path=place, step=step, tensors=tensors, state=state)


def _write(folder: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    rows = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(rows, folder / _TENSORS)
    (folder / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    digests = {name: file_digest(folder / name) for name in (_STATE, _TENSORS)}
    (folder / _DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")
    for name in (_STATE, _TENSORS, _DIGESTS):
        _sync(folder / name)
    _sync(folder)


def file_digest(path: Path) -> str:
    """Sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _goes_on_from(steps: list[int]) -> str:
    return f"it goes on from step {steps[0]}" if steps else "it starts from the beginning"
