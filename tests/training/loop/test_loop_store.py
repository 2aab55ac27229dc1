"""Checkpoints: whole or not there, whatever happens to the process or the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from robustzs_training.loop.store import CheckpointStore

from robustzs.errors import TrainingStateError

REPOSITORY = Path(__file__).parents[3]


def fill(store: CheckpointStore, *steps: int) -> None:
    for step in steps:
        store.save(step, {"weights": torch.full((3, 4), float(step))}, {"note": f"after {step}"})


def none_damaged(text: str) -> None:
    raise AssertionError(text)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    assert store.latest(none_damaged) is None
    tensors = {
        "rows": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "half": torch.randn(3).half(),
        "step": torch.tensor(7),
        "state": torch.arange(5, dtype=torch.uint8),
    }
    place = store.save(7, tensors, {"lr": 0.1 + 0.2})
    found = store.latest(none_damaged)
    assert found is not None
    assert found.path == place == tmp_path / "checkpoints" / "step-00000007"
    assert found.step == 7
    assert found.state == {"step": 7, "lr": 0.1 + 0.2}
    assert set(found.tensors) == set(tensors)
    for name, wanted in tensors.items():
        torch.testing.assert_close(found.tensors[name], wanted, rtol=0, atol=0)


def test_the_last_k_stay(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    fill(store, 2, 4, 6, 8)
    assert store.steps() == [8, 6]
    assert store.size() == sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())


def test_a_half_written_one_is_ignored_and_removed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    fill(store, 2)
    half = tmp_path / ".writing"
    half.mkdir()
    (half / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / "step-00000009.txt").write_text("somebody's notes")
    found = store.latest(none_damaged)
    assert found is not None
    assert found.step == 2
    fill(store, 4)
    assert not half.exists()


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "digests.json"])
@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_a_damaged_one_is_passed_over_and_named(tmp_path: Path, name: str, how: str) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    fill(store, 2, 4)
    victim = store.path(4) / name
    content = victim.read_bytes()
    if how == "gone":
        victim.unlink()
    else:
        last = bytes([content[-2] ^ 1]) + content[-1:]
        victim.write_bytes(content[:-2] + (last if how == "changed" else b""))
    notes: list[str] = []
    found = store.latest(notes.append)
    assert found is not None
    assert found.step == 2
    assert float(found.tensors["weights"][0, 0]) == 2.0
    assert len(notes) == 1
    assert "step-00000004" in notes[0]
    assert "from step 2" in notes[0]
    fill(store, 4)  # takes the place of the damaged one
    again = store.latest(none_damaged)
    assert again is not None
    assert again.step == 4


def test_all_damaged_is_an_error_that_names_them(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    fill(store, 2, 4)
    for step in (2, 4):
        (store.path(step) / "state.json").write_text("{}")
    with pytest.raises(TrainingStateError, match=r"step-00000004.*step-00000002"):
        store.latest(lambda text: None)


_FULL_DISK = """
import json, resource, sys
from pathlib import Path
import torch
from robustzs_training.loop.store import CheckpointStore
from robustzs.errors import TrainingStateError
store = CheckpointStore(Path(sys.argv[1]), keep=2)
store.save(2, {"w": torch.ones(1000)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
try:
    store.save(4, {"w": torch.ones(100000)}, {})
except TrainingStateError as error:
    print(json.dumps({"error": error.message, "hint": error.hint}))
"""


def test_a_disk_that_is_full_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: writes fail in the middle of a file."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = json.loads(done.stdout)
    assert "step 4" in said["error"]
    assert str(tmp_path) in said["error"]
    assert "goes on from step 2" in said["hint"]
    store = CheckpointStore(tmp_path, keep=2)
    found = store.latest(none_damaged)
    assert found is not None
    assert found.step == 2
    assert [each.name for each in tmp_path.iterdir()] == ["step-00000002"]
