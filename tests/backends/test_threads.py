from __future__ import annotations

import os
from pathlib import Path

import pytest

from robustzs.backends.threads import available_cpus


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(
    ("limit", "count"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("1600000 100000", 8),
        ("nonsense", 8),
        ("", 8),
        ("100000 0", 8),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, limit: str, count: int) -> None:
    write(tmp_path / "cpu.max", limit)
    assert available_cpus(tmp_path, tmp_path / "none") == count


@pytest.mark.usefixtures("eight_cpus")
def test_the_quota_of_version_1_counts(tmp_path: Path) -> None:
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", "300000\n")
    write(tmp_path / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert available_cpus(tmp_path, tmp_path / "none") == 3
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", "-1\n")
    assert available_cpus(tmp_path, tmp_path / "none") == 8


@pytest.mark.usefixtures("eight_cpus")
def test_the_smallest_quota_above_a_unit_counts(tmp_path: Path) -> None:
    write(tmp_path / "self", "0::/robustzs.slice/serve.service\n")
    write(tmp_path / "cg" / "robustzs.slice" / "serve.service" / "cpu.max", "max 100000")
    write(tmp_path / "cg" / "robustzs.slice" / "cpu.max", "400000 100000")
    assert available_cpus(tmp_path / "cg", tmp_path / "self") == 4


@pytest.mark.usefixtures("eight_cpus")
def test_no_control_groups_no_limit(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "none", tmp_path / "none") == 8


def test_this_machine_has_a_cpu() -> None:
    assert available_cpus() >= 1
