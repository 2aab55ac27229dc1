"""What `robustzs train` was asked for: options become changes of the recipe, checked with it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustzs.errors import DatasetNotFoundError, UsageError
from robustzs.hierarchy.noun_index import WNID_PATTERN
from robustzs_training.finish import RUN_FOLDER
from robustzs_training.loop.provenance import PROVENANCE
from robustzs_training.loop.trainer import LOCK
from robustzs_training.recipe import Recipe
from robustzs_training.recipe_files import load_recipe


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """Options of the command.

    Attributes:
        recipe: Name or file.
        output: Folder of the run and of the bundle.
        data: Folder or shards, instead of the recipe's data.
        model: Bundle, folder or ``hf-hub:NAME``, instead of the recipe's model.
        changes: ``key=value``, applied last.
        steps: Instead of the recipe's length.
        seed: Instead of the recipe's.
        n_workers: Loader processes, instead of the recipe's.
        resume: Go on where an interrupted run in ``output`` stopped.
        evaluate: Measure before and after.
    """

    recipe: str
    output: Path
    data: str | None = None
    model: str | None = None
    changes: tuple[str, ...] = ()
    steps: int | None = None
    seed: int | None = None
    n_workers: int | None = None
    resume: bool = True
    evaluate: bool = True

    def resolve(self) -> Recipe:
        """The recipe with all changes.

        Raises:
            RecipeError: Problems of the recipe or of the changes; all are listed.
            DatasetNotFoundError: ``data`` is not there.
        """
        changes: dict[str, Any] = {}
        if self.model is not None:
            changes |= {"model.source": self.model, "model.pretrained": None, "model.base": None}
        if self.data is not None:
            recipe = load_recipe(self.recipe, self.changes)
            changes |= _data_changes(recipe, self.data)
        for key, value in (
            ("schedule.steps", self.steps),
            ("run.seed", self.seed),
            ("data.n_workers", self.n_workers),
        ):
            if value is not None:
                changes[key] = value
        texts = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        last = [] if self.evaluate else ["evaluate=null"]
        return load_recipe(self.recipe, [*texts, *self.changes, *last])


def _data_changes(recipe: Recipe, data: str) -> dict[str, Any]:
    """``--data`` for recipes that name another kind of data, too."""
    path = Path(os.path.expanduser(data))
    is_shards = data.endswith(".tar") or "{" in data or "://" in data
    if not is_shards and not path.exists():
        raise DatasetNotFoundError(
            f"there is no data {data!r}",
            hint="give a folder of images, or shards as 'x-{00..09}.tar'",
        )
    kind = "webdataset" if is_shards else _kind_of_folder(path, recipe.data.split)
    found: dict[str, Any] = {"data.source": kind, "data.path": data}
    if recipe.data.name is not None:
        found["data.name"] = None
    if recipe.data.source == "openmoji" and recipe.data.captions is None:
        # Drawings bring captions along; what takes their place gets some of the same kind.
        found["data.caption_mode"] = "names-and-properties"
    return found


# What a run writes before anything else; a folder that is merely called `run` is not ours.
_OF_A_RUN = (LOCK, PROVENANCE)


def _kind_of_folder(path: Path, split: str) -> str:
    """Class names, wnids or shards: what the names in a folder say."""
    if not path.is_dir():
        return "folder"
    within = path / split if (path / split).is_dir() else path
    entries = list(within.iterdir())
    names = [each.name for each in entries if each.is_dir()]
    if not names and any(each.suffix == ".tar" for each in entries):
        return "webdataset"
    by_wnid = bool(names) and all(WNID_PATTERN.fullmatch(name) for name in names)
    return "wnid-folder" if by_wnid else "folder"


def check_output(output: Path) -> None:
    """Refuse a folder that holds something that is not a run's.

    Raises:
        UsageError: It is a file, or holds a bundle or other files that no run made.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file", hint="name a folder for --output")
    if not output.is_dir() or any((output / RUN_FOLDER / name).exists() for name in _OF_A_RUN):
        return
    found = sorted(each.name for each in output.iterdir())
    if found:
        raise UsageError(
            f"{output} holds {', '.join(found[:3])}{', ...' if len(found) > 3 else ''} and no run",
            hint="name a new folder for --output",
        )
