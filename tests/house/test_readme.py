"""The first screen shows what really comes out, and the four lines of Python run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run, run  # noqa: F401

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d\.\d{2,3}")


def test_the_first_screen_is_what_the_command_prints(
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = re.search(r"```\n\$ robustzs (.*)\n((?:.*\n)*?)```", README)
    assert block is not None
    monkeypatch.chdir(REPOSITORY)
    result = run(block.group(1).split())
    shown = block.group(2)
    assert NUMBER.sub("N", result.out) == NUMBER.sub("N", shown)
    # Another processor may round the last digit of a float32 sum differently.
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (result.out, shown)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.011)


def test_the_photo_goes_through_animal_mammal_and_cat() -> None:
    names = re.findall(r"^[> ] +\d+ +[\d.]+ +[\d.]+ +(.+)$", README, flags=re.MULTILINE)
    wanted = ["animal", "mammal", "feline", "cat"]
    assert [name for name in names if name in wanted] == wanted


def test_four_lines_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.search(r"```python\n(from robustzs import Classifier\n(?:.*\n)*?)```", README)
    assert code is not None
    shutil.copy(REPOSITORY / "examples" / "photos" / "coffee.jpg", tmp_path / "image.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code.group(1), "README.md", "exec"), {})
    name, probability = capsys.readouterr().out.rsplit(" ", 1)
    assert name
    assert 0.0 < float(probability) <= 1.0
