from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from robustzs.cli.main import main


@dataclass(frozen=True)
class Result:
    """What a run of the command left."""

    code: int
    out: str
    err: str


Run = Callable[[Sequence[object]], Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def call(arguments: Sequence[object]) -> Result:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = stopped.value.code
        assert code is None or isinstance(code, int)
        assert "Traceback" not in captured.err
        return Result(code or 0, captured.out, captured.err)

    return call


WithoutTorch = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from robustzs.cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture
def without_torch() -> WithoutTorch:
    """Run the command line in a process where torch cannot be imported; it has to refuse."""

    def call(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", _WITHOUT_TORCH, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done

    return call
