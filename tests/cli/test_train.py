"""What `robustzs train` says before anything heavy is needed."""

from __future__ import annotations

import pytest

from robustzs.cli import caption, train
from tests.cli.conftest import Run, WithoutTorch


def test_help_leads_from_the_first_run_to_many_gpus(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = run(["train", "--help"])
    assert result.code == 0
    steps = (
        "--recipe quickstart --output hardened",
        "--data photos/ -o mine --dry-run",
        "train --list",
        "--set threat.eps=2/255",
        "caption photos/",
        "torchrun --nproc-per-node 8 -m robustzs train",
    )
    places = [result.out.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(("name", "text"), [("train", train.HELP), ("caption", caption.HELP)])
def test_no_line_of_the_help_is_broken(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int, name: str, text: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = [line.strip() for line in run([name, "--help"]).out.splitlines()]
    for line in text.replace("\b\n", "").splitlines():
        assert line.strip() in shown


def test_without_torch_the_extra_is_named(without_torch: WithoutTorch) -> None:
    done = without_torch(["train", "--recipe", "quickstart", "--output", "out"])
    assert 'pip install "robustzs[train]"' in done.stderr
