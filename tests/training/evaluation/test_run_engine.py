"""Verdicts do not depend on batches, processes, or on how often a measurement was stopped."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robustzs_training.evaluation.base import Proposal
from robustzs_training.evaluation.run import Measurement, Place, Verdicts
from robustzs_training.evaluation.state import EvaluationState, Line, forget
from robustzs_training.evaluation.trials import Trial

from robustzs.errors import EvaluationError, EvaluationStateError
from tests.training.evaluation.measured_worlds import (
    THREATS,
    measuring,
    some_pictures,
    trials_of,
)


def _all(measurement: Measurement, trials: list[Trial]) -> list[Verdicts]:
    assert measurement.clean()
    found = []
    for trial in trials:
        assert measurement.attack(trial)
        verdicts = measurement.verdicts(trial)
        assert verdicts is not None
        found.append(verdicts)
    return found


def _same(one: list[Verdicts], other: list[Verdicts]) -> bool:
    return all(
        np.array_equal(a.rows, b.rows)
        and np.array_equal(a.clean, b.clean)
        and np.array_equal(a.robust, b.robust)
        and a.by == b.by
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Verdicts]:
    images, target = some_pictures()
    with measuring(tmp_path_factory.mktemp("plain"), images, target) as measurement:
        return _all(measurement, trials_of(target))


def test_a_run_says_what_is_clean_broken_and_standing(plain: list[Verdicts]) -> None:
    small, large = plain
    assert small.complete
    assert large.complete
    assert np.array_equal(small.rows, np.arange(30))
    assert np.array_equal(small.clean, np.arange(30) % 5 != 0)
    assert 0 < large.robust.sum() < small.robust.sum() < small.clean.sum()
    assert set(small.by) == set(np.flatnonzero(small.clean & ~small.robust).tolist())
    assert small.n_attacked == small.clean.sum()
    assert small.n_unconfirmed == large.n_unconfirmed == 0


def test_what_broke_within_a_smaller_radius_is_not_attacked_again(plain: list[Verdicts]) -> None:
    small, large = plain
    assert large.n_attacked == small.robust.sum()
    assert not (large.robust & ~small.robust).any()


def test_reusing_breaks_changes_verdicts_towards_the_truth_alone(
    plain: list[Verdicts], tmp_path: Path
) -> None:
    images, target = some_pictures()
    alone = trials_of(target, threats=THREATS[1:])
    with measuring(tmp_path, images, target) as measurement:
        (fresh,) = _all(measurement, alone)
    reused = plain[1]
    # Where the attack of the large radius was run, it is the same; elsewhere the picture is broken
    # by a perturbation that was seen to break it and that is inside the larger ball, too.
    assert not (reused.robust & ~fresh.robust).any()
    differing = np.flatnonzero(fresh.robust & ~reused.robust)
    assert set(differing.tolist()) <= set(plain[0].by)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_decide_nothing(plain: list[Verdicts], tmp_path: Path, batch_size: int) -> None:
    images, target = some_pictures()
    with measuring(tmp_path, images, target, batch_size=batch_size) as measurement:
        assert _same(_all(measurement, trials_of(target)), plain)


def test_a_run_that_goes_on_repeats_nothing(plain: list[Verdicts], tmp_path: Path) -> None:
    images, target = some_pictures()
    with measuring(tmp_path, images, target) as measurement:
        _all(measurement, trials_of(target))
    again, target = some_pictures()
    with measuring(tmp_path, again, target, batch_size=3) as measurement:
        assert _same(_all(measurement, trials_of(target)), plain)
    assert again.reads == []


def _stopping(trial: Trial, after: int) -> Trial:
    """The same trial, whose attack is interrupted in a later batch."""
    calls = []

    class Stopped:
        name = trial.attack.name
        protocol = trial.attack.protocol

        def __call__(self, *inputs: object) -> Proposal:
            calls.append(1)
            if len(calls) > after:
                raise KeyboardInterrupt
            return trial.attack(*inputs)  # type: ignore[arg-type]

    return Trial(attack=Stopped(), threat=trial.threat, target=trial.target, weaker=trial.weaker)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_after_an_interruption_the_verdicts_are_the_same(
    plain: list[Verdicts], tmp_path: Path, after: int
) -> None:
    images, target = some_pictures()
    trials = trials_of(target)
    with measuring(tmp_path, images, target) as measurement:
        measurement.clean()
        with pytest.raises(KeyboardInterrupt):
            measurement.attack(_stopping(trials[0], after))
    with measuring(tmp_path, images, target) as measurement:
        assert _same(_all(measurement, trials), plain)


def test_what_was_cut_off_is_a_random_sample_with_the_same_verdicts(
    plain: list[Verdicts], tmp_path: Path
) -> None:
    images, target = some_pictures()
    trials = trials_of(target)
    with measuring(tmp_path, images, target) as measurement:
        measurement.clean()
        with pytest.raises(KeyboardInterrupt):
            measurement.attack(_stopping(trials[0], 3))
        part = measurement.verdicts(trials[0])
        assert measurement.verdicts(trials[1]) is None
        order = measurement.order
    assert part is not None
    assert not part.complete
    # 12 standing pictures were attacked, and the wrong ones between them count
    assert 12 <= len(part.rows) < 30
    assert np.array_equal(part.rows, np.sort(order[: len(part.rows)]))
    assert np.array_equal(part.robust, plain[0].robust[part.rows])
    assert np.array_equal(part.clean, plain[0].clean[part.rows])
    assert not np.array_equal(part.rows, np.arange(len(part.rows)))


def test_after_the_deadline_no_batch_starts(tmp_path: Path) -> None:
    images, target = some_pictures()
    trials = trials_of(target)
    with measuring(tmp_path, images, target, deadline=time.monotonic() - 1.0) as measurement:
        assert not measurement.clean()
        assert measurement.verdicts(trials[0]) is None
    assert images.reads == []


def test_processes_share_the_batches(plain: list[Verdicts], tmp_path: Path) -> None:
    barrier = threading.Barrier(2, timeout=60)
    found: dict[int, list[Verdicts]] = {}
    reads: dict[int, set[int]] = {}
    # Made here: torch's generator, which the nets are drawn from, is one for all threads.
    worlds = [some_pictures() for _ in range(2)]

    def work(rank: int) -> None:
        images, target = worlds[rank]
        place = Place(rank=rank, world_size=2, wait=lambda: barrier.wait() and None)
        if rank == 1:
            barrier.wait()
        with measuring(tmp_path, images, target, place=place) as measurement:
            if rank == 0:
                barrier.wait()
            found[rank] = _all(measurement, trials_of(target))
        reads[rank] = {row for batch in images.reads for row in batch}

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert _same(found[0], plain)
    assert _same(found[1], plain)
    assert reads[0] | reads[1] == set(range(30))
    assert len(reads[0]) < 30
    assert len(reads[1]) < 30


def test_a_perturbation_outside_the_ball_is_never_recorded(tmp_path: Path) -> None:
    images, target = some_pictures()
    (trial, _) = trials_of(target)

    class Cheat:
        name = "cheat"
        protocol = trial.attack.protocol

        def __call__(
            self, victim: object, pixels: torch.Tensor, right: object, rows: object
        ) -> Proposal:
            broken = torch.ones(len(pixels), dtype=torch.bool)
            return Proposal(adversarial=pixels + 0.1, broken=broken)

    cheat = Trial(attack=Cheat(), threat=trial.threat, target=target)  # type: ignore[arg-type]
    with measuring(tmp_path, images, target) as measurement:
        measurement.clean()
        with pytest.raises(EvaluationError, match="perturbation of size"):
            measurement.attack(cheat)
        assert measurement.verdicts(cheat) is None


def test_broken_pictures_that_do_not_replay_are_counted(tmp_path: Path) -> None:
    images, target = some_pictures()
    (trial, _) = trials_of(target)

    class Claims:
        name = "claims"
        protocol = trial.attack.protocol

        def __call__(
            self, victim: object, pixels: torch.Tensor, right: object, rows: object
        ) -> Proposal:
            broken = torch.ones(len(pixels), dtype=torch.bool)
            return Proposal(adversarial=pixels, broken=broken)

    claims = Trial(attack=Claims(), threat=trial.threat, target=target)
    with measuring(tmp_path, images, target) as measurement:
        (found,) = _all(measurement, [claims])
    assert found.n_unconfirmed == found.clean.sum() == 24


def test_perturbed_images_are_kept_of_a_few_pictures(tmp_path: Path) -> None:
    images, target = some_pictures()
    trials = trials_of(target)
    with measuring(tmp_path, images, target) as measurement:
        small, large = _all(measurement, trials)
        for trial, verdicts in zip(trials, (small, large), strict=True):
            for row in verdicts.rows.tolist():
                image = measurement.turned(trial, row)
                assert (image is not None) == (row in verdicts.by)
                if image is not None:
                    delta = np.abs(image - images.shown[row].numpy()).max()
                    assert 0.0 < delta <= trial.threat.eps + 1e-6


# ---- state ---------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.integers(0, 10**9), max_size=9, unique=True),
    question=st.text(max_size=20),
    data=st.data(),
)
def test_lines_come_back_as_they_were(rows: list[int], question: str, data: st.DataObject) -> None:
    right = tuple(data.draw(st.booleans()) for _ in rows)
    notes = {"a": tuple(data.draw(st.integers(-(2**62), 2**62)) for _ in rows)}
    by = tuple("" if mark else "apgd-t" for mark in right)
    line = Line(question=question, rows=tuple(rows), right=right, by=by, seconds=0.5, notes=notes)
    text = line.to_json()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert Line.from_json(text) == line


def _line(*rows: int) -> Line:
    return Line(question="q", rows=rows, right=(True,) * len(rows), notes={})


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    with EvaluationState(tmp_path, {"a": 1}) as state:
        state.record(_line(1, 2))
        state.record(_line(3))
    path = tmp_path / "journal-0.jsonl"
    data = path.read_bytes()
    for cut in range(len(data.splitlines(keepends=True)[0]), len(data)):
        path.write_bytes(data[:cut])
        with EvaluationState(tmp_path, {"a": 1}) as state:
            assert set(state.known("q")) == {1, 2}
        assert path.read_bytes() == data.splitlines(keepends=True)[0]
    with EvaluationState(tmp_path, {"a": 1}) as state:
        state.record(_line(4))
    with EvaluationState(tmp_path, {"a": 1}) as state:
        assert set(state.known("q")) == {1, 2, 4}


@pytest.mark.parametrize(
    "damage", ["[]", "{}", '{"rows":[1],"right":"","by":[],"question":"q"}', "junk", "[" * 5000]
)
def test_damage_inside_a_journal_is_refused(tmp_path: Path, damage: str) -> None:
    with EvaluationState(tmp_path, {}) as state:
        state.record(_line(1))
    path = tmp_path / "journal-0.jsonl"
    path.write_bytes(damage.encode() + b"\n" + path.read_bytes())
    with pytest.raises(EvaluationStateError, match="damaged"), EvaluationState(tmp_path, {}):
        pass


def test_another_measurement_is_refused_by_name(tmp_path: Path) -> None:
    with EvaluationState(tmp_path, {"model": "a", "attacks": {"x": {"n_steps": 5}, "y": 1}}):
        pass
    other = {"model": "a", "attacks": {"x": {"n_steps": 6}, "y": 1}}
    state = EvaluationState(tmp_path, other)
    with pytest.raises(EvaluationStateError, match=r"different: attacks\.x\.n_steps \("), state:
        pass
    forget(tmp_path)
    with state:
        pass


def test_forgetting_touches_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    forget(tmp_path)
    with EvaluationState(tmp_path, {}) as state:
        state.record(_line(1))
        state.keep_image("q", 1, np.zeros((3, 2, 2), np.float32))
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    second = EvaluationState(tmp_path, {})
    with (
        EvaluationState(tmp_path, {}),
        pytest.raises(EvaluationStateError, match="another process"),
        second,
    ):
        pass


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    state = EvaluationState(tmp_path / "file" / "state", {})
    with pytest.raises(EvaluationStateError, match="cannot be read or written"), state:
        pass
    with EvaluationState(tmp_path / "full", {}) as state:
        assert state._stream is not None
        state._stream.close()
        state._stream = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
        with pytest.raises(EvaluationStateError, match="No space left"):
            state.record(_line(1))


def test_a_kept_image_that_was_damaged_is_not_there(tmp_path: Path) -> None:
    with EvaluationState(tmp_path, {}) as state:
        state.keep_image("q", 7, np.full((3, 2, 2), 0.5, np.float32))
        found = state.image("q", 7)
        assert found is not None
        assert float(found.max()) == 0.5
        (path,) = (tmp_path / "turned").iterdir()
        path.write_bytes(path.read_bytes()[:20])
        assert state.image("q", 7) is None
        assert state.image("q", 8) is None


def test_the_identity_is_readable(tmp_path: Path) -> None:
    with EvaluationState(tmp_path, {"model": "abc"}):
        pass
    assert json.loads((tmp_path / "identity.json").read_text()) == {"model": "abc"}
