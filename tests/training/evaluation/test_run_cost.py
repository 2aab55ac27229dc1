"""What a measurement is said to cost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from robustzs_training.evaluation import pace as module
from robustzs_training.evaluation.cost import in_words, seconds_per_step, steps_of
from robustzs_training.evaluation.pace import Herald, Pace
from robustzs_training.evaluation.state import Line

from robustzs.threat import ThreatModel
from tests.training.evaluation.measured_worlds import (
    measuring,
    some_pictures,
    trials_of,
    unseen,
)
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


def test_the_bound_is_the_product(tmp_path: Path) -> None:
    images, target = some_pictures()
    trials = trials_of(target, names=("apgd-ce", "apgd-t"))
    with measuring(tmp_path, images, target) as measurement:
        measurement.clean()
        pace = Pace(measurement, trials, 0.5)
        # 24 stand; two radii of 5 steps, and of 5 steps for each of 5 targets
        steps = [steps_of(trial.attack.protocol) for trial in trials]
        assert pace.most == pace.left == pytest.approx(0.5 * 24 * sum(steps))
        shared = Pace(measurement, trials, 0.5, world_size=4)
        assert shared.most == pytest.approx(pace.most / 4)
    assert 0.0 < seconds_per_step(net_victim(), pictures(4)) < 10.0


def test_the_pace_of_what_was_done_corrects_the_bound(tmp_path: Path) -> None:
    images, target = some_pictures()
    small, large = trials_of(target)
    with measuring(tmp_path, images, target) as measurement:
        measurement.clean()
        rows = measurement.standing(target)[:8]
        pace = Pace(measurement, (small, large), 1.0)
        # Eight pictures at a tenth of the bound's price, half of them broken.
        question = measurement.question(target, small)
        measurement.state.record(
            Line(
                question=question,
                rows=tuple(rows.tolist()),
                right=(True, False) * 4,
                by=("", "apgd-ce") * 4,
                seconds=8 * 5 * 0.1,
                notes={},
            )
        )
        assert pace.most == pytest.approx(1.0 * 5 * (16 + 20))
        assert pace.left_of(small) == pytest.approx(16 * 5 * 0.1)
        # Of the 20 that stand, half of the 16 that wait will break within the smaller radius.
        assert pace.left_of(large) == pytest.approx(12 * 5 * 0.1)
        assert pace.left == pytest.approx(pace.left_of(small) + pace.left_of(large))


def test_a_run_without_a_terminal_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, target = some_pictures()
    small, large = trials_of(target)
    said: list[str] = []
    monkeypatch.setattr(module, "QUIET", 0.0)
    herald = Herald(said.append, unseen)
    with measuring(tmp_path, images, target) as measurement:
        measurement.progress = herald.watch
        measurement.clean()
        assert said[0] == "random: clean pictures: 4 of 30"
        said.clear()
        herald.begin("random", Pace(measurement, (small, large), 1e3))
        assert said.pop().startswith("random: at most 2.8 days of attacks")
        herald.attack(small)
        measurement.attack(small)
        # A bound of days, corrected by the first batch.
        assert re.fullmatch(
            r"random: apgd-ce Linf:2/255: 4 of 24, about \d+ s to go"
            r"(, \d+ s for all attacks on these pictures)?",
            said[0],
        ), said[0]
        assert len(said) == 5


def test_a_long_way_to_go_suggests_fewer_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, target = some_pictures()
    (trial,) = trials_of(target, threats=[EPS])
    said: list[str] = []
    monkeypatch.setattr(module, "QUIET", 0.0)
    herald = Herald(said.append, unseen)
    with measuring(tmp_path, images, target) as measurement:
        measurement.clean()
        herald.begin("random", Pace(measurement, (trial,), 30.0))  # nothing is known of the pace
        herald.attack(trial)
        with herald.watch("random: apgd-ce") as report:
            report(1, 24)
            report(2, 24)
    # 24 pictures of 5 steps of 30 seconds
    assert said[1] == (
        "random: apgd-ce: 1 of 24, about 60 min to go; --n 15 would take about 30 min"
    )
    assert said[2] == "random: apgd-ce: 2 of 24, about 60 min to go"


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
