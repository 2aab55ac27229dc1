"""What `robustzs evaluate` says before anything is measured."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Run, WithoutTorch


def test_help_leads_from_a_folder_to_a_shipped_card(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = run(["evaluate", "--help"])
    assert result.code == 0
    steps = (
        "evaluate --data photos/ --n 200",
        "--attack autoattack --format json",
        "--output measured --max-minutes 60",
        "robustzs compare before/card.json measured/card.json",
        "--hierarchy wordnet --depths 3,5",
        "--preset fare --root datasets/",
        "torchrun --nproc-per-node 8 -m robustzs evaluate",
        "-o measured --precision all",
        "-o measured --write-card",
    )
    places = [result.out.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


def test_without_torch_the_extra_is_named(without_torch: WithoutTorch) -> None:
    done = without_torch(["evaluate", "--data", "photos"])
    assert 'pip install "robustzs[train]"' in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "which pictures"),
        (["--data", "x", "--eps", "4"], "write 4/255"),
        (["--data", "x", "--eps", "0"], "no attack"),
        (["--data", "x", "--eps", "huge"], "is no size"),
        (["--data", "x", "--attack", "autoattack,wish"], "unknown attack 'wish'"),
        (["--data", "x", "--attack", ","], "no attack is named"),
        (["--data", "x", "--preset", "fare"], "its own pictures"),
        (["--preset", "fare", "--eps", "4/255", "--steps", "5"], "its own --eps, --steps"),
        (["--preset", "fare"], "--root DIR"),
        (["--data", "x", "--max-minutes", "0"], "max-minutes"),
        (["--data", "x", "--device", "abacus"], "cpu, cuda"),
        (["--data", "x", "--model", "no-such-model"], "no model"),
        (
            ["--data", "no/such/folder", "--device", "cpu", "--precision", "int4"],
            "choose from all, default, fp32/int8",
        ),
        (
            ["--data", "x", "--device", "cpu", "--precision", "all", "--eps", "0.5/255"],
            "less than a PNG can hold",
        ),
        (["--data", "no/such/folder", "--device", "cpu"], "no/such/folder"),
    ],
)
def test_what_cannot_be_is_refused_by_name(run: Run, options: list[str], message: str) -> None:
    pytest.importorskip("torch")
    result = run(["evaluate", *options])
    assert result.code in (1, 2)
    assert message in result.err
    assert result.out == ""
