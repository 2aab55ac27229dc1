from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import robustzs
from tests.cli.conftest import Run
from tests.factories import picture
from tests.privileges import without_file_powers

SCHEMAS = Path(robustzs.__file__).parent / "schemas"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for word in ("labrador", "ambulance", "tabby"):
        picture(word).save(folder / f"{word}.png")
    return folder


@pytest.fixture
def options(tiny_bundle: Path, tree_file: Path) -> list[str]:
    return ["--model", str(tiny_bundle), "--hierarchy", str(tree_file), "--templates", "name"]


def test_one_image_is_one_object_of_the_published_schema(
    run: Run, photos: Path, options: list[str]
) -> None:
    result = run(["classify", photos / "labrador.png", *options, "--format", "json"])
    assert result.code == 0
    answer = json.loads(result.out)
    schema = json.loads((SCHEMAS / "answer.schema.json").read_text("utf-8"))
    jsonschema.validate(answer, schema)
    assert answer["image"] == str(photos / "labrador.png")
    assert answer["flat_top1"]["name"] == "labrador"
    assert answer["path"][0]["probability"] == 1.0
    assert answer["path"][0]["depth"] == 0
    assert result.err == ""


def test_table_shows_the_path_and_marks_the_answer(
    run: Run, photos: Path, options: list[str]
) -> None:
    result = run(["classify", photos / "labrador.png", *options, "--theta", "0"])
    lines = result.out.splitlines()
    assert lines[0].startswith(f"{photos / 'labrador.png'}   labrador")
    marked = [line for line in lines if line.startswith(">")]
    assert len(marked) == 1
    assert marked[0].endswith("labrador")
    assert "flat top-1: labrador" in result.out


def test_several_images_are_an_array_in_order(run: Run, photos: Path, options: list[str]) -> None:
    names = [photos / "ambulance.png", photos / "labrador.png", photos / "ambulance.png"]
    result = run(["classify", *names, *options, "--format", "json"])
    answers = json.loads(result.out)
    assert [answer["image"] for answer in answers] == [str(name) for name in names]
    assert answers[0] == answers[2]


def test_a_folder_is_an_array_even_with_one_image(
    run: Run, tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "one").mkdir()
    picture("labrador").save(tmp_path / "one" / "only.png")
    result = run(["classify", tmp_path / "one", *options, "--format", "json"])
    assert len(json.loads(result.out)) == 1


def test_a_bad_file_is_a_row_and_the_rest_goes_on(
    run: Run, photos: Path, options: list[str]
) -> None:
    (photos / "damaged.png").write_bytes((photos / "labrador.png").read_bytes()[:60])
    (photos / "text.jpg").write_text("not an image")
    missing = photos / "missing.png"
    result = run(["classify", photos, missing, *options, "--format", "jsonl"])
    assert result.code == 1
    rows = [json.loads(line) for line in result.out.splitlines()]
    codes = {Path(row["image"]).name: row.get("error", {}).get("code") for row in rows}
    assert codes == {
        "tabby.png": None,
        "damaged.png": "image-truncated",
        "ambulance.png": None,
        "labrador.png": None,
        "text.jpg": "image-format",
        "missing.png": "image-source",
    }


def test_csv_has_a_header_and_a_line_per_image(
    run: Run, photos: Path, options: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    (photos / "=cmd.png").write_bytes(b"nope")
    os.chdir(photos)
    result = run(["classify", "=cmd.png", "labrador.png", *options, "-f", "csv", "-o", output])
    assert result.code == 1
    assert result.out == ""
    rows = list(csv.DictReader(io.StringIO(output.read_text("utf-8"))))
    assert [row["image"] for row in rows] == ["'=cmd.png", "labrador.png"]
    assert rows[0]["error_code"] == "image-format"
    assert rows[1]["flat_top1_name"] == "labrador"
    assert rows[1]["path"].split(" > ")[-1] == rows[1]["id"]
    assert not list(tmp_path.glob("*.part"))


def test_stdin(tiny_bundle: Path, tree_file: Path, photos: Path) -> None:
    command = [sys.executable, "-m", "robustzs", "classify", "-", "--model", str(tiny_bundle)]
    command += ["--hierarchy", str(tree_file), "--templates", "name", "--format", "json"]
    data = (photos / "tabby.png").read_bytes()
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["flat_top1"]["name"] == "tabby"


def test_labels_without_a_hierarchy_give_the_best_label(
    run: Run, photos: Path, tiny_bundle: Path
) -> None:
    arguments = ["--model", tiny_bundle, "--labels", "labrador,ambulance,tabby"]
    arguments += ["--templates", "name"]
    result = run(["classify", photos / "ambulance.png", *arguments, "--format", "json"])
    answer = json.loads(result.out)
    assert answer["prediction"]["name"] == "ambulance"
    assert answer["prediction"]["is_leaf"]
    assert answer["hierarchy"]["name"] == "flat"


def test_terminal_sequences_in_file_names_are_shown_not_obeyed(
    run: Run, photos: Path, options: list[str]
) -> None:
    evil = photos / "\x1b[2Jx\u202egnp.png"
    evil.write_bytes((photos / "labrador.png").read_bytes())
    result = run(["classify", evil, *options])
    assert "\x1b" not in result.out
    assert "\u202e" not in result.out
    assert r"\x1b[2J" in result.out


def test_undecodable_file_names_survive(run: Run, photos: Path, options: list[str]) -> None:
    name = os.fsdecode(os.fsencode(str(photos)) + b"/\xff\xfe.png")
    Path(name).write_bytes((photos / "labrador.png").read_bytes())
    result = run(["classify", name, *options, "--format", "json"])
    assert result.code == 0
    assert json.loads(result.out)["flat_top1"]["name"] == "labrador"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--theta", "nan"], "theta"),
        (["--theta", "1.5"], "theta"),
        (["--theta", "-0.1"], "theta"),
        (["--top-k", "0"], "top_k"),
        (["--batch-size", "0"], "batch-size"),
        (["--threads", "0"], "threads"),
        (["--strategy", "magic"], "strategy"),
        (["--rule", "best"], "rule"),
        (["--level", "-3"], "level"),
        (["--device", "abacus"], "abacus"),
        (["--format", "xml"], "format"),
        (["--output", "/nonexistent/folder/out.json"], "/nonexistent/folder/out.json"),
    ],
)
def test_options_out_of_range_are_usage_errors(
    run: Run, photos: Path, options: list[str], arguments: list[str], says: str
) -> None:
    result = run(["classify", photos / "labrador.png", *options, *arguments])
    assert result.code == 2
    assert says in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--hierarchy", "no-such-tree.yaml"], "no-such-tree.yaml"),
        (["--root", "unicorn"], "unicorn"),
        (["--level", "kingdom"], "kingdom"),
        (["--expect-digest", "0" * 64], "0" * 12),
        (["--templates", "no braces here"], "no braces here"),
    ],
)
def test_what_is_not_there_is_named(
    run: Run, photos: Path, options: list[str], arguments: list[str], says: str
) -> None:
    result = run(["classify", photos / "labrador.png", *options, *arguments])
    assert result.code in (1, 2)
    assert says in result.err
    assert result.out == ""


def test_no_image_at_all(run: Run) -> None:
    result = run(["classify"])
    assert result.code == 2


def test_explain_labels_shows_senses_and_exits(run: Run) -> None:
    result = run(["classify", "--labels", "crane,tench", "--explain-labels"])
    assert result.code == 0
    assert "tench.n.01" in result.out
    assert "or crane" in result.out


def test_ambiguous_labels_warn_or_stop(run: Run, photos: Path, tiny_bundle: Path) -> None:
    arguments = ["classify", photos / "labrador.png", "--model", tiny_bundle]
    arguments += ["--labels", "crane,tench", "--hierarchy", "wordnet", "--format", "json"]
    first = run(arguments)
    assert first.code == 0
    warnings = json.loads(first.out)["warnings"]
    assert any("crane" in warning for warning in warnings)
    refused = run([*arguments, "--on-ambiguous", "error"])
    assert refused.code == 1
    assert "crane" in refused.err


def test_output_of_a_failed_run_leaves_the_older_file(
    run: Run, photos: Path, options: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "out.json"
    output.write_text("precious")
    result = run(["classify", photos / "labrador.png", *options, "--theta", "7", "-o", output])
    assert result.code == 2
    assert output.read_text() == "precious"


def test_a_reader_that_leaves_is_no_traceback(
    photos: Path, tiny_bundle: Path, tree_file: Path
) -> None:
    command = [sys.executable, "-m", "robustzs", "classify", *[str(photos)] * 200]
    command += ["--model", str(tiny_bundle), "--hierarchy", str(tree_file), "--format", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(100)
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert b"Traceback" not in complaint


def test_version(run: Run) -> None:
    result = run(["--version"])
    assert result.out.startswith("robustzs ")


def test_a_closed_folder_is_a_row(run: Run, photos: Path, options: list[str]) -> None:
    closed = photos / "closed"
    closed.mkdir(mode=0o000)
    names = [closed, closed / "x.png", f"{closed}/*.png", photos / "labrador.png"]
    try:
        with without_file_powers():
            result = run(["classify", *names, *options, "--format", "csv"])
    finally:
        closed.chmod(0o700)
    assert result.code == 1
    codes = [row["error_code"] for row in csv.DictReader(io.StringIO(result.out))]
    assert codes == ["image-source"] * 3 + [""]
