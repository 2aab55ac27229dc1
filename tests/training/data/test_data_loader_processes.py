"""Loader processes: they end with what needs them, and one that dies is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from robustzs_training.data.folders import FolderSource, open_folder

from robustzs.errors import DataError
from tests.training.data.loaders import assert_same, make
from tests.training.data.picture_folders import write_classes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pictures of two classes."""
    return write_classes(tmp_path_factory.mktemp("pictures"), {"cat": 20, "oak": 10})


@pytest.fixture(scope="module")
def source(folder: Path) -> FolderSource:
    return open_folder(folder)


def fork_servers_and_workers() -> dict[int, int]:
    """Living processes of loaders, of anybody, and the parent of each."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z" and b"forkserver" in line:
                found[int(entry.name)] = int(parent)
    return found


def children() -> set[int]:
    """Our fork server, and the loader processes, which are its children."""
    parents = fork_servers_and_workers()
    servers = {pid for pid, parent in parents.items() if parent == os.getpid()}
    return servers | {pid for pid, parent in parents.items() if parent in servers}


def wait_until_gone(before: set[int]) -> None:
    for _ in range(100):
        # The server itself stays; every loader process is gone.
        if len(children() - before) <= 1:
            return
        time.sleep(0.1)
    pytest.fail(f"processes {children() - before} are still there")


def test_no_process_outlives_an_epoch_that_is_left(source: FolderSource) -> None:
    before = children()
    loader = make(source, n_workers=2)
    batches = loader.epoch(0)
    first = next(batches)
    assert len(children() - before) >= 2
    batches.close()  # type: ignore[attr-defined]
    wait_until_gone(before)
    assert_same([next(iter(loader.epoch(0)))], [first])
    wait_until_gone(before)


def test_processes_stay_between_epochs_and_end_with_the_loader(source: FolderSource) -> None:
    before = children()
    with make(source, n_workers=1) as loader:
        list(loader.epoch(0))
        first = children() - before
        list(loader.epoch(1))
        assert children() - before == first
    wait_until_gone(before)


def test_a_loader_process_that_dies_is_told(source: FolderSource) -> None:
    before = children()
    loader = make(source, batch_size=2, n_workers=1)
    batches = loader.epoch(0)
    next(batches)
    newest = max(children() - before)
    os.kill(newest, signal.SIGKILL)
    with pytest.raises(DataError, match="a loader process died"):
        list(batches)


_KILLED = """
import os, signal, sys
from pathlib import Path
from robustzs_training.data.folders import open_folder
from tests.training.data.loaders import make
from tests.training.data.test_data_loader_processes import children

def main():
    before = children()
    batches = make(open_folder(Path(sys.argv[1])), batch_size=2, n_workers=2).epoch(0)
    next(batches)
    print(*(children() - before), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_no_process_outlives_a_run_that_is_killed(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    ended = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL
    started = {int(pid) for pid in ended.stdout.split()}
    assert len(started) >= 3  # the server and two loader processes
    for _ in range(200):
        if not started & fork_servers_and_workers().keys():
            return
        time.sleep(0.1)
    pytest.fail(f"processes {started & fork_servers_and_workers().keys()} are still there")


@pytest.fixture(autouse=True, scope="module")
def _server_ends() -> Iterator[None]:
    """Leave no fork server for the next file."""
    yield
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # type: ignore[attr-defined]
