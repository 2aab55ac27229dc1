from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run


def test_build_over_labels_gives_a_tree_that_classify_takes(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "tree.json"
    labels = "tench,great white shark,house finch"
    result = run(["hierarchy", "build", "--labels", labels, "--cut-top", "-o", output])
    assert result.code == 0, result.err
    assert "3 leaves" in result.err
    assert run(["hierarchy", "validate", output]).code == 0
    shown = run(["hierarchy", "show", output])
    assert "great white shark" in shown.out


def test_build_converts_every_supported_file(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "edges.csv"
    source.write_text("child,parent\nanimal,\ndog,animal\ncat,animal\n")
    output = tmp_path / "tree.json"
    assert run(["hierarchy", "build", source, "-o", output]).code == 0
    assert json.loads(output.read_text("utf-8"))["format"] == "robustzs-hierarchy"


def test_show_prints_the_imagenet_tree(run: Run) -> None:
    result = run(["hierarchy", "show", "wordnet", "--max-depth", "1"])
    assert "1375 nodes, 1000 leaves" in result.out
    assert result.out.splitlines()[1].startswith("entity")


def test_validate_reports_every_problem_with_its_line(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("child,parent\na,b\nb,a\nc,\nd,\n")
    result = run(["hierarchy", "validate", bad])
    assert result.code == 1
    assert "bad.csv" in result.out
    parsed = json.loads(run(["hierarchy", "validate", bad, "--json"]).out)
    assert parsed[0]["ok"] is False
    assert len(parsed[0]["problems"]) == 2
    for problem in parsed[0]["problems"]:
        assert result.out.count(problem) == 1
    assert "try: " in result.out


def test_resolve_shows_the_gloss_and_the_other_senses(run: Run) -> None:
    result = run(["hierarchy", "resolve", "crane", "tench"])
    assert result.code == 0
    assert "tench.n.01" in result.out
    assert result.out.count("crane.n.") >= 2


def test_unknown_labels_stop_unless_attached(run: Run, tmp_path: Path) -> None:
    arguments = ["hierarchy", "build", "--labels", "tench,quadcopterish"]
    refused = run(arguments)
    assert refused.code == 1
    assert "quadcopterish" in refused.err
    attached = run([*arguments, "--on-unknown", "attach", "-o", tmp_path / "t.json"])
    assert attached.code == 0
