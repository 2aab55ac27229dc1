from __future__ import annotations

import json

import numpy as np
import pytest
from robustzs_training.data.base import Finding
from robustzs_training.data.trouble import Trouble

from robustzs.errors import TooManyBadSamplesError, TrainingStateError


def fill(trouble: Trouble, n_bad: int, n_good: int) -> None:
    trouble.saw(n_bad + n_good)
    for number in range(n_bad):
        trouble.add("unreadable-image", f"bad/{number}.jpg", "the image is empty")


def test_the_first_bad_image_of_three_does_not_stop_a_run() -> None:
    trouble = Trouble(0.01)
    fill(trouble, 1, 2)
    trouble.check()
    assert trouble.count("unreadable-image") == 1


def test_data_that_are_all_bad_stop_soon() -> None:
    trouble = Trouble(0.01)
    trouble.expect(1_000_000)
    fill(trouble, 3, 0)
    trouble.check()
    fill(trouble, 8, 0)
    with pytest.raises(
        TooManyBadSamplesError, match=r"bad/0\.jpg \(the image is empty\)"
    ) as caught:
        trouble.check()
    assert "max_bad_fraction" in caught.value.hint


def test_a_limit_of_zero_allows_nothing() -> None:
    trouble = Trouble(0.0)
    fill(trouble, 1, 500)
    with pytest.raises(TooManyBadSamplesError):
        trouble.check()


def test_a_limit_of_one_allows_everything() -> None:
    trouble = Trouble(1.0)
    fill(trouble, 500, 0)
    trouble.check()


def test_the_same_sample_counts_once_in_every_epoch() -> None:
    trouble = Trouble(0.01)
    trouble.expect(50)
    for _ in range(1000):
        fill(trouble, 1, 49)
        trouble.check()
    assert trouble.count("unreadable-image") == 1


def test_once_everything_was_seen_the_limit_is_exact() -> None:
    for n_bad, stops in ((20, False), (21, True)):
        trouble = Trouble(0.01)
        trouble.expect(2000)
        fill(trouble, n_bad, 2000 - n_bad)
        if stops:
            with pytest.raises(TooManyBadSamplesError, match="21 of 2000"):
                trouble.check()
        else:
            trouble.check()


def test_chance_does_not_stop_data_that_are_within_the_limit() -> None:
    bad = np.random.default_rng(0).random((200, 4000)) < 0.008  # 0.8%, the limit is 1%
    for row in bad:
        trouble = Trouble(0.01)
        trouble.expect(1_000_000)
        for i in np.flatnonzero(row):
            trouble.saw(int(i) + 1 - trouble.summary()["seen"])
            trouble.add("unreadable-image", str(i))
            trouble.check()


def test_what_a_source_knows_is_judged_without_doubt() -> None:
    trouble = Trouble(0.01)
    trouble.found(Finding(kind="missing-caption", count=1, total=100, first=("a.jpg",)))
    with pytest.raises(TooManyBadSamplesError, match=r"2 of 10 are class names.*blorp, xyzzy"):
        trouble.found(Finding(kind="unresolved-name", count=2, total=10, first=("blorp", "xyzzy")))


def test_only_the_first_names_are_told() -> None:
    trouble = Trouble(0.01, n_named=2)
    fill(trouble, 9, 0)
    with pytest.raises(TooManyBadSamplesError, match="and 7 more") as caught:
        trouble.check()
    assert "bad/2.jpg" not in caught.value.message


def test_state_goes_through_json() -> None:
    trouble = Trouble(0.01)
    trouble.expect(50)
    fill(trouble, 3, 40)
    trouble.add("missing-caption", "caf\udce9/é\n.jpg")
    again = Trouble(0.01)
    again.expect(50)
    again.load_state_dict(json.loads(json.dumps(trouble.state_dict())))
    assert again.summary() == trouble.summary()
    again.add("missing-caption", "caf\udce9/é\n.jpg")  # known already
    fill(again, 3, 0)
    assert again.count("missing-caption") == 1
    assert again.count("unreadable-image") == 3


@pytest.mark.parametrize("state", [{}, {"seen": "x", "kinds": {}}, {"seen": 1, "kinds": 3}])
def test_a_damaged_state_is_refused(state: dict[str, object]) -> None:
    trouble = Trouble(0.01)
    fill(trouble, 1, 1)
    with pytest.raises(TrainingStateError):
        trouble.load_state_dict(state)
    assert trouble.count("unreadable-image") == 1


def test_the_summary_can_be_printed_anywhere() -> None:
    trouble = Trouble(0.01)
    trouble.add("unreadable-image", "a\x1b[31m\udcff.jpg", "the image is empty")
    text = json.dumps(trouble.summary(), ensure_ascii=False)
    text.encode("utf-8")
    assert "\x1b" not in text
