"""Every page for people: nothing is left to be filled in."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "serving/**/*.md", "sdk/**/*.md")
    for path in REPOSITORY.glob(pattern)
)


def test_there_are_pages() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/training.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_no_placeholder_is_left(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert "@@" not in text
