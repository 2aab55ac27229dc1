"""Recipes by name or file, with changes from the command line; every problem is told at once.

A file may begin with ``extends: NAME``, the name of a built-in recipe or the path of another file
(relative to this one): what it does not say comes from there. Another ``objective.name`` leaves
the old objective's options behind, and ``schedule.steps`` replaces ``schedule.epochs``. Other
paths in a recipe are relative to the working folder.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from robustzs.errors import RecipeError
from robustzs_training.recipe import Recipe
from robustzs_training.recipe_problems import option_problems, recipe_problems
from robustzs_training.recipe_yaml import read_yaml

_SUFFIXES = (".yaml", ".yml")
_MAX_DEPTH = 8


@dataclass(frozen=True, kw_only=True)
class RecipeInfo:
    """One line of the list of built-in recipes."""

    name: str
    summary: str


def builtin_names() -> list[str]:
    """Names of the built-in recipes, sorted."""
    entries = files("robustzs_training.recipes").iterdir()
    return sorted(e.name.removesuffix(".yaml") for e in entries if e.name.endswith(".yaml"))


def list_recipes() -> list[RecipeInfo]:
    """The built-in recipes with their summaries."""
    return [
        RecipeInfo(name=name, summary=load_recipe(name).summary.strip()) for name in builtin_names()
    ]


def recipe_text(name_or_path: str) -> str:
    """The YAML of a recipe as it was written, comments included.

    Raises:
        RecipeError: There is no such recipe.
    """
    text, _ = _find(name_or_path, Path())
    return text


def recipe_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every default written out."""
    return yaml.safe_dump(recipe.document(), sort_keys=False, allow_unicode=True)


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check it.

    Args:
        name_or_path: A built-in recipe's name, or the path of a YAML file.
        overrides: Changes such as ``attack.n_steps=5``; the value is YAML.

    Raises:
        RecipeError: There is no such recipe, it is no YAML, or it has problems: all are listed,
            each with its full path and, for an unknown key, the nearest allowed one.
    """
    document = _resolve(str(name_or_path), Path(), ())
    for override in overrides:
        _apply(document, override)
    return check_recipe(document, str(name_or_path))


def check_recipe(document: Mapping[str, Any], where: str = "the recipe") -> Recipe:
    """A recipe from a document of plain values.

    Raises:
        RecipeError: It has problems; all are listed.
    """
    problems: list[str] = []
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(dict(document))
    except ValidationError as error:
        problems += recipe_problems(error)
    problems += option_problems(document.get("objective"))
    if problems or recipe is None:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise RecipeError(
            f"{where} has {len(problems)} problem{'s' if len(problems) != 1 else ''}:\n{listed}",
            hint="`robustzs train --show qt-aft-vit-b-16` shows a whole recipe; "
            "docs/training.md explains every key",
        )
    return recipe


def _resolve(name: str, folder: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    text, path = _find(name, folder)
    key = str(path) if path is not None else name
    if key in seen or len(seen) >= _MAX_DEPTH:
        raise RecipeError(
            f"recipes extend each other in a circle: {' -> '.join([*seen, key])}"
            if key in seen
            else f"{name}: more than {_MAX_DEPTH} recipes extend each other",
            hint="take one `extends` out",
        )
    document = read_yaml(text, f"the recipe {name}")
    if not isinstance(document, dict):
        raise RecipeError(
            f"the recipe {name} is {type(document).__name__}, not keys with values",
            hint="`robustzs train --show quickstart` shows one",
        )
    if "extends" not in document:
        return document
    parent = document.pop("extends")
    if not isinstance(parent, str):
        raise RecipeError(f"{name}: extends is {parent!r}", hint="name one recipe or file")
    base = _resolve(parent, path.parent if path is not None else folder, (*seen, key))
    return _merged(base, document)


def _find(name: str, folder: Path) -> tuple[str, Path | None]:
    """The text of a recipe, and its path if it is a file."""
    if name in builtin_names():
        entry = files("robustzs_training.recipes") / f"{name}.yaml"
        return entry.read_text(encoding="utf-8"), None
    path = folder / name
    if name and path.is_file():
        try:
            return path.read_text(encoding="utf-8"), path.resolve()
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"the recipe {path} cannot be read: {error}", hint="it must be text in UTF-8"
            ) from error
    if name.endswith(_SUFFIXES) or "/" in name or "\\" in name:
        raise RecipeError(f"there is no recipe file {str(path)!r}", hint="check the path")
    close = difflib.get_close_matches(name, builtin_names(), n=3, cutoff=0.4)
    offer = f"did you mean {' or '.join(close)}? " if close else ""
    raise RecipeError(
        f"there is no recipe {name!r}",
        hint=f"{offer}`robustzs train --list` shows them; your own is named by its path, "
        "such as my-recipe.yaml",
    )


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        old = merged.get(key)
        if not isinstance(value, Mapping) or not isinstance(old, Mapping):
            merged[key] = copy.deepcopy(value)
        elif key == "objective" and value.get("name", old.get("name")) != old.get("name"):
            merged[key] = dict(value)
        elif key == "schedule":
            merged[key] = _one_length(old, value)
        else:
            merged[key] = _merged(old, value)
    return merged


def _one_length(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    lengths = {"steps", "epochs"}
    kept = {k: v for k, v in old.items() if not (lengths & set(new) and k in lengths)}
    return {**kept, **new}


def _apply(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise RecipeError(
            f"--set {override!r} is no change", hint="write KEY=VALUE, as in attack.n_steps=5"
        )
    value = read_yaml(text, f"the value of --set {override}")
    change: Any = value
    for part in reversed(path[1:]):
        change = {part: change}
    owner: Any = document
    for part in path[:-1]:
        owner = owner.get(part) if isinstance(owner, dict) else owner
        if owner is not None and not isinstance(owner, dict):
            raise RecipeError(
                f"--set {override}: {part} is {owner!r} and has no keys", hint="check the key"
            )
    document.update(_merged(document, {path[0]: change}))
