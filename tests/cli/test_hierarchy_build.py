"""`robustzs hierarchy build` by other routes than growing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from robustzs.hierarchy.load import load_hierarchy
from tests.chat_server import Answer, said, serving
from tests.cli.conftest import Run


def test_five_routes_give_a_forest_that_loads(run: Run, tmp_path: Path) -> None:
    routes: list[list[object]] = [
        [],
        ["--route", "wordnet-cut", "--levels", "3,5,8"],
        ["--route", "wordnet-cut", "--depth", 6],
        ["--route", "wordnet-cut", "--classes", "10, 50, 200"],
        ["--route", "wordnet-cut", "--other-parents"],
    ]
    files = []
    for number, route in enumerate(routes):
        path = tmp_path / f"tree{number}.json"
        result = run(["hierarchy", "build", *route, "-o", path])
        assert result.code == 0, result.err
        assert "1000 leaves" in result.err
        files.append(str(path))
    loaded = load_hierarchy(",".join(files))
    assert len({tree.digest for tree in loaded.trees}) == 5


def test_cuts_over_labels_of_ones_own(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    labels = "tench,great white shark,house finch,tabby,oak"
    build = ["hierarchy", "build", "--labels", labels, "--on-ambiguous", "first"]
    route = ["--route", "wordnet-cut", "--classes", "2", "--name", "two"]
    result = run([*build, *route, "-o", path])
    assert result.code == 0, result.err
    document = json.loads(path.read_text("utf-8"))
    assert document["name"] == "two"


def test_a_language_model_groups_the_labels(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    kinds = {"poodle": "dog", "pug": "dog", "oak": "tree", "elm": "tree", "birch": "tree"}

    def answer(body: dict[str, Any], number: int) -> Answer:
        things = re.findall(r"^\d+\. (.+)$", body["messages"][0]["content"], re.MULTILINE)
        groups: dict[str, list[int]] = {}
        for place, thing in enumerate(things, start=1):
            groups.setdefault(kinds[thing], []).append(place)
        return said(json.dumps(groups))

    path = tmp_path / "asked.json"
    ask = ["hierarchy", "build", ",".join(kinds), "--route", "llm", "-m", "tiny", "-o", path]
    with serving(answer) as server:
        result = run([*ask, "--url", server.url])
    assert result.code == 0, result.err
    assert "5 leaves, depth 2" in result.err
    assert run(["hierarchy", "validate", path]).code == 0
    with serving(lambda body, n: said('{"dog": [1]}')) as server:
        failed = run([*ask, "--url", server.url, "--attempts", 2])
    assert failed.code == 1
    assert "'birch' is in no group" in failed.err
    assert "'oak' is in no group" in failed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--levels", "3"], "belong to --route wordnet-cut"),
        (["--other-parents"], "belong to --route wordnet-cut"),
        (["--model", "x"], "belong to --route llm"),
        (["--route", "wordnet-cut"], "needs --levels"),
        (["--route", "wordnet-cut", "--levels", "3", "--classes", "9"], "exclude each other"),
        (["--route", "wordnet-cut", "--levels", "3", "--depth", "9"], "exclude each other"),
        (["--route", "wordnet-cut", "--levels", "3,x"], "--levels is '3,x'"),
        (["--route", "wordnet-cut", "--levels", ","], "--levels is ','"),
        (["--route", "wordnet-cut", "--levels", "99"], "no inner node"),
        (["--route", "llm", "--model", "x"], "needs --url and --model"),
        (["--route", "llm", "-m", "x", "--url", "me:pw@x"], "not an address"),
        (
            ["cat,dog", "-l", "cat,dog", "--route", "llm", "-m", "x", "--url", "http://x"],
            "over --labels",
        ),
    ],
)
def test_options_that_contradict_each_other(run: Run, arguments: list[str], message: str) -> None:
    result = run(["hierarchy", "build", *arguments])
    assert result.code == 2
    assert message in result.err
