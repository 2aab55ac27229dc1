"""Checks after a run: what transfers between depths must not beat a depth's own attack."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from robustzs_training.evaluation.checking import _compared, checks_after
from robustzs_training.evaluation.publish import Judged
from robustzs_training.evaluation.run import IntArray, Notes, Verdicts
from robustzs_training.evaluation.trials import Target, Trial

from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.templates import get_templates
from tests.training.evaluation.measured_worlds import THREATS, some_pictures
from tests.training.evaluation.small_victims import made

N = 20
NAMES = ("flat", "rollup:1")


class _Asked:
    """Stands for a scorer: what questions there are."""

    names = NAMES
    tree: Hierarchy | None = None


def _verdicts(robust: np.ndarray) -> Verdicts:
    return Verdicts(
        rows=np.arange(N),
        clean=np.ones(N, np.bool_),
        robust=robust,
        by=dict.fromkeys(np.flatnonzero(~robust).tolist(), "apgd-ce"),
        complete=True,
        n_attacked=N,
        n_unconfirmed=0,
        seconds=1.0,
    )


def _notes(right: np.ndarray) -> Notes:
    """Columns as ``Scores.to_notes`` writes them; ``right`` is bool ``[n, questions]``."""
    zeros = (0,) * N
    columns = {f"right.{i}": tuple(right[:, i].astype(int).tolist()) for i in range(len(NAMES))}
    columns |= {f"{name}.{i}": zeros for name in ("sure", "margin") for i in range(len(NAMES))}
    return {**columns, "truth": zeros, "top": zeros, "end": zeros, "path.0": zeros}


def _judged(attack: str, *, elsewhere: int, own: int) -> Judged:
    """The attack on the labels breaks ``elsewhere`` pictures at depth 1, its own attack ``own``."""
    images, target = some_pictures(N)
    deep = Target(depth=1, meaning="rollup", victim=target.victim, right=target.right)
    trials = [
        Trial(attack=made(attack, THREATS[0]), threat=THREATS[0], target=each)
        for each in (target, deep)
    ]
    broken = np.arange(N)
    right = {
        "flat": np.stack([broken >= N, broken >= elsewhere], axis=1),
        "rollup:1": np.stack([broken >= N, broken >= own], axis=1),
    }

    def noted(trial: Trial, rows: IntArray) -> tuple[Notes, Notes]:
        assert len(rows) == N
        return _notes(np.ones((N, 2), np.bool_)), _notes(right[trial.target.name])

    robust = [_verdicts(right["flat"][:, 0]), _verdicts(right["rollup:1"][:, 1])]
    return Judged(
        images=images,
        trials=list(zip(trials, robust, strict=True)),
        templates=get_templates("{}"),
        scorer=_Asked(),  # type: ignore[arg-type]
        noted=noted,
    )


@pytest.mark.parametrize(
    ("elsewhere", "own", "passes"), [(5, 12, True), (12, 12, True), (12, 2, False)]
)
def test_a_depth_that_falls_to_another_depths_images_is_refused(
    elsewhere: int, own: int, passes: bool
) -> None:
    checks = checks_after([], [_judged("apgd-ce", elsewhere=elsewhere, own=own)])
    found = {check.name: check for check in checks}
    name = "own-loss-not-weaker:rollup:1:flat:random:apgd-ce Linf:2/255"
    assert found[name].passed is passes
    if not passes:
        assert "breaks 10 of 20 images that the attack on rollup:1 leaves" in found[name].message


def test_attacks_that_are_no_verdict_are_not_held_to_it() -> None:
    checks = checks_after([], [_judged("pgd", elsewhere=12, own=2)])
    assert not any(check.name.startswith("own-loss") for check in checks)


@pytest.mark.parametrize(("by_square", "passes"), [(2, True), (3, False)])
def test_an_ensemble_whose_black_box_breaks_what_gradients_left_is_refused(
    by_square: int, passes: bool
) -> None:
    images, target = some_pictures(N)
    attack = made("autoattack", THREATS[0], ensemble="standard")
    trial = Trial(attack=attack, threat=THREATS[0], target=target)
    found = replace(
        _verdicts(np.zeros(N, np.bool_)),
        by={row: "square" if row < by_square else "apgd-ce" for row in range(N)},
    )
    judged = Judged(images=images, trials=[(trial, found)], templates=get_templates("{}"))
    checks = {check.name: check for check in checks_after([], [judged])}
    check = checks["black-box-not-stronger:random:flat:Linf:2/255:autoattack"]
    assert check.passed is passes
    assert f"Square breaks {by_square} of 20" in check.message


def test_an_ensemble_without_a_black_box_is_not_asked_for_one() -> None:
    images, target = some_pictures(N)
    trial = Trial(attack=made("autoattack", THREATS[0]), threat=THREATS[0], target=target)
    verdicts = _verdicts(np.zeros(N, np.bool_))
    judged = Judged(images=images, trials=[(trial, verdicts)], templates=get_templates("{}"))
    assert not any(c.name.startswith("black-box") for c in checks_after([], [judged]))


@pytest.mark.parametrize(
    ("attacked", "compared"),
    [
        ((), "int8/int8"),
        (("int8/fp32",), "int8/int8"),
        (("int8/int8",), "fp32/int8"),
    ],
)
def test_torch_stands_for_a_default_that_is_not_attacked_itself(
    attacked: tuple[str, ...], compared: str
) -> None:
    """An int8 default answers otherwise than torch; its own rows say what it is worth."""
    _, flat = some_pictures(N)
    targets = {
        name: replace(flat, precision=name) for name in ("int8/int8", "fp32/int8", "int8/fp32")
    }
    trials = tuple(
        Trial(attack=made("apgd-ce", THREATS[0]), threat=THREATS[0], target=each)
        for each in (flat, *(targets[name] for name in attacked))
    )
    measurement = SimpleNamespace(precisions=list(targets.values()))
    scene = SimpleNamespace(trials=trials)
    found = _compared(measurement, scene)  # type: ignore[arg-type]
    assert found is not None
    assert found.precision == compared
    alone = SimpleNamespace(precisions=[targets["int8/int8"]])
    only = _compared(alone, scene)  # type: ignore[arg-type]
    assert only is targets["int8/int8"]
