"""Robustness cards: what they refuse, what they keep, and how two of them are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import robustzs
from robustzs.bundle.store import Bundle
from robustzs.cards.compare import compare
from robustzs.cards.outcomes import pack_outcomes, unpack_outcomes
from robustzs.cards.reading import (
    check_model,
    make_result,
    measured_digest,
    parse_card,
    read_card,
)
from robustzs.cards.rows import measured_rows
from robustzs.cards.schema import Attack, Card, Dataset, MeasuredModel, Result, Timings
from robustzs.errors import CardError
from robustzs.metrics.intervals import paired_difference
from tests.factories import make_bundle, write_manifest

SCHEMA = Path(robustzs.__file__).parent / "schemas" / "card.schema.json"
SHIPPED = Path(robustzs.__file__).parent / "models" / "robustzs-lite-clean" / "card.json"

ATTACK = Attack(
    name="apgd-ce",
    eps="1/255",
    eps_value=1 / 255,
    n_steps=100,
    implementation="pyautoattack 0.2.0",
    saw_defence=True,
)
CLEAN = np.array([True] * 8 + [False] * 2)
ROBUST = np.array([True] * 5 + [False] * 5)


def make_card(*results: Result, **changes: Any) -> Card:
    fields: dict[str, Any] = {
        "model": MeasuredModel(name="tiny", digest="a" * 64, engine="onnxruntime"),
        "robustness": "50.0% of 10 pictures stay right under APGD-CE, Linf, eps 1/255",
        "datasets": (Dataset(name="pictures", digest="b" * 64, n=10, n_labels=6),),
        "attacks": (ATTACK,),
        "results": results or (result(),),
        "complete": True,
        "versions": {"numpy": "2.0"},
    }
    return Card.model_validate({**fields, **changes})


def result(clean: np.ndarray = CLEAN, robust: np.ndarray = ROBUST, **changes: Any) -> Result:
    return make_result(clean, robust, dataset="pictures", attack=ATTACK, **changes)


def broken(**changes: Any) -> dict[str, Any]:
    """The card as JSON, with changes in its one result."""
    document = json.loads(make_card().to_json())
    document["results"][0].update(changes)
    return document


def test_a_card_is_of_the_published_schema_and_survives_its_file(tmp_path: Path) -> None:
    card = make_card(result(), result(depth=1, meaning="rollup", attacked_depth=1))
    document = json.loads(card.to_json())
    jsonschema.validate(document, json.loads(SCHEMA.read_text("utf-8")))
    first = document["results"][0]
    assert (first["attack"], first["eps"], first["depth"]) == ("apgd-ce", "1/255", None)
    assert (first["n"], first["clean_accuracy"], first["robust_accuracy"]) == (10, 0.8, 0.5)
    # Wilson for 5 of 10: (0.2366, 0.7634), centre 1/2
    assert first["interval"]["low"] == pytest.approx(0.2366, abs=5e-5)
    path = tmp_path / "card.json"
    path.write_text(card.to_json(), encoding="utf-8")
    assert read_card(path) == card


def test_timings_are_no_part_of_what_a_rerun_must_repeat() -> None:
    quick = make_card(timings=Timings(seconds=1.5, machine="here"))
    slow = make_card(timings=Timings(seconds=99.0, parts={"attack": 90.0}))
    assert quick.digest == slow.digest == make_card().digest
    assert quick.to_json() != slow.to_json()
    assert make_card(result(robust=CLEAN)).digest != quick.digest
    assert make_card().canonical() == parse_card(json.loads(slow.to_json())).canonical()


def test_right_under_attack_needs_right_before_it() -> None:
    found = result(robust=np.ones(10, bool))
    assert (found.n_clean, found.n_robust) == (8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_robust": 9}, "contradict each other"),
        ({"n_clean": 11}, "contradict each other"),
        ({"robust_accuracy": 0.6}, "is not 5 of 10"),
        ({"clean_accuracy": 0.7}, "is not 8 of 10"),
        ({"interval": {"low": 0.6, "high": 0.7}}, "is outside its interval"),
        ({"meaning": "rollup"}, "needs a depth"),
        ({"dataset": "others"}, "which is missing"),
        ({"eps": "2/255"}, "which is missing"),
        ({"eps": "tiny"}, "is no size"),
        ({"n": 9, "n_clean": 8, "clean_accuracy": 8 / 9}, "is not 5 of 9"),
        ({"outcomes": {"clean": "!", "robust": "!"}}, "not base64"),
        ({"outcomes": {"clean": "", "robust": ""}}, "not those of 10 images"),
        ({"outcomes": {"clean": "/8A=", "robust": "+AA="}}, "do not add up"),
        # 8 right before, 5 under attack, but one of the 5 is none of the 8
        (
            {
                "outcomes": {
                    "clean": pack_outcomes(CLEAN),
                    "robust": pack_outcomes(np.roll(ROBUST, -1)),
                }
            },
            "was wrong before it",
        ),
        ({"surprise": 1}, "Extra inputs"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_card_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError, match=message):
        parse_card(broken(**changes))


def test_a_card_as_a_whole_hangs_together() -> None:
    document = json.loads(make_card().to_json())
    twice = {**document, "results": document["results"] * 2}
    wrong_eps = {**document, "attacks": [{**document["attacks"][0], "eps_value": 0.1}]}
    failed = {**document, "checks": [{"name": "gradients", "passed": False}]}
    other = json.loads(make_card(result(robust=CLEAN)).to_json())["results"][0]
    second = {**document["attacks"][0], "name": "pgd"}
    uneven = {
        **document,
        "attacks": [*document["attacks"], second],
        "results": [
            *document["results"],
            {
                **other,
                "attack": "pgd",
                "n_clean": 9,
                "clean_accuracy": 0.9,
                "clean_interval": {"low": 0.5, "high": 1.0},
                "outcomes": None,
            },
        ],
    }
    for wrong, message in [
        (twice, "stands there twice"),
        (wrong_eps, "eps_value"),
        (failed, r"although checks failed: \['gradients'\]"),
        (uneven, "before another"),
        ({**document, "results": []}, "complete card has no results"),
        ({**document, "incomplete_reason": "killed"}, "incomplete_reason"),
        ({**document, "complete": False}, "incomplete_reason"),
        ({**document, "datasets": document["datasets"] * 2}, "the same name"),
        ({**document, "schema_version": 3}, "schema version 3"),
        ({**document, "schema_version": True}, "schema version True"),
    ]:
        with pytest.raises(CardError, match=message):
            parse_card(wrong)


def test_a_run_that_was_cut_off_says_so_and_may_hold_fewer_images() -> None:
    part = result(CLEAN[:6], ROBUST[:6])
    with pytest.raises(ValueError, match="run that was cut off"):
        make_card(part)
    card = make_card(part, complete=False, incomplete_reason="interrupted after 6 images")
    assert parse_card(json.loads(card.to_json())) == card
    with pytest.raises(ValueError, match="a result has n 12"):
        make_card(
            result(np.ones(12, bool), np.ones(12, bool)),
            complete=False,
            incomplete_reason="interrupted",
        )


def test_make_result_refuses_what_is_not_of_the_same_images() -> None:
    for clean, robust in [
        (CLEAN, ROBUST[:5]),
        (CLEAN[:0], ROBUST[:0]),
        (CLEAN.astype(int), ROBUST),
    ]:
        with pytest.raises(CardError):
            result(clean, robust)


@given(st.lists(st.booleans(), max_size=70))
def test_outcomes_survive(outcomes: list[bool]) -> None:
    packed = pack_outcomes(outcomes)
    assert unpack_outcomes(packed, len(outcomes)).tolist() == outcomes
    with pytest.raises(CardError):
        unpack_outcomes(packed, len(outcomes) + 8)


def test_outcomes_behind_the_last_image_are_refused() -> None:
    with pytest.raises(CardError):
        unpack_outcomes(pack_outcomes([True] * 8), 7)


def test_compare_pairs_the_images() -> None:
    hardened = np.array([True] * 7 + [False] * 3)
    before, after = make_card(), make_card(result(CLEAN, hardened))
    (found,) = compare(before, after)
    assert found.robust == paired_difference(ROBUST, hardened)
    assert found.robust_difference == pytest.approx(0.2)
    assert found.clean is not None
    assert (found.clean.difference, found.clean.gained, found.clean.lost) == (0.0, 0, 0)
    assert found.unpaired == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"datasets": (Dataset(name="pictures", digest="c" * 64, n=10, n_labels=6),)}, "images"),
        ({"results": (result(keep_outcomes=False),)}, "what became of every image"),
        ({"attacks": (ATTACK.model_copy(update={"n_steps": 10}),)}, "differ in n_steps"),
        (
            {
                "results": (result(CLEAN[:6], ROBUST[:6]),),
                "complete": False,
                "incomplete_reason": "interrupted",
            },
            "10 images were measured for one and 6",
        ),
    ],
    ids=["images", "outcomes", "attack", "n"],
)
def test_compare_gives_no_interval_where_images_do_not_pair(
    changes: dict[str, Any], reason: str
) -> None:
    (found,) = compare(make_card(), make_card(**changes))
    assert found.clean is None
    assert found.robust is None
    assert reason in found.unpaired


def test_depths_of_different_trees_do_not_pair() -> None:
    def card(tree: str) -> Card:
        data = Dataset(name="pictures", digest="b" * 64, n=10, n_labels=6, hierarchy=tree * 64)
        return make_card(result(depth=2, meaning="rollup"), datasets=(data,))

    assert compare(card("1"), card("1"))[0].robust is not None
    assert "different trees" in compare(card("1"), card("2"))[0].unpaired


def test_cards_without_a_question_in_common_are_not_compared() -> None:
    with pytest.raises(CardError, match="no result of the same"):
        compare(make_card(), make_card(result(depth=1, meaning="rollup")))


def test_a_card_in_a_bundle_is_of_its_model(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    digest = measured_digest(Bundle.load(folder).manifest)
    with pytest.raises(CardError, match="has no card"):
        read_card(folder)

    def put(card: Card) -> None:
        (folder / "card.json").write_text(card.to_json(), encoding="utf-8")
        write_manifest(folder)

    own = make_card(model=MeasuredModel(name="tiny", digest=digest, engine="torch"))
    put(own)
    bundle = Bundle.load(folder)
    assert measured_digest(bundle.manifest) == digest  # with the card in it
    assert read_card(folder) == own
    check_model(own, bundle.manifest)
    assert bundle.card() == json.loads(own.to_json())
    put(make_card())
    with pytest.raises(CardError, match="the card is of the model tiny"):
        read_card(folder)


@pytest.mark.parametrize(
    "changes", [{"logit_scale": 31.0}, {"temperature": 2.0}, {"templates": "name"}]
)
def test_another_scoring_is_another_model(tmp_path: Path, changes: dict[str, Any]) -> None:
    first = Bundle.load(make_bundle(tmp_path / "a")).manifest
    renamed = Bundle.load(make_bundle(tmp_path / "b", description="new words")).manifest
    second = Bundle.load(make_bundle(tmp_path / "c", **changes)).manifest
    assert measured_digest(first) == measured_digest(renamed)
    assert measured_digest(first) != measured_digest(second)


def test_rows_are_those_of_both_forms() -> None:
    card = make_card(
        result(), result(depth=1, meaning="rollup", attacked_depth=2, attacked_meaning="rollup")
    )
    rows = measured_rows(json.loads(card.to_json()))
    assert [row.measure for row in rows] == [
        "clean top-1, pictures",
        "robust top-1, pictures, apgd-ce, Linf eps 1/255",
        "clean depth 1 (rollup), pictures",
        "robust depth 1 (rollup), pictures, apgd-ce, Linf eps 1/255, attacked at depth 2 (rollup)",
    ]
    assert rows[1].in_words == "0.5 [0.237, 0.763], n 10"
    free = {"results": [{"measure": "top-1", "value": 0.5, "n": 4, "chance": 0.1}, "junk", {}]}
    (row,) = measured_rows(free)
    assert (row.in_words, row.chance) == ("0.5, n 4", 0.1)
    assert measured_rows(None) == measured_rows({"results": "junk"}) == []


def test_the_card_that_ships_stays_readable() -> None:
    document = json.loads(SHIPPED.read_text("utf-8"))
    rows = measured_rows(document)
    assert rows
    if "schema_version" in document:
        parse_card(document)
    else:
        assert len(rows) == len(document["results"])
        with pytest.raises(CardError, match="older, free form"):
            read_card(SHIPPED)


def test_files_that_are_no_card_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"nowhere\.json"):
        read_card(tmp_path / "nowhere.json")
    (tmp_path / "card.json").write_text("[]")
    with pytest.raises(CardError, match="not a JSON object"):
        read_card(tmp_path / "card.json")


def test_a_card_of_every_depth_and_many_pictures_can_be_read(tmp_path: Path) -> None:
    """Outcomes of 50,000 pictures take 17 kB in each result."""
    rng = np.random.default_rng(0)
    clean = rng.random(50_000) < 0.7
    robust = clean & (rng.random(50_000) < 0.5)
    results = [
        result(clean, robust, depth=1, meaning="rollup", attacked_depth=depth)
        for depth in range(300)
    ]
    dataset = Dataset(name="pictures", digest="b" * 64, n=50_000, n_labels=6)
    card = make_card(*results, datasets=(dataset,))
    path = tmp_path / "card.json"
    path.write_text(card.to_json(), encoding="utf-8")
    assert path.stat().st_size > 5_000_000
    assert read_card(path) == card
