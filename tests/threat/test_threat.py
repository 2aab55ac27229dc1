from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustzs.errors import UsageError
from robustzs.threat import AttackConfig, ThreatModel, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4/255", 4 / 255),
        (" 1 / 255 ", 1 / 255),
        ("1.25/255", 1.25 / 255),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        (0.25, 0.25),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str | float, size: float) -> None:
    assert parse_size(text) == size


@given(st.integers(1, 100_000), st.integers(1, 1000))
def test_a_quotient_is_the_nearest_float(above: int, below: int) -> None:
    assert parse_size(f"{above}/{below}") == above / below


@pytest.mark.parametrize(
    "text",
    [
        "",
        "four",
        "1/0",
        "-1/255",
        "-1/-255",
        "nan",
        "inf",
        "4/255/2",
        "1e999999999",
        "1/1e999999999",
        float("nan"),
        -0.1,
    ],
)
def test_what_is_no_size_is_named(text: str | float) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert repr(text) in caught.value.message or str(text) in caught.value.message
    assert "4/255" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "norm", "eps"),
    [
        ("4/255", "Linf", 4 / 255),
        ("L2:0.5", "L2", 0.5),
        ("linf: 8/255", "Linf", 8 / 255),
        ("l2:128/255", "L2", 128 / 255),
    ],
)
def test_threat_models_are_parsed_and_printed(text: str, norm: str, eps: float) -> None:
    threat = ThreatModel.parse(text)
    assert (threat.norm, threat.eps) == (norm, eps)
    assert ThreatModel.parse(str(threat)) == threat


def test_an_eps_in_255ths_is_refused_with_what_was_meant() -> None:
    with pytest.raises(UsageError, match="4/255"):
        ThreatModel.parse("4")
    assert ThreatModel.parse("4", norm="L2").eps == 4.0


def test_unknown_norms_and_starts_are_refused() -> None:
    with pytest.raises(UsageError, match="L1"):
        ThreatModel.parse("L1:0.5")
    with pytest.raises(UsageError, match="L7"):
        ThreatModel(norm="L7", eps=0.1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="gaussian"):
        AttackConfig(n_steps=1, step_size=0.1, start="gaussian")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"n_steps": -1},
        {"n_steps": 1.5},
        {"n_steps": True},
        {"n_restarts": 0},
        {"seed": -1},
        {"momentum": -0.1},
        {"momentum": math.nan},
        {"step_size": -0.1},
        {"step_size": math.inf},
    ],
)
def test_attack_values_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        AttackConfig(**{"n_steps": 10, "step_size": 1 / 255, **changes})  # type: ignore[arg-type]


def test_both_are_frozen_values() -> None:
    attack = AttackConfig(n_steps=10, step_size=1 / 255)
    assert attack == AttackConfig(n_steps=10, step_size=1 / 255)
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.n_steps = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        ThreatModel("Linf", 0.1)  # type: ignore[misc]


@given(st.floats(0, 1))
def test_a_size_survives_being_printed(size: float) -> None:
    assert math.isclose(parse_size(format_size(size)), size, rel_tol=1e-5, abs_tol=1e-300)


def test_it_costs_no_import() -> None:
    code = "import sys; import robustzs.threat; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
