"""Label files: lines, CSV and TSV, JSON."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustzs.errors import DuplicateLabelError, LabelError, LabelFileError
from robustzs.labels import Label, LabelSet
from robustzs.labels.readers import parse_lines, parse_table
from robustzs.labels.rules import MAX_FILE_BYTES


def read(tmp_path: Path, name: str, content: str | bytes) -> LabelSet:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return LabelSet.from_file(path)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_lines(tmp_path: Path, newline: str, bom: bytes) -> None:
    lines = [
        "# pets",
        "cat",
        "",
        "  dog, large  ",
        "\t# indented remark",
        r"\#1 dad",
        r"C:\#x",
        '"q"',
    ]
    labels = read(tmp_path, "labels.txt", bom + newline.join(lines).encode())
    assert labels.names == ("cat", "dog, large", "#1 dad", r"C:\#x", '"q"')


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))))
def test_every_line_is_one_label_or_skipped(lines: list[str]) -> None:
    entries, problems = parse_lines("\n".join(lines))
    kept = [line.strip(" \t") for line in lines]
    assert [e.name for e in entries] == [
        line[1:] if line.startswith("\\#") else line
        for line in kept
        if line and not line.startswith("#")
    ]
    assert problems == []
    for entry in entries:
        assert entry.name in lines[int(entry.place.removeprefix("line ")) - 1]


def test_a_table_with_all_columns(tmp_path: Path) -> None:
    text = (
        "name,synset,prompt,aliases,id\n"
        "crane,n02012849,crane bird,heron;  wader ;heron;,\n"
        '"crane","crane.n.04","construction crane",,\n'
        "\n"
        '"salt, sea",,,,sea-salt\n'
        "fox\n"
    )
    assert read(tmp_path, "labels.csv", text).labels == (
        Label("n02012849", "crane", "crane bird", ("heron", "wader"), "n02012849"),
        Label("crane", "crane", "construction crane", (), "crane.n.04"),
        Label("sea-salt", "salt, sea", "salt, sea", (), None),
        Label("fox", "fox", "fox", (), None),
    )


def test_csv_tsv_and_json_say_the_same(tmp_path: Path) -> None:
    rows = [["cat", "cat.n.01", "a house cat", "kitty;puss"], ["dog, large", "", "", ""]]
    table = io.StringIO()
    csv.writer(table).writerows([["name", "synset", "prompt", "aliases"], *rows])
    from_csv = read(tmp_path, "a.csv", b"\xef\xbb\xbf" + table.getvalue().encode())
    from_tsv = read(
        tmp_path,
        "a.TSV",
        "\n".join("\t".join(r) for r in [["Name", "WNID", "Prompt", "aliases"], *rows]),
    )
    items = [
        {
            "name": "cat",
            "synset": "cat.n.01",
            "prompt": "a house cat",
            "aliases": ["kitty", "puss"],
        },
        "dog, large",
    ]
    from_json = read(tmp_path, "a.json", json.dumps(items))
    assert from_csv == from_tsv == from_json == LabelSet.from_csv(table.getvalue())
    assert from_csv.digest == from_json.digest


def test_the_imagenet_table_is_such_a_file() -> None:
    import robustzs.hierarchy

    path = Path(robustzs.hierarchy.__path__[0]) / "data" / "imagenet1k_labels.csv"
    assert LabelSet.from_file(path) == LabelSet.imagenet1k()


TABLES = {
    "cat,dog\nfox,owl\n": "the first line must name the columns",
    "name,colour\ncat,red\n": "line 1: unknown column 'colour'",
    "name,name\ncat,cat\n": "'name' is there 2 times",
    "name,synset,wnid\ncat,,\n": "'synset' is there 2 times",
    "name;synset;prompt\ncat;;\n": "unknown column 'name;synset;prompt'",
    "name\nsalt, sea\n": "line 2: 2 cells under 1 column names; quote",
    "name,synset\ncat,cat\n": "synset 'cat' is neither a wnid",
    "name,synset\nrun,run.v.01\n": "is not a noun",
    "name,id\ncat,my cat\n": "id 'my cat' contains white space",
    'name\n"two\nlines"\nfox\n': r"line 2: name contains the control character U\+000A",
    'name\n"cat': "not a readable table",
    "name,aliases\ncat," + ";".join(f"cat {i}" for i in range(65)): "65 aliases",
    "name,prompt\ncat," + "x" * 600: "prompt has 600 characters",
    "name,prompt\n,x\n": "line 2: the name is empty",
    "name\n" + "x" * 140_000: "not a readable table",
    "name\n": "there is no label",
    "": "the first line must name the columns",
}


@pytest.mark.parametrize("text", TABLES, ids=range(len(TABLES)))
def test_tables_that_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LabelFileError, match=TABLES[text]):
        read(tmp_path, "labels.csv", text)


JSONS = {
    '{"cat": "dog"}': "must be a list",
    "[": "not readable JSON",
    "[" * 100_000: "not readable JSON",
    "[]": "there is no label",
    "[3]": "item 1: int is neither a name nor an object",
    "[null]": "item 1: NoneType",
    "[NaN]": "NaN is not JSON",
    '[{"name": "cat", "colour": "red"}]': "item 1: unknown key 'colour'",
    '[{"name": "cat", "name": "dog"}]': "'name' is there twice",
    '[{"name": ["cat"]}]': "name must be a text",
    '[{"name": "cat", "aliases": "kitty"}]': "aliases must be a list of texts",
    '["a\\ud800"]': r"item 1: name contains the lone surrogate U\+D800",
    '["a\\u0000"]': r"item 1: name contains the control character U\+0000",
}


@pytest.mark.parametrize("text", JSONS, ids=range(len(JSONS)))
def test_json_that_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LabelFileError, match=JSONS[text]):
        read(tmp_path, "labels.json", text)


def test_absent_keys_and_nulls_in_json_are_empty(tmp_path: Path) -> None:
    labels = read(tmp_path, "labels.json", '[{"name": "cat", "synset": null, "aliases": null}]')
    assert labels.labels == (Label("cat", "cat", "cat", (), None),)


def test_problems_and_duplicates_come_together_with_their_lines(tmp_path: Path) -> None:
    text = "name,synset\ncat,\nbad,foo\nCAT,\na\x00b,\ntoo,many,cells\n"
    with pytest.raises(LabelFileError) as caught:
        read(tmp_path, "labels.csv", text)
    assert [problem.split(":")[0] for problem in caught.value.problems[:3]] == [
        "line 6",
        "line 3",
        "line 5",
    ]
    assert caught.value.problems[3] == "line 2 and line 4 have the same name 'CAT'"
    assert "labels.csv" in str(caught.value)


def test_duplicates_alone_have_their_own_error(tmp_path: Path) -> None:
    with pytest.raises(DuplicateLabelError, match="line 1 and line 4 have the same name 'CAT'"):
        read(tmp_path, "labels.txt", "cat\n\ndog\nCAT\n")
    with pytest.raises(DuplicateLabelError, match=r"line 2 and line 3 have the same synset"):
        read(tmp_path, "a.csv", "name,synset\ncat,cat.n.01\nkitty,cat.n.01\n")
    with pytest.raises(DuplicateLabelError, match=r"line 2 and line 3 have the same id 'x'"):
        read(tmp_path, "b.csv", "name,id\ncat,x\ndog,x\n")
    with pytest.raises(DuplicateLabelError, match=r"line 2 and line 3 have the same prompt 'Pet'"):
        read(tmp_path, "c.csv", "name,prompt\ncat,pet\ndog,Pet\n")


def test_one_name_for_two_senses_needs_two_prompts(tmp_path: Path) -> None:
    head = "name,synset,prompt\n"
    with pytest.raises(DuplicateLabelError, match="the same prompt"):
        read(tmp_path, "a.csv", head + "crane,crane.n.04,\ncrane,crane.n.05,\n")
    labels = read(tmp_path, "b.csv", head + "crane,crane.n.04,a\ncrane,crane.n.05,b\n")
    assert len(set(labels.ids)) == 2
    with pytest.raises(DuplicateLabelError, match="the same name"):
        read(tmp_path, "c.csv", head + "crane,,a\ncrane,crane.n.05,b\n")


def test_encodings(tmp_path: Path) -> None:
    with pytest.raises(LabelFileError, match="is UTF-16"):
        read(tmp_path, "a.txt", "cat\n".encode("utf-16"))
    with pytest.raises(LabelFileError, match="not UTF-8: byte 0xE9 in line 3"):
        read(tmp_path, "b.txt", "cat\r\ndog\r\ncaf\xe9".encode("latin-1"))
    with pytest.raises(
        LabelFileError, match=r"line 2: name contains the control character U\+0000"
    ):
        read(tmp_path, "c.txt", b"cat\nd\x00g\n")
    assert read(tmp_path, "d.txt", "犬\nкот\n").names == ("犬", "кот")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabelFileError, match=r"none\.txt does not exist"):
        LabelSet.from_file(tmp_path / "none.txt")
    with pytest.raises(LabelFileError, match="not a regular file"):
        LabelSet.from_file(tmp_path)
    with pytest.raises(LabelFileError, match="cannot be read"):
        LabelSet.from_file("a\x00b")
    with pytest.raises(LabelFileError, match="there is no label"):
        read(tmp_path, "empty.txt", "\n# nothing\n")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(LabelFileError, match="not a regular file"):
            LabelSet.from_file(tmp_path / "pipe")


def test_size_limits(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(LabelFileError, match="larger than the limit"):
        LabelSet.from_file(tmp_path / "huge.txt")
    many = "\n".join(f"label {i}" for i in range(100_001))
    with pytest.raises(LabelFileError, match="100001 labels, the limit is 100000"):
        read(tmp_path, "many.txt", many)
    assert len(read(tmp_path, "enough.txt", many.rsplit("\n", 1)[0])) == 100_000


@given(st.binary(max_size=200), st.sampled_from([".txt", ".csv", ".tsv", ".json"]))
def test_any_bytes_give_labels_or_a_label_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(data)
    with contextlib.suppress(LabelError):
        labels = LabelSet.from_file(path)
        assert len(set(labels.ids)) == len(labels) > 0


CELL = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=8))
def test_a_table_gives_back_its_cells(rows: list[list[str]]) -> None:
    table = io.StringIO()
    csv.writer(table).writerows([["name", "prompt"], *rows])
    entries, problems = parse_table(table.getvalue(), delimiter=",")
    assert problems == []
    assert [[e.name, e.prompt] for e in entries] == [
        row for row in rows if any(cell.strip() for cell in row)
    ]
