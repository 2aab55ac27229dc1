"""docs/calibration.md: its table is the schema's, and its options are the command's."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from robustzs.calibration.conformal import least_samples
from robustzs.calibration.document import Binding
from robustzs.cli.main import app

PAGE = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")


def test_every_field_that_a_calibration_depends_on_is_explained() -> None:
    table = PAGE[PAGE.index("| field |") :]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(Binding.model_fields)


def test_options_exist() -> None:
    shown = "".join(
        CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        for command in ("calibrate", "classify")
    )
    for option in set(re.findall(r"--[a-z][a-z-]+", PAGE)):
        assert option in shown


def test_the_least_numbers_are_right() -> None:
    assert "(9 for 0.9, 99 for 0.99" in PAGE
    assert (least_samples(0.1), least_samples(0.01)) == (9, 99)
