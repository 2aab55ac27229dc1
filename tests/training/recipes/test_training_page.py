"""docs/training.md: its table is that of the recipe files, its commands are ones that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer.main
from robustzs_training.data.captions_table import read_captions
from robustzs_training.recipe_files import builtin_names, load_recipe

from robustzs.cli.main import app, main
from robustzs.threat import format_size
from tests.training.recipes.small_worlds import NAMES, write_pictures

PAGE = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [line for line in LINES if re.match(r"robustzs |torchrun .* -m robustzs ", line)]
INLINE = sorted(set(re.findall(r"`robustzs ([a-z ]+[a-z])", PAGE)))
ROOT = typer.main.get_command(app)


def words_of(command: str) -> list[str]:
    """What follows `robustzs`."""
    words = shlex.split(command)
    return words[words.index("robustzs") + 1 :]


def subcommand(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that is meant, and its own arguments."""
    found, rest = ROOT, list(words)
    while hasattr(found, "commands"):
        assert rest, f"{words} names no command"
        assert rest[0] in found.commands, f"robustzs has no command {rest[0]!r}"
        found = found.commands[rest.pop(0)]
    return found, rest


# ---- the table of recipes ------------------------------------------------------------------------


def rows() -> dict[str, list[str]]:
    found = re.search(r"^\| recipe \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_every_recipe_has_its_row_and_no_other() -> None:
    assert sorted(rows()) == sorted(builtin_names())


@pytest.mark.parametrize("name", builtin_names())
def test_a_row_is_what_the_recipe_file_says(name: str) -> None:
    recipe = load_recipe(name)
    trains, objective, eps, attack, length, needs, settings = rows()[name]
    assert trains == recipe.model.source
    assert objective == f"`{recipe.objective.name}`"
    assert eps == format_size(recipe.threat.eps)
    assert attack == f"{recipe.attack.n_steps} step{'s' * (recipe.attack.n_steps != 1)}"
    schedule = recipe.schedule
    expected = f"{schedule.epochs:g} epochs" if schedule.epochs else f"{schedule.steps} steps"
    assert length == expected
    assert ("captions" in needs) is (name.startswith("qt-aft"))
    for word in settings.split(", "):
        assert word in recipe.source.lower(), f"{name} does not say what is {word}"


def test_what_is_uncertain_is_not_called_confirmed() -> None:
    for name, row in rows().items():
        if "hierarchical" in name:
            assert "confirmed" not in row[-1]
            assert {"second-hand", "reconstructed"} <= set(row[-1].split(", "))


@pytest.mark.parametrize(
    ("name", "uncertain"),
    [
        ("hierarchical-vit-b-32", ("start", "siblings", "template", "tree cut", "negatives",
                                   "curvature", "momentum", "temperature", "weights and margins",
                                   "intra_gap", "text radius", "optimisation", "resize")),
        ("hierarchical-forest-vit-b-32", ("which trees", "second hypernyms", "depths", "levels of",
                                          "all five stand", "summary.json")),
        ("qt-aft-hierarchical-vit-b-32", ("tree cut", "siblings", "negatives", "curvature",
                                          "text radius", "equal weight", "20000 steps")),
    ],
)  # fmt: skip
def test_recipes_of_the_second_paper_say_how_sure_each_setting_is(
    name: str, uncertain: tuple[str, ...]
) -> None:
    text = " ".join(load_recipe(name).source.lower().split())
    assert "second-hand" in text
    assert "reconstructed" in text
    for what in uncertain:
        assert what in text, what


# ---- commands ------------------------------------------------------------------------------------


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 8
    assert {"train", "classify", "serve", "caption"} <= {words_of(line)[0] for line in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_s_options_and_recipe_exist(command: str) -> None:
    found, arguments = subcommand(words_of(command))
    with found.make_context(found.name, arguments) as context:  # raises on what does not exist
        parameters = context.params
    if found.name == "train":
        changes = parameters["changes"] or ()
        recipe = load_recipe(parameters["recipe"], changes)
        assert recipe.name == parameters["recipe"]


@pytest.mark.parametrize("words", INLINE)
def test_a_command_in_the_text_exists(words: str) -> None:
    found, rest = subcommand(words.split())
    assert rest == [], f"{found.name} takes no {rest} here"


def test_the_options_of_train_that_the_text_names_exist() -> None:
    train, _ = subcommand(["train"])
    known = {name for parameter in train.params for name in parameter.opts}
    known |= {name for parameter in train.params for name in parameter.secondary_opts}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert named <= known, named - known


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0)


def test_the_caption_command_writes_the_table_that_training_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "photos" / "train")
    monkeypatch.chdir(tmp_path)
    (command,) = [line for line in COMMANDS if words_of(line)[0] == "caption"]
    assert run(words_of(command)) == 0
    assert capsys.readouterr().out.strip() == "captions.jsonl"
    assert "data.captions=captions.jsonl" in PAGE
    assert len(read_captions(Path("captions.jsonl")).captions) == 3 * len(NAMES)


def test_listing_and_showing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "`robustzs train --list`" in PAGE
    assert run(["train", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in builtin_names())


@pytest.mark.slow
def test_the_dry_run_of_the_page_says_how_long_all_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "photos" / "train", per_class=10)
    write_pictures(tmp_path / "photos" / "val", per_class=1)
    monkeypatch.chdir(tmp_path)
    (command,) = [line for line in COMMANDS if "--dry-run" in line]
    assert run([*words_of(command), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "of training" in said
    assert "of measuring" in said
    assert "of export" in said
    assert not (tmp_path / "mine").exists()
