"""Options of `classify` that stand for a choice between here and there, or for a threshold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.factories import picture


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "jeep.png"
    picture("jeep").save(path)
    return path


def test_rejection_by_a_threshold_of_ones_own(run: Run, tiny_bundle: Path, photo: Path) -> None:
    command = ["classify", photo, "--model", tiny_bundle, "--labels", "jeep,poodle", "-f", "json"]
    similarity = json.loads(run(command).out)["similarity"]
    for below, rejected in ((similarity - 0.01, False), (similarity + 0.01, True), (-1.0, False)):
        answer = json.loads(run([*command, "--reject-below", below]).out)
        assert answer["rejected"] is rejected
        assert (answer["stop"]["reason"] == "rejected") is rejected
    # Given both, the caller's own threshold is the one that counts.
    assert json.loads(run([*command, "--reject", "--reject-below", "2"]).out)["rejected"]


def test_a_model_without_a_threshold_says_which_option_helps(
    run: Run, tiny_bundle: Path, photo: Path
) -> None:
    command = ["classify", photo, "--model", tiny_bundle, "--labels", "jeep,poodle"]
    refused = run([*command, "--reject"])
    assert refused.code == 2
    assert "--reject-below 0.2" in refused.err
    assert run([*command, "--reject-below", "nan"]).code == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--server", ""], "--server is empty"),
        (["--server", "http://127.0.0.1:9", "--device", "cpu"], "--device cpu does not go with"),
        (["--server", "http://127.0.0.1:9", "--threads", "2"], "--threads 2 does not go with"),
        (["--server", "http://127.0.0.1:9", "--model", "./tiny"], "--model ./tiny is a folder"),
    ],
)
def test_what_a_service_cannot_follow_is_refused(
    run: Run, photo: Path, more: list[str], said: str
) -> None:
    done = run(["classify", photo, *more])
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_the_service_of_the_environment_is_named_when_it_is_in_the_way(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUSTZS_SERVER", "http://127.0.0.1:9")
    done = run(["classify", photo, "--device", "cpu"])
    assert done.code == 2
    assert "http://127.0.0.1:9" in done.err
    assert "ROBUSTZS_SERVER" in done.err


def test_help_names_what_is_used_where_nothing_is_given(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    text = run(["classify", "--help"]).out
    assert "Else the 1000 ImageNet-1k classes" in text
    assert "else robustzs-lite" in text
    assert "else cpu" in text


def test_a_suffix_that_is_no_format_is_refused(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    command = ["embed", "--text", "jeep", "--model", tiny_bundle, "--output"]
    done = run([*command, tmp_path / "x.parquet"])
    assert done.code == 2
    assert all(word in done.err for word in (".parquet", ".jsonl", ".csv", ".npz"))
    assert not (tmp_path / "x.parquet").exists()
    assert run([*command, tmp_path / "x.parquet", "--format", "csv"]).code == 0
    assert run([*command, tmp_path / "x.CSV"]).code == 0
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "x.CSV").read_bytes()
    assert run([*command, tmp_path / "plain"]).code == 0
    assert json.loads((tmp_path / "plain").read_text())["input"] == "jeep"
