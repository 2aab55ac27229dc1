"""Where output goes: files, links, devices, closed and full streams, narrow encodings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robustzs.cli.render import open_output
from tests.cli.conftest import Run
from tests.factories import picture


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "Käse\U0001f600.png"
    picture("labrador").save(path)
    return path


@pytest.fixture
def command(photo: Path, tiny_bundle: Path, tree_file: Path) -> list[str]:
    return ["classify", str(photo), "--model", str(tiny_bundle), "--hierarchy", str(tree_file)]


def robustzs(
    arguments: list[str], redirection: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a shell of its own, with ``redirection``."""
    line = f'exec "$0" -m robustzs "$@" {redirection}'
    return subprocess.run(
        ["sh", "-c", line, sys.executable, *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_failed_run_leaves_no_empty_part(run: Run, command: list[str], tmp_path: Path) -> None:
    result = run([*command, "--model", "no-such-model", "-o", tmp_path / "out.json"])
    assert result.code == 1
    assert not list(tmp_path.glob("out*"))


def test_what_was_written_before_a_failure_stays_in_the_part(tmp_path: Path) -> None:
    def interrupted() -> None:
        with open_output(tmp_path / "rows", sys.stdout) as stream:
            stream.write("ä\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "rows.part").read_text("utf-8") == "ä\n"
    assert not (tmp_path / "rows").exists()


def test_a_folder_is_no_output(run: Run, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for arguments in (command, ["embed", command[1], *command[2:4], "--format", "npz"]):
        result = run([*arguments, "-o", tmp_path / "folder"])
        assert result.code == 2
        assert "cannot write" in result.err
    assert not list(tmp_path.glob("folder*.part"))


def test_a_link_stays_a_link(run: Run, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    assert run([*command, "-f", "json", "-o", tmp_path / "link"]).code == 0
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "real").read_text("utf-8"))["flat_top1"]["id"] == "labrador"


def test_a_pipe_is_written_to_and_not_replaced(command: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE)
    done = robustzs([*command, "-f", "json", "-o", str(tmp_path / "pipe")])
    out, _ = reader.communicate(timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pipe").is_fifo()
    assert json.loads(out)["flat_top1"]["id"] == "labrador"


def test_npz_goes_through_the_same_door(run: Run, command: list[str], tmp_path: Path) -> None:
    output = tmp_path / "features.npz"
    assert run(["embed", command[1], *command[2:4], "-o", output]).code == 0
    with np.load(output, allow_pickle=False) as stored:
        assert stored["features"].shape == (1, 16)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
@pytest.mark.parametrize("arguments", [["classify"], ["hierarchy", "build", "flat", "-l", "a,b"]])
def test_an_output_that_takes_nothing_is_one_line(
    command: list[str], redirection: str, arguments: list[str]
) -> None:
    done = robustzs(command if arguments == ["classify"] else arguments, redirection)
    assert done.returncode == 1
    assert done.stderr.count(b"error: ") == 1
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_nobody_listens_to_stderr(command: list[str]) -> None:
    done = robustzs([*command[:1], "missing.png", *command[2:], "-f", "json"], "2>&-")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "image-source"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_any_encoding(command: list[str], photo: Path, encoding: str) -> None:
    done = robustzs([*command, "-f", "json"], PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode(encoding))["image"] == str(photo)


def test_every_problem_has_a_line_of_its_own(run: Run) -> None:
    result = run(["hierarchy", "build", "--labels", "crane,dog"])
    assert result.code == 1
    assert "\\n" not in result.err
    assert [line.split(" could")[0].strip() for line in result.err.splitlines()[:2]] == [
        "error: 'crane'",
        "'dog'",
    ]


def test_interrupting_keeps_the_older_file(command: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious")
    many = [command[1]] * 20_000
    arguments = ["classify", *many, *command[2:], "-f", "jsonl", "-o", str(output)]
    process = subprocess.Popen(
        [sys.executable, "-m", "robustzs", *arguments],
        stderr=subprocess.PIPE,
        # A shell's background jobs ignore this signal, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    part = tmp_path / "out.jsonl.part"
    patience = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < patience:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in complaint
    assert output.read_text() == "precious"
    rows = part.read_text("utf-8").splitlines()
    assert json.loads(rows[0])["flat_top1"]["id"] == "labrador"


def test_nothing_is_kept_but_the_cache(command: list[str], tmp_path: Path) -> None:
    """ONNX Runtime's own builds would leave a device id and a queue of reports."""
    home = tmp_path / "home"
    home.mkdir()
    hidden = {"ROBUSTZS_CACHE": "", "XDG_CACHE_HOME": "", "ORT_DISABLE_TELEMETRY": "1"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        [sys.executable, "-m", "robustzs", *command],
        capture_output=True,
        check=False,
        env={**environment, "HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert [path.name for path in (home / ".cache").iterdir()] == ["robustzs"]
