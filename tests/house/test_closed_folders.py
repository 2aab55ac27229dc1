"""A file in a folder that is closed to us is not called missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustzs.bundle.registry import resolve_model
from robustzs.errors import RobustZSError
from robustzs.files import is_closed
from robustzs.hierarchy.load import load_hierarchy
from robustzs.images.sources import iter_sources
from robustzs.labels import LabelSet
from tests.privileges import without_file_powers


def test_images_trees_labels_and_models(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    for name in ("x.png", "x.yaml", "x.csv"):
        (closed / name).write_text("dog: [poodle]")
    closed.chmod(0o000)
    try:
        with without_file_powers():
            with pytest.raises(RobustZSError, match=r"x\.png.*[Pp]ermission denied"):
                next(iter_sources([str(closed / "x.png")])).read()
            with pytest.raises(RobustZSError, match=r"x\.yaml.*[Pp]ermission denied"):
                load_hierarchy(str(closed / "x.yaml"))
            with pytest.raises(RobustZSError, match=r"x\.csv.*[Pp]ermission denied"):
                LabelSet.parse(str(closed / "x.csv"))
            with pytest.raises(RobustZSError, match=r"model.*[Pp]ermission denied"):
                resolve_model(str(closed / "model"))
    finally:
        closed.chmod(0o700)


def test_what_is_not_there_is_not_closed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "nothing", "file/below", "x" * 5000, "nul\0"):
        assert not is_closed(f"{tmp_path}/{name}")
