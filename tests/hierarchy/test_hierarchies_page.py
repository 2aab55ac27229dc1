"""docs/hierarchies.md: its files are read, its commands print what it says, its code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from robustzs.cli.main import main
from robustzs.hierarchy.formats import FORMATS, read_hierarchy, sniff_format
from robustzs.hierarchy.limits import DEFAULT_LIMITS
from robustzs.hierarchy.load import load_hierarchy
from robustzs.labels import LabelSet

PAGE = (Path(__file__).parents[2] / "docs" / "hierarchies.md").read_text(encoding="utf-8")
FILES: dict[str, str] = dict(re.findall(r"```\w+ (\S+)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS: list[tuple[str, str]] = [
    (command, output)
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for command, output in re.findall(r"^\$ robustzs (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]
FORMAT_OF = {
    "pets.yaml": "nested",
    "pets.json": "nested",
    "edges.csv": "edges",
    "taxa.csv": "wide",
    "chils.json": "chils",
    "breeds": "breeds",
    "wordnet.is_a.txt": "is-a",
    "tree.json": "json",
}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def test_every_format_has_an_example() -> None:
    assert {name: sniff_format(name) for name in FORMAT_OF} == FORMAT_OF
    assert set(FORMAT_OF.values()) == set(FORMATS)
    read = {name: read_hierarchy(name) for name in FORMAT_OF}
    assert [len(read[name]) for name in FORMAT_OF] == [5, 5, 5, 9, 7, 4, 4, 5]


def test_one_tree_in_several_formats() -> None:
    trees = [read_hierarchy(name) for name in ("pets.yaml", "pets.json", "edges.csv", "tree.json")]
    assert {tree.names for tree in trees} == {("animal", "dog", "labrador", "poodle", "cat")}
    assert {tuple(tree.parent.tolist()) for tree in trees} == {(-1, 0, 1, 1, 0)}
    assert trees[0].prompts[-1] == trees[2].prompts[-1] == "house cat"
    assert trees[2].ids[2] == "lab"


def test_spacers_are_hidden() -> None:
    tree = read_hierarchy("breeds")
    assert [tree.ids[i] for i in range(len(tree)) if tree.hidden[i]] == ["dummy12"]


def test_ranks_cut_as_the_page_says() -> None:
    tree = read_hierarchy("taxa.csv")
    at = [tree.names[node] for node in tree.cut("family")]
    assert at == ["Canidae", "Canidae", "Felidae", "ostrich"]


def test_commands_print_what_the_page_shows(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(COMMANDS) >= 7
    for command, expected in COMMANDS:
        with pytest.raises(SystemExit):
            main(shlex.split(command))
        captured = capfd.readouterr()
        assert captured.err + captured.out == expected, command


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_python_examples_run(code: str) -> None:
    exec(compile(code, "docs/hierarchies.md", "exec"), {})


def test_labels_fit_a_tree_of_the_same_names() -> None:
    loaded = load_hierarchy("pets.yaml", LabelSet.from_names(["cat", "poodle", "labrador"]))
    assert loaded.labels.ids == ("labrador", "poodle", "cat")
    assert loaded.labels.labels[2].prompt == "cat", "prompts are the labels'"


def test_numbers_are_those_of_the_code() -> None:
    flat = " ".join(PAGE.split())
    limits = DEFAULT_LIMITS
    assert (
        f"depth {limits.max_depth}, {limits.max_nodes:,} nodes, {limits.max_aliases} aliases of a "
        f"node, {limits.max_text} characters of a name, id or prompt, {limits.max_gloss:,} of a "
        f"gloss, {limits.max_bytes >> 20} MiB of a file"
    ) in flat
