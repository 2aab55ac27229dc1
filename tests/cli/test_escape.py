from __future__ import annotations

import csv
import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustzs.cli.escape import csv_safe, json_safe, terminal_safe

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


@given(ANY_TEXT)
def test_nothing_that_a_terminal_obeys_survives(text: str) -> None:
    shown = terminal_safe(text)
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not [c for c in shown if unicodedata.category(c) in bad and c != "\u200d"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain café 猫", "plain café 猫"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb", r"a\nb"),
        ("evil\u202egnp.exe", r"evil\u202egnp.exe"),
        ("\udcff.png", r"\udcff.png"),
        ("family 👨\u200d👩", "family 👨\u200d👩"),
    ],
)
def test_terminal_examples(text: str, shown: str) -> None:
    assert terminal_safe(text) == shown


@given(ANY_TEXT)
def test_json_comes_back_as_it_was(text: str) -> None:
    encoded = json_safe({"k": text})
    assert json.loads(encoded) == {"k": text}
    assert not [c for c in encoded if unicodedata.category(c) in {"Cc", "Cs"}]


def test_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        json_safe({"p": float("nan")})


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", " =1", "\t=1"])
def test_formulas_are_defused(text: str) -> None:
    cell = csv_safe(text)
    assert isinstance(cell, str)
    assert cell.startswith(("'", "\\"))


@pytest.mark.parametrize("text", ["-3.5", "+2", "cat", "n02084071", "-1e-3"])
def test_harmless_cells_stay(text: str) -> None:
    assert csv_safe(text) == text


@given(st.lists(ANY_TEXT.filter(lambda t: not t.startswith(("=", "+", "-", "@")))))
def test_csv_rows_keep_their_shape(cells: list[str]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([csv_safe(cell) for cell in [*cells, "end"]])
    rows = list(csv.reader(io.StringIO(buffer.getvalue())))
    assert len(rows) == 1
    assert len(rows[0]) == len(cells) + 1
