"""``path,label``: headers, quotes, and every wrong line at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustzs_training.evaluation.sets.table import _lines, open_table

from robustzs.errors import DataError, DatasetNotFoundError
from tests.training.data.picture_folders import write_picture


def write(folder: Path, text: str | bytes) -> Path:
    for name in ("a.png", "b.png", "sub/c d.png", 'e,"f.png'):
        write_picture(folder / name)
    path = folder / "data.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def pairs(path: Path) -> list[tuple[int, str, str]]:
    return [(line.number, line.path, line.label) for line in open_table(path).lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.png,dog\nb.png,cat\n", [(1, "a.png", "dog"), (2, "b.png", "cat")]),
        ("path,label\r\na.png,dog\r\n", [(2, "a.png", "dog")]),
        ("\ufeffPath,Label\na.png, dog ", [(2, "a.png", "dog")]),
        ("label,note,path\ndog,x,a.png\n", [(2, "a.png", "dog")]),
        ('"e,""f.png","salt, sea"\n\n\nsub/c d.png,dog.n.01', [
            (1, 'e,"f.png', "salt, sea"), (4, "sub/c d.png", "dog.n.01")]),
        ('a.png,"two\nlines"\nb.png,cat', [(1, "a.png", "two\nlines"), (3, "b.png", "cat")]),
    ],
)  # fmt: skip
def test_tables_as_people_write_them(
    tmp_path: Path, text: str, expected: list[tuple[int, str, str]]
) -> None:
    assert pairs(write(tmp_path, text)) == expected


def test_absolute_paths_and_those_above_are_the_owners_business(tmp_path: Path) -> None:
    outside = write_picture(tmp_path / "outside.png")
    path = write(tmp_path / "in", f"{outside},dog\n../outside.png,cat\n")
    table = open_table(path)
    assert [table.read(i).image.size for i in range(2)] == [(40, 36), (40, 36)]


def test_every_wrong_line_is_told(tmp_path: Path) -> None:
    text = (
        "path,label\na.png,dog\nb.png\n,dog\nsub/c d.png,\nnone.png,dog\nsub,dog\n"
        "./a.png,cat\na.png,b,c\n\0.png,dog\n"
    )
    with pytest.raises(DataError) as caught:
        open_table(write(tmp_path, text))
    message = str(caught.value)
    assert "8 problems" in message
    for part in (
        "line 3: 1 cells, not 2",
        "line 4: the path is empty",
        "line 5: the label is empty",
        "line 6: 'none.png': No such file or directory",
        "line 7: 'sub' is not a file",
        "line 8: './a.png' stands in line 2 already",
        "line 9: 3 cells, not 2",
        "line 10: '\\x00.png': not a name that a file can have",
    ):
        assert part in message


def test_what_is_no_table(tmp_path: Path) -> None:
    for text, expected in (
        ("", "no picture in it"),
        ("path,label\n", "no picture in it"),
        ('a.png,"dog\n', "not a readable table"),
        (b"a.png,d\xffg\n", "not UTF-8: byte 0xFF in line 1"),
    ):
        with pytest.raises(DataError, match=expected):
            open_table(write(tmp_path, text))
    with pytest.raises(DataError, match="not a regular file"):
        open_table(tmp_path)
    with pytest.raises(DatasetNotFoundError, match="there is no table"):
        open_table(tmp_path / "none.csv")


@given(st.text(max_size=200))
def test_any_text_is_lines_or_problems(text: str) -> None:
    problems: list[str] = []
    for line in _lines(text, problems):
        assert line.path == line.path.strip() != ""
        assert line.label == line.label.strip() != ""
        assert 1 <= line.number <= text.count("\n") + text.count("\r") + 1
    assert all(problem.startswith("line ") for problem in problems)
