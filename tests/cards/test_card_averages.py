"""Averages over datasets: by hand, of which sets, and what a card refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import robustzs
from robustzs.cards.averages import averages_of, in_words
from robustzs.cards.reading import make_result, parse_card
from robustzs.cards.rows import measured_rows
from robustzs.cards.schema import Attack, Card, Dataset, MeasuredModel, Result
from robustzs.errors import CardError

SCHEMA = Path(robustzs.__file__).parent / "schemas" / "card.schema.json"


def attack(eps: str, value: float) -> Attack:
    return Attack(name="pgd", eps=eps, eps_value=value, implementation="ours", saw_defence=True)


SMALL, LARGE = attack("1/255", 1 / 255), attack("2/255", 2 / 255)


def row(name: str, by: Attack, n: int, clean: int, robust: int, **more: Any) -> Result:
    counted = np.arange(n)
    return make_result(counted < clean, counted < robust, dataset=name, attack=by, **more)


# Three sets of 10, 4 and 2 pictures, the first of them trained on.
ROWS = (
    row("imagenet1k", SMALL, 10, 9, 8),
    row("imagenet1k", LARGE, 10, 9, 7),
    row("birds", SMALL, 4, 3, 2),
    row("birds", LARGE, 4, 3, 1),
    row("cars", SMALL, 2, 2, 0),
    row("birds", SMALL, 4, 4, 4, depth=1, meaning="rollup"),
)


def test_each_set_counts_the_same_and_some_do_not_count() -> None:
    (found,) = averages_of(ROWS, left_out=("imagenet1k", "stl10"), n_wanted=13)
    assert (found.attack, found.eps, found.datasets) == ("pgd", "1/255", ("birds", "cars"))
    assert found.clean_accuracy == pytest.approx((3 / 4 + 2 / 2) / 2)  # not 5 of 6
    assert found.robust_accuracy == pytest.approx((2 / 4 + 0 / 2) / 2)
    assert (found.left_out, found.n_wanted) == (("imagenet1k",), 13)
    assert in_words(found) == "2 of 13 sets (birds, cars); without imagenet1k"


def test_without_a_protocol_all_sets_count() -> None:
    (found,) = averages_of(ROWS)
    assert found.robust_accuracy == pytest.approx((0.8 + 0.5 + 0.0) / 3)
    assert in_words(found) == "3 sets (imagenet1k, birds, cars)"


def test_averages_are_among_the_rows_for_people() -> None:
    averages = averages_of(ROWS, left_out=("imagenet1k",))
    card = {"results": [], "averages": [each.model_dump(mode="json") for each in averages]}
    assert [(each.measure, each.in_words) for each in measured_rows(card)] == [
        ("clean top-1, average of birds, cars", "0.875"),
        ("robust top-1, average of birds, cars, pgd, Linf eps 1/255", "0.25"),
    ]


def test_one_set_has_no_average() -> None:
    assert averages_of(ROWS[:2]) == ()
    assert averages_of(ROWS[:4], left_out=("imagenet1k",)) == ()


def card() -> Card:
    sizes = {"imagenet1k": 10, "birds": 4, "cars": 2}
    return Card(
        model=MeasuredModel(name="tiny", digest="a" * 64, engine="torch"),
        robustness="told below",
        datasets=tuple(
            Dataset(name=name, digest="b" * 64, n=n, n_labels=6) for name, n in sizes.items()
        ),
        attacks=(SMALL, LARGE),
        results=ROWS,
        averages=averages_of(ROWS, left_out=("imagenet1k",)),
        complete=True,
    )


def test_a_card_with_averages_is_of_the_published_schema() -> None:
    document = json.loads(card().to_json())
    jsonschema.validate(document, json.loads(SCHEMA.read_text("utf-8")))
    assert parse_card(document) == card()
    del document["averages"]  # as cards were before there were any
    assert parse_card(document).averages == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"robust_accuracy": 0.4}, "robust_accuracy is 0.4, not 0.25"),
        ({"clean_accuracy": 0.8}, "clean_accuracy is 0.8"),
        ({"datasets": ["birds", "planes"]}, "without rows: .*planes"),
        ({"datasets": ["birds", "birds"]}, "an average is over"),
        ({"left_out": ["birds"]}, "an average is over"),
        ({"eps": "2/255"}, "without rows: .*cars"),
        ({"datasets": ["birds"]}, "at least 2"),
    ],
)
def test_an_average_that_is_none_is_refused(change: dict[str, Any], message: str) -> None:
    document = json.loads(card().to_json())
    document["averages"][0].update(change)
    with pytest.raises(CardError, match=message):
        parse_card(document)
