"""docs/bundle.md and docs/images.md say what the code does."""

import re
from pathlib import Path

import pytest

from robustzs import errors
from robustzs.bundle.manifest import BundleManifest
from robustzs.images.limits import DEFAULT_LIMITS

DOCS = Path(__file__).parents[2] / "docs"


def test_every_field_of_the_record_is_described():
    section = (DOCS / "bundle.md").read_text().split("## bundle.json")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert described == set(BundleManifest.model_fields)


@pytest.mark.parametrize("page", ["bundle.md", "images.md"])
def test_errors_are_named_with_their_codes(page):
    rows = re.findall(r"`(\w+Error)` \| `([\w-]+)`", (DOCS / page).read_text())
    assert rows
    for name, code in rows:
        assert getattr(errors, name).code == code


def test_the_limits_are_the_documented_ones():
    text = (DOCS / "images.md").read_text()
    assert f"| pixels | {DEFAULT_LIMITS.max_pixels:,} |" in text
    assert f"| encoded size | {DEFAULT_LIMITS.max_bytes >> 20} MiB |" in text
    assert f"| frames, pages | {DEFAULT_LIMITS.max_frames} |" in text
    assert f"| text and profile of a PNG | {DEFAULT_LIMITS.max_text_bytes >> 20} MiB |" in text
