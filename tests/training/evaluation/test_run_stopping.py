"""A run that is stopped tells what it has, and goes on later: alone and under torchrun."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from robustzs_training.evaluation.place import join, stoppable
from robustzs_training.evaluation.request import EvaluateRequest
from robustzs_training.evaluation.run import DesertedError

from robustzs.cards.reading import read_card

_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
_PEER = """
import os
from robustzs_training.evaluation.place import join
with join() as place:
    place.wait()
    os._exit(0)
"""


def _signal(number: int) -> None:
    os.kill(os.getpid(), number)
    for _ in range(100):  # handlers run between bytecodes
        pass


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_alone_a_second_ctrl_c_ends_it_and_a_second_sigterm_does_not(first: int) -> None:
    with stoppable():
        with pytest.raises(KeyboardInterrupt):
            _signal(first)
        _signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            _signal(signal.SIGINT)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_among_several_only_the_first_signal_is_heard(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stoppable():
        with pytest.raises(KeyboardInterrupt):
            _signal(first)
        _signal(signal.SIGINT)
        _signal(signal.SIGTERM)


def test_handlers_are_as_they_were_and_nohup_is_kept() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            _signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_a_process_that_ends_is_missed_where_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    peer = subprocess.Popen(
        [sys.executable, "-c", _PEER], env={**_ENVIRONMENT, **world, "RANK": "1"}
    )
    try:
        for name, value in {**world, "RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        with join() as place:
            place.wait()
            with pytest.raises(DesertedError, match="another process"):
                place.wait()
        assert peer.wait(60) == 0
    finally:
        peer.kill()
        peer.wait()


@pytest.mark.slow
def test_ctrl_c_under_torchrun_leaves_a_card_and_a_state_that_goes_on(
    request_of: EvaluateRequest, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "robustzs", "evaluate", "-m", request_of.model, "-d", request_of.data[0]),
        *("--labels", str(request_of.labels), "--eps", "0.01/255", "-a", "apgd-ce"),
        *("--steps", "300", "--batch-size", "3", "--device", "cpu", "-o", str(output)),
    ]
    # As a terminal's Ctrl-C does it: the launcher and its processes get the signal together.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=_ENVIRONMENT, start_new_session=True
    )
    try:
        _wait_for(output / "state", 2, process)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode != 0
    assert "not complete: interrupted" in said
    card = read_card(output / "card.json")
    assert (card.complete, card.incomplete_reason) == (False, "interrupted")
    kept = _journals(output)
    assert len(kept) == 2
    again = _resumed(request_of, output)
    assert again.complete, again.incomplete_reason
    (result,) = again.results
    assert result.n == 18
    assert sum(part.n for part in card.results) <= 18
    later = _journals(output)
    assert all(now.startswith(before) for now, before in zip(later, kept, strict=True))
    lines = [json.loads(line) for journal in later for line in journal.splitlines()]
    rows = [row for line in lines if "apgd-ce" in line["question"] for row in line["rows"]]
    assert len(rows) == len(set(rows)) == result.n_clean  # nothing was done twice


def _journals(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((output / "state").glob("journal-*.jsonl"))]


def _wait_for(state: Path, n_journals: int, process: subprocess.Popen[str]) -> None:
    """Until all processes have attacked a batch."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        journals = [path.read_bytes() for path in state.glob("journal-*.jsonl")]
        if sum(b"apgd-ce" in journal for journal in journals) == n_journals:
            return
        time.sleep(0.01)
    pytest.fail("the processes did not come as far as an attack")


def _resumed(request: EvaluateRequest, output: Path) -> Any:
    from robustzs_training.evaluation.request import parse_threats

    from tests.training.evaluation.evaluate_runs import evaluated

    outcome, _ = evaluated(
        request, output=output, threats=parse_threats("0.01/255"), n_steps=300, batch_size=3
    )
    return outcome.card
