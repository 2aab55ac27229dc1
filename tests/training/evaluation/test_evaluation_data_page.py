"""docs/evaluation-data.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from robustzs_training.evaluation.presets import PRESETS
from robustzs_training.evaluation.sets.opening import _NAMED

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation-data.md").read_text(encoding="utf-8")


def row(name: str) -> list[str]:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_table_of_presets_is_the_presets() -> None:
    header = re.search(r"\| \| `(.+?)` \| `(.+?)` \| `(.+?)` \|", PAGE)
    assert header is not None
    presets = [PRESETS[name] for name in header.groups()]
    assert len(presets) == len(PRESETS)
    assert row("sets") == [f"{len(each.datasets) - 1}, and ImageNet" for each in presets]
    assert row("pictures of each") == [str(each.n or "all") for each in presets]
    assert row("eps") == [", ".join(each.attacks[0].eps) for each in presets]
    for cell, preset in zip(row("drawn by"), presets, strict=True):
        assert cell == "" or cell.endswith(f"seed {preset.seed}")


def test_every_kind_of_spec_is_there() -> None:
    for kind in set(_NAMED) - {"folder", "csv", "webdataset"}:
        assert f"`{kind}" in PAGE
