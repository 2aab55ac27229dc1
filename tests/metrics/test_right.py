"""Which labels are right for a picture: labels, senses above them, senses below them, none."""

from __future__ import annotations

import pytest

from robustzs.errors import UnknownLabelError
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels import Label, LabelSet
from robustzs.metrics.right import RightAnswer, RightLabels

IMAGENET = LabelSet.imagenet1k()
RIGHT = RightLabels(IMAGENET)


def answer(text: str, labels: LabelSet = IMAGENET) -> RightAnswer:
    return (RIGHT if labels is IMAGENET else RightLabels(labels)).find([text]).answers[text]


def names(found: RightAnswer, labels: LabelSet = IMAGENET) -> list[str]:
    return [labels[int(column)].name for column in found.columns]


@pytest.mark.parametrize(
    "text", ["n02099601", "golden retriever", "Golden_Retriever", "GOLDEN RETRIEVER"]
)
def test_a_label_is_itself_by_any_of_its_names(text: str) -> None:
    found = answer(text)
    assert (found.truth, found.how, names(found)) == ("n02099601", "label", ["Golden Retriever"])


def test_an_inner_sense_counts_through_all_below_it() -> None:
    by_name, by_sense, by_wnid = (answer(text) for text in ("dog", "dog.n.01", "n02084071"))
    assert by_name.truth == by_sense.truth == by_wnid.truth == "n02084071"
    assert by_name.columns.tolist() == by_sense.columns.tolist() == by_wnid.columns.tolist()
    assert len(by_sense.columns) == 118  # the breeds of ILSVRC, two wild dogs not among them
    assert "Golden Retriever" in names(by_sense)
    assert "grey wolf" not in [name.lower() for name in names(by_sense)]
    assert by_sense.note == by_wnid.note == ""
    assert "dog.n.01" in by_name.note  # a word was given, and one of its senses was taken


def test_below_the_labels_the_one_above_is_right_and_is_the_truth() -> None:
    found = answer("cathedral.n.01")
    assert (found.how, names(found), found.truth) == ("above", ["church"], "n03028079")


def test_a_sense_apart_from_all_labels_has_no_right_one() -> None:
    found = answer("quark.n.01")
    assert (found.how, found.columns.tolist(), found.truth) == ("none", [], "n09401834")


def test_what_is_no_noun_is_unknown_with_its_reason() -> None:
    found = RIGHT.find(["asdfgh", "dog.n.99", "n99999999", "", "cat"])
    assert set(found.answers) == {"cat"}
    assert set(found.unknown) == {"asdfgh", "dog.n.99", "n99999999", ""}
    assert "neither a label nor a noun" in found.unknown["asdfgh"]
    assert "no noun sense" in found.unknown["dog.n.99"]


def test_an_alias_stands_in_where_wordnet_has_nothing_to_say() -> None:
    labels = LabelSet(
        (Label("cow", "cow", "cow"), Label("x", "zebu", "zebu", aliases=("moo thing",)))
    )
    found = answer("Moo Thing", labels)
    assert (found.truth, found.columns.tolist()) == ("x", [1])
    assert "another name of the label 'zebu'" in found.note


def test_a_name_of_two_labels_goes_to_wordnet() -> None:
    labels = LabelSet(
        (
            Label("n02012849", "crane", "crane bird", synset="n02012849"),
            Label("n03126707", "crane", "crane machine", synset="n03126707"),
        )
    )
    found = answer("crane", labels)
    assert len(found.columns) == 1
    assert "could also be" in found.note
    assert answer("crane machine", labels).columns.tolist() == [1]


def test_labels_without_senses_get_them_for_what_is_above() -> None:
    labels = LabelSet.from_names(["poodle", "house cat", "boulder", "blorb"])
    assert answer("animal.n.01", labels).columns.tolist() == [0, 1]
    assert answer("blorb", labels).truth == labels[3].id


def test_columns_of_everything_and_of_what_is_not_there() -> None:
    columns, how = RIGHT.columns_of("entity.n.01")
    assert (len(columns), how) == (1000, "below")
    with pytest.raises(UnknownLabelError):
        RIGHT.columns_of("n00000000")


def test_columns_below_are_those_whose_hypernyms_lead_there() -> None:
    """Held against a walk of its own, downwards, for senses of every depth."""
    index = NounIndex.load()
    rows = [index.row(label.id) for label in IMAGENET]
    for sense in (
        "animal.n.01",
        "vehicle.n.01",
        "bird.n.01",
        "food.n.02",
        "musical_instrument.n.01",
    ):
        mask = index.below(sense, instances=True)
        expected = [column for column, row in enumerate(rows) if mask[row]]
        columns, how = RIGHT.columns_of(sense)
        assert columns.tolist() == expected, sense
        assert how == "below"
