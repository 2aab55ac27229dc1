"""`robustzs evaluate` in real processes: killed and begun again, and several at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from robustzs_training.evaluation.request import EvaluateRequest

from robustzs.cards.reading import read_card


def _command(request: EvaluateRequest, output: Path) -> list[str]:
    return [
        *("evaluate", "-m", request.model, "-d", request.data[0], "--labels", str(request.labels)),
        *("--eps", "4/255,8/255", "-a", "apgd-ce", "--steps", "5", "--batch-size", "4"),
        *("--device", "cpu", "-o", str(output), "--format", "json"),
    ]


_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_after_kill_9_the_same_command_gives_the_same_card(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "robustzs", *_command(request_of, output)]
    journal = output / "state/journal-0.jsonl"
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_ENVIRONMENT
    )
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            if journal.exists() and b"apgd-ce" in journal.read_bytes():
                break
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    found = journal.read_bytes()
    assert b"apgd-ce" in found
    done = subprocess.run(
        command, capture_output=True, text=True, env=_ENVIRONMENT, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert journal.read_bytes().startswith(found[: found.rfind(b"\n") + 1])
    assert read_card(output / "card.json").canonical() == measured[0].canonical()
    shown = json.loads(done.stdout)
    assert shown == json.loads((output / "card.json").read_text(encoding="utf-8"))
    assert shown["results"][0]["eps"] == "4/255"
    assert shown["results"][0]["depth"] is None


@pytest.mark.slow
def test_two_processes_give_the_same_card_as_one(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", "-m", "robustzs", *_command(request_of, output)],
        capture_output=True,
        text=True,
        env=_ENVIRONMENT,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    journals = [(output / f"state/journal-{rank}.jsonl").read_text() for rank in range(2)]
    assert all("apgd-ce" in journal for journal in journals)
    assert read_card(output / "card.json").canonical() == measured[0].canonical()
