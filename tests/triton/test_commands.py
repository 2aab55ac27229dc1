"""Commands whose model runs on a real Triton server, beside the same ones here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustzs.cli.main import main
from tests.factories import picture_bytes
from tests.triton.server import Triton

pytestmark = pytest.mark.triton
LABELS = "labrador,tabby,jeep"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "x.png"
    path.write_bytes(picture_bytes("tabby", seed=1))
    return path


def rows(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert done.value.code in (0, None), said.err
    return [json.loads(line) for line in said.out.splitlines()]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_classify_answers_the_same(
    triton: Triton,
    tiny_bundle: Path,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    protocol: str,
) -> None:
    command = ["classify", photo, "--model", tiny_bundle, "--labels", LABELS]
    command += ["--templates", "{}", "--format", "jsonl"]
    (here,) = rows(capsys, *command)
    servers = ("--backend", "triton", "--url", getattr(triton, protocol))
    (there,) = rows(capsys, *command, *servers)
    assert [node["name"] for node in there["path"]] == [node["name"] for node in here["path"]]
    for one, other in zip(there["path"], here["path"], strict=True):
        assert abs(one["probability"] - other["probability"]) < 1e-6


@pytest.mark.parametrize("what", ["images", "texts"])
def test_embed_gives_the_same(
    triton: Triton,
    tiny_bundle: Path,
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    what: str,
) -> None:
    given = (photo,) if what == "images" else ("--text", "tabby")
    command = ("embed", *given, "--model", tiny_bundle)
    (here,) = rows(capsys, *command)
    (there,) = rows(capsys, *command, "--backend", "triton", "--url", triton.grpc)
    assert len(there["features"]) == len(here["features"])
    for one, other in zip(there["features"], here["features"], strict=True):
        assert abs(one - other) < 1e-6


@pytest.mark.parametrize("command", ["classify", "embed"])
def test_nobody_there_is_told(
    tiny_bundle: Path, photo: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = [command, photo, "--model", tiny_bundle, "--backend", "triton"]
    with pytest.raises(SystemExit) as done:
        main([str(one) for one in (*arguments, "--url", "grpc://127.0.0.1:1")])
    assert done.value.code not in (0, None)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert "does not answer" in said.out + said.err
