"""The journal: what was written stays, what was torn goes, what is damaged is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustzs_training.captions.journal import Journal, Outcome
from robustzs_training.captions.run import one_line
from robustzs_training.captions.table import COLUMNS, write_table

from robustzs.errors import CaptionError, UsageError

SETTINGS = {"source": "openai", "prompt": "p", "model": "m"}


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal.open(path, SETTINGS) as journal:
        journal.append(
            [
                Outcome(key="a.png", caption="eins \u2028 zwei", prompt_tokens=3),
                Outcome(key="b.png", error="image-format", message="no image"),
                Outcome(key="c.png", error="chat-unavailable", message="500", passing=True),
            ]
        )
        journal.append([Outcome(key="\udcff.png", caption="odd name", completion_tokens=2)])
    with Journal.open(path, SETTINGS) as journal:
        assert len(journal) == 2
        assert journal.caption("a.png") == "eins \u2028 zwei"
        assert journal.caption("\udcff.png") == "odd name"
        assert (journal.prompt_tokens, journal.completion_tokens) == (3, 2)
        assert dict(journal.reasons()) == {"image-format": 1, "chat-unavailable": 1}
        assert [journal.is_open(k) for k in ("a.png", "b.png", "c.png", "d.png")] == [
            False,
            False,
            True,
            True,
        ]
        assert journal.is_open("b.png", retry_failed=True)
        journal.append([Outcome(key="b.png", caption="now")])
        assert dict(journal.reasons()) == {"chat-unavailable": 1}
        assert journal.caption("b.png") == "now"


@given(st.data())
def test_a_journal_cut_anywhere_keeps_every_whole_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "j"
    with Journal.open(path, SETTINGS) as journal:
        for number in range(4):
            journal.append([Outcome(key=f"{number}", caption=f"caption {number}")])
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut] + data.draw(st.sampled_from([b"", b"\0\0\0", b"{]\n"])))
    n_whole = max(0, whole[:cut].count(b"\n") - 1)
    with Journal.open(path, SETTINGS) as journal:
        assert len(journal) == n_whole
        for number in range(4):
            if journal.is_open(f"{number}"):
                journal.append([Outcome(key=f"{number}", caption=f"caption {number}")])
    assert path.read_bytes() == whole


def test_other_settings_are_refused_until_forced(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal.open(path, SETTINGS) as journal:
        journal.append([Outcome(key="a", caption="x")])
    other = {**SETTINGS, "model": "n"}
    with pytest.raises(CaptionError, match="begun with model 'm', now 'n'"):
        Journal.open(path, other)
    with Journal.open(path, other, force=True) as journal:
        assert len(journal) == 0


def test_damage_before_the_end_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal.open(path, SETTINGS) as journal:
        journal.append([Outcome(key=key, caption="x") for key in "abc"])
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b'{"key": "b", "capt\n'
    path.write_bytes(b"".join(lines))
    with pytest.raises(CaptionError, match="line 3"):
        Journal.open(path, SETTINGS)
    path.write_bytes(b'{"some": "json"}\n')
    with pytest.raises(CaptionError, match="not a journal"):
        Journal.open(path, SETTINGS)
    assert path.read_bytes() == b'{"some": "json"}\n'


def test_two_processes_cannot_write_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with (
        Journal.open(path, SETTINGS),
        pytest.raises(CaptionError, match="another process"),
    ):
        Journal.open(path, SETTINGS)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CaptionError, match="No such file"):
        Journal.open(tmp_path / "no" / "j", SETTINGS)


def test_both_formats_hold_the_same_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = [(f"{n}.png", f"caption\u00e9 {n}", "gloss", "names", "WordNet") for n in range(7)]
    assert write_table(tmp_path / "t.jsonl", rows) == 7
    assert write_table(tmp_path / "t.parquet", iter(rows)) == 7
    expected = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    lines = (tmp_path / "t.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == expected
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == expected
    assert write_table(tmp_path / "none.parquet", []) == 0
    assert pq.read_table(tmp_path / "none.parquet").column_names == list(COLUMNS)


def test_a_table_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("old\n")

    def failing():  # type: ignore[no-untyped-def]
        yield ("a", "b", "c", "d", "e")
        raise OSError(28, "No space left on device")

    with pytest.raises(CaptionError, match="No space left"):
        write_table(path, failing())
    assert path.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["t.jsonl"]
    with pytest.raises(UsageError, match=r"jsonl"):
        write_table(tmp_path / "t.csv", [])


@pytest.mark.parametrize(
    ("text", "is_cut", "line"),
    [
        (" A cat.\n\nOn a\tmat. ", False, "A cat. On a mat."),
        ("A cat. It sits on", True, "A cat."),
        ("A cat that sits on", True, "A cat that sits on"),
        ("A cat. It sits.", True, "A cat. It sits."),
        ("\x1b[31mred\u202e", False, "[31mred"),
        ("\n", False, ""),
    ],
)
def test_answers_become_one_line(text: str, is_cut: bool, line: str) -> None:
    assert one_line(text, is_cut=is_cut) == line
