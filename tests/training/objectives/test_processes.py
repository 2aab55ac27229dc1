"""Two processes over gloo do what one does with twice the batch: attack, loss and gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from robustzs_training.processes import all_sum, gather, rank, world_size

from tests.training.objectives.two_processes import NAMES, shared_input, step

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    module = "tests.training.objectives.two_processes"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(place), "2", str(folder)],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for place in range(2)
    ]
    try:
        said = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one_with_twice_the_batch(of_two: Path, name: str) -> None:
    alone = step(name)
    with np.load(of_two / f"{name}.npz", allow_pickle=False) as together:
        assert set(together) == set(alone)
        for key, wanted in alone.items():
            np.testing.assert_allclose(
                together[key], wanted, rtol=1e-7, atol=1e-9, err_msg=f"{name}: {key}"
            )
    moved = [key for key, value in alone.items() if np.abs(value).max() > 0]
    assert any(key.startswith("gradient") for key in moved)


@pytest.mark.slow
def test_an_input_that_all_processes_share_moves_by_the_sum_of_their_gradients(
    of_two: Path,
) -> None:
    wanted = shared_input()["prompts"]
    np.testing.assert_allclose(wanted, [[0.2, -0.2, -0.2]], rtol=1e-6)
    for place in range(2):
        with np.load(of_two / f"shared_input_{place}.npz", allow_pickle=False) as found:
            np.testing.assert_array_equal(found["prompts"], wanted)


@pytest.mark.slow
def test_the_two_really_depend_on_each_other(of_two: Path) -> None:
    """In-batch contrast: half of the batch alone gives another loss."""
    with np.load(of_two / "qt_aft.npz", allow_pickle=False) as together:
        # Half of the captions: cross-entropy over 3 instead of 6.
        assert abs(float(together["total"]) - _half_alone()) > 0.1


def _half_alone() -> float:
    from tests.training.objectives import two_processes

    labels = two_processes.LABELS
    try:
        two_processes.LABELS = labels[:3]
        return float(two_processes.step("qt_aft")["total"])
    finally:
        two_processes.LABELS = labels


def test_alone_nothing_is_gathered() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    assert gather(rows) is rows
    assert (rank(), world_size()) == (0, 1)
    assert not all_sum(rows).requires_grad
