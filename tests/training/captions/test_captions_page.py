"""docs/captions.md: its commands run or exist, and give what it says."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from robustzs.cli.main import app, main

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "captions.md").read_text("utf-8")


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_gloss_example_gives_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("coffee_mug/coffee.jpg", "n02123045/chelsea.png"):
        path = tmp_path / "photos" / key
        path.parent.mkdir(parents=True)
        shutil.copy(ROOT / "examples" / "photos" / path.name, path)
    monkeypatch.chdir(tmp_path)
    (block,) = _blocks("console")
    command, output = block.split("\n", 1)
    with pytest.raises(SystemExit) as stopped:
        main(shlex.split(command.removeprefix("$ robustzs ")))
    assert not stopped.value.code
    assert capsys.readouterr().out == output
    (table,) = _blocks("json captions.jsonl")
    assert Path("captions.jsonl").read_text("utf-8") == table


def test_the_python_example_runs() -> None:
    (code,) = _blocks("python")
    exec(compile(code, "docs/captions.md", "exec"), {})


def test_every_option_of_the_page_exists() -> None:
    command = typer.main.get_command(app).commands["caption"]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert len(named) > 12
    assert named <= known


def test_modes_and_default_model_are_those_of_the_code() -> None:
    from robustzs_training.captions.endpoint import PROMPT
    from robustzs_training.captions.local import DEFAULT_MODEL
    from robustzs_training.captions.run import MAX_STREAK
    from robustzs_training.recipe import DataPart

    assert f"`{DEFAULT_MODEL}`" in PAGE
    assert f'"{PROMPT}"' in PAGE
    assert f"{MAX_STREAK} images in a row" in PAGE
    modes = DataPart.model_fields["caption_mode"].annotation
    assert all(f"`{mode}`" in PAGE for mode in modes.__args__)  # type: ignore[union-attr]
