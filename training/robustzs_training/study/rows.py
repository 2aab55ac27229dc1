"""The rows of the study: a method each, as changes of one recipe (``rows.yaml``)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from robustzs.errors import RecipeError, UsageError
from robustzs_training.recipe import Recipe
from robustzs_training.recipe_files import load_recipe
from robustzs_training.recipe_yaml import read_yaml

BASE = "quickstart"
"""The recipe that all rows change."""
START = "start"
"""The row of the model before any training: measured alone."""
START_TITLE = "before training"
_RECORDS = ("title", "why", "recipe")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method.

    Attributes:
        name: For commands and files.
        title: For tables.
        why: What it is, and why its settings are as they are.
        changes: Of the recipe, as ``section={json}``.
    """

    name: str
    title: str
    why: str
    changes: tuple[str, ...]

    def recipe(self, changes: Sequence[str] = ()) -> Recipe:
        """The recipe, with further changes.

        Raises:
            RecipeError: It has problems.
        """
        return load_recipe(BASE, [*self.all_changes(), *changes])

    def all_changes(self) -> tuple[str, ...]:
        """What is common to all rows, then the row's own."""
        names = (f"name=study-{self.name}", f"summary={json.dumps(self.title)}")
        source = f"source={json.dumps('Ours, for a comparison at a small scale. ' + self.why)}"
        return (*names, source, *common_changes(), *self.changes)


def common_changes() -> tuple[str, ...]:
    """What all rows change in the recipe."""
    return _as_changes(_document()["common"])


@cache
def all_rows() -> tuple[Row, ...]:
    """All rows that train, in the tables' order.

    Raises:
        RecipeError: ``rows.yaml`` is no list of rows.
    """
    found = []
    for name, record in _document()["rows"].items():
        if not isinstance(record, Mapping) or set(record) != set(_RECORDS):
            raise RecipeError(
                f"the row {name!r} of rows.yaml does not have {', '.join(_RECORDS)}",
                hint="look at the rows beside it",
            )
        found.append(
            Row(
                name=name,
                title=str(record["title"]),
                why=str(record["why"]).strip(),
                changes=_as_changes(record["recipe"]),
            )
        )
    return tuple(found)


def row_names() -> tuple[str, ...]:
    """Names of all rows, the start model first."""
    return (START, *(row.name for row in all_rows()))


def title_of(name: str) -> str:
    """A row's title."""
    titles = {row.name: row.title for row in all_rows()}
    return {START: START_TITLE, **titles}.get(name, name)


def find_row(name: str) -> Row | None:
    """The row of a name; ``None`` for the start model.

    Raises:
        UsageError: There is none; close names are offered.
    """
    if name == START:
        return None
    for row in all_rows():
        if row.name == name:
            return row
    close = difflib.get_close_matches(name, row_names(), n=3, cutoff=0.4)
    offer = f"did you mean {' or '.join(close)}?" if close else f"rows: {', '.join(row_names())}"
    raise UsageError(f"the study has no row {name!r}", hint=offer)


def places(data: Path, model: str) -> tuple[str, ...]:
    """Changes that name the pictures, their captions and the start model."""
    return _as_changes(
        {
            "data": {"path": str(data), "captions": str(data / "captions.parquet")},
            "model": {"source": model},
            "evaluate": None,
        }
    )


@cache
def _document() -> dict[str, Any]:
    text = (files("robustzs_training.study") / "rows.yaml").read_text(encoding="utf-8")
    document = read_yaml(text, "rows.yaml")
    if not isinstance(document, dict) or set(document) != {"common", "rows"}:
        raise RecipeError("rows.yaml has other parts than common and rows", hint="see its top")
    return document


def _as_changes(sections: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{section}={json.dumps(value)}" for section, value in sections.items())
