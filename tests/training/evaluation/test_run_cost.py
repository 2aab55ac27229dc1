"""What a measurement is said to cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from robustzs_training.evaluation.cost import in_words, most_seconds, seconds_per_step, steps_of

from robustzs.threat import ThreatModel
from tests.training.evaluation.measured_worlds import measuring, some_pictures, trials_of
from tests.training.evaluation.small_victims import made, net_victim, pictures

EPS = ThreatModel(eps=4.0 / 255.0)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("pgd", 10),
        ("apgd-ce", 10),
        ("apgd-t", 90),  # 9 targets
        ("autoattack", 140),  # 5 starts of apgd-ce, then apgd-t
        ("square", 20),  # 60 queries, none with a gradient
    ],
)
def test_steps_are_counted_over_starts_targets_and_members(name: str, steps: float) -> None:
    assert steps_of(made(name, EPS).protocol) == pytest.approx(steps)


def test_seconds_are_the_product() -> None:
    work = [(made("pgd", EPS), 3), (made("apgd-t", EPS), 2)]
    assert most_seconds(work, 0.5) == pytest.approx(0.5 * (3 * 10 + 2 * 90))
    assert 0.0 < seconds_per_step(net_victim(), pictures(4)) < 10.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3 s"), (600.0, "10 min"), (3.5 * 3600, "3.5 h"), (60 * 3600, "2.5 days")],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


def test_what_is_left_shrinks_to_nothing(tmp_path: Path) -> None:
    images, target = some_pictures()
    small, large = trials_of(target)
    with measuring(tmp_path, images, target) as measurement:
        measurement.clean()
        assert measurement.n_left(small) == measurement.n_left(large) == 24
        measurement.attack(small)
        assert measurement.n_left(small) == 0
        assert 0 < measurement.n_left(large) < 24
        measurement.attack(large)
        assert measurement.n_left(large) == 0
