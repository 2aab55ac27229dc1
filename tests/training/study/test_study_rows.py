"""Rows of the study: every one is a recipe, and all have the same budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from robustzs_training.study.rows import START, all_rows, find_row, places, row_names

from robustzs.errors import UsageError

DATA = Path("/nowhere/pictures")


def test_the_methods_that_were_asked_for() -> None:
    found = {row.name: row.recipe().objective.name for row in all_rows()}
    assert found == {
        "fare": "fare",
        "sim-clip": "sim-clip",
        "tecoa": "tecoa",
        "pmg-aft": "pmg-aft",
        "tga-zsr": "tga-zsr",
        "agft": "agft",
        "qt-aft-names": "qt-aft",
        "qt-aft": "qt-aft",
        "qt-aft-shuffled": "qt-aft",
        "hierarchical": "hierarchical",
        "hierarchical-forest": "hierarchical",
        "qt-aft-hierarchical": "qt-aft-hierarchical",
    }
    assert row_names()[0] == START


def test_all_have_the_same_budget() -> None:
    """What a row may change is its objective, its rate, its captions, trees and siblings."""
    shared = set()
    for row in all_rows():
        document = row.recipe(places(DATA, "robustzs-lite-clean")).decisive()
        del document["objective"], document["optimizer"]["lr"]
        for key in ("caption_mode", "hierarchy", "siblings", "template"):
            del document["data"][key]
        shared.add(str(document))
    assert len(shared) == 1
    recipe = all_rows()[0].recipe()
    assert recipe.schedule.steps is not None
    assert recipe.schedule.steps <= 500
    assert recipe.data.augment.image_size == 128


def test_three_rows_differ_in_captions_alone() -> None:
    names = ("qt-aft-names", "qt-aft", "qt-aft-shuffled")
    rows = [find_row(name) for name in names]
    documents = [row.recipe().decisive() for row in rows if row is not None]
    modes = [document["data"].pop("caption_mode") for document in documents]
    assert modes == ["names", "as-is", "shuffled"]
    for document in documents:
        del document["data"]["template"]
    assert documents[0] == documents[1] == documents[2]


def test_places_and_changes_come_last() -> None:
    row = find_row("qt-aft")
    assert row is not None
    recipe = row.recipe([*places(DATA, "start"), "schedule.steps=7"])
    assert recipe.name == "study-qt-aft"
    assert recipe.model.source == "start"
    assert recipe.data.path == str(DATA)
    assert recipe.data.captions == str(DATA / "captions.parquet")
    assert recipe.schedule.steps == 7
    assert recipe.evaluate is None


def test_a_misspelt_row_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no row 'tecao'") as caught:
        find_row("tecao")
    assert "tecoa" in str(caught.value)
    assert find_row(START) is None
