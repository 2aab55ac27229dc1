"""docs/labels.md: its examples run, its tables and limits are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robustzs.labels import LabelSet
from robustzs.labels.rules import MAX_ALIASES, MAX_FILE_BYTES, MAX_LABELS, MAX_TEXT_LENGTH
from robustzs.labels.templates import TEMPLATE_SETS

PAGE = (Path(__file__).parents[2] / "docs" / "labels.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_python_examples_run(code: str) -> None:
    exec(compile(code, "docs/labels.md", "exec"), {})


def test_file_examples_can_be_read(tmp_path: Path) -> None:
    lines, table = re.findall(r"```\n((?:#|name,).*?)```", PAGE, re.DOTALL)
    (tmp_path / "pets.txt").write_text(lines, encoding="utf-8")
    (tmp_path / "cranes.csv").write_text(table, encoding="utf-8")
    pets = LabelSet.from_file(tmp_path / "pets.txt")
    cranes = LabelSet.from_file(tmp_path / "cranes.csv")
    assert pets.names == ("cat", "dog, large", "#1 dad mug")
    assert [label.prompt for label in cranes] == ["crane bird", "construction crane", "salt, sea"]
    assert cranes[0].aliases == ("heron", "wader")


def test_sets_and_limits_are_the_ones_of_the_code() -> None:
    table = PAGE[PAGE.index("| set |") : PAGE.index("Or bring your own")]
    assert sorted(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == sorted(TEMPLATE_SETS)
    flat = " ".join(PAGE.split())
    assert f"more than {MAX_TEXT_LENGTH} characters in one field, {MAX_ALIASES} aliases" in flat
    assert f"{MAX_LABELS:,} labels or {MAX_FILE_BYTES >> 20} MiB" in flat
