from __future__ import annotations

import pytest

from robustzs.errors import AmbiguousLabelError, UnknownLabelError, UsageError
from robustzs.hierarchy.noun_index import NounIndex, Synset
from robustzs.hierarchy.resolve import resolve_label, resolve_labels
from robustzs.labels.entries import imagenet_table
from robustzs.labels.label import Label


@pytest.fixture(scope="module")
def index() -> NounIndex:
    return NounIndex.load()


def label(name: str, *aliases: str, synset: str | None = None) -> Label:
    return Label(id=name, name=name, prompt=name, aliases=aliases, synset=synset)


def names(index: NounIndex, *labels: Label) -> list[str | None]:
    found = resolve_labels(labels, index, on_ambiguous="first", on_unknown="attach")
    return [None if r.synset is None else r.synset.name for r in found]


@pytest.mark.parametrize(
    ("synset", "name", "how"),
    [
        ("n01440764", "tench.n.01", "imagenet"),
        ("n02012849", "crane.n.05", "imagenet"),
        ("n02084071", "dog.n.01", "wnid"),
        ("crane.n.04", "crane.n.04", "synset"),
        ("domestic_dog.n.01", "dog.n.01", "synset"),
    ],
)
def test_pinned_senses_are_taken_whatever_the_name(
    index: NounIndex, synset: str, name: str, how: str
) -> None:
    resolution = resolve_label(label("whatever", synset=synset), index)
    assert resolution.synset is not None
    assert (resolution.synset.name, resolution.how) == (name, how)
    assert resolution.gloss == index.get(name).gloss
    assert resolution.warnings == ()


def test_imagenet_round_trip(index: NounIndex) -> None:
    found = resolve_labels(imagenet_table().values(), index)
    assert [r.synset.wnid for r in found if r.synset] == list(imagenet_table())
    assert {r.how for r in found} == {"imagenet"}


def test_one_sense_needs_no_pin(index: NounIndex) -> None:
    resolution = resolve_label(label("tench"), index)
    assert resolution.synset == index.get("tench.n.01")
    assert resolution.how == "only-sense"


def test_crane_is_ambiguous(index: NounIndex) -> None:
    with pytest.raises(AmbiguousLabelError) as caught:
        resolve_label(label("crane"), index)
    assert [name for name, _ in caught.value.candidates] == ["crane.n.04", "crane.n.05"]
    assert "large long-necked wading bird" in caught.value.message
    assert "crane.n.04" in caught.value.hint


def test_every_ambiguous_label_is_named_at_once(index: NounIndex) -> None:
    with pytest.raises(AmbiguousLabelError) as caught:
        resolve_labels([label("crane"), label("tench"), label("mouse")], index)
    assert "'crane'" in caught.value.message
    assert "'mouse'" in caught.value.message
    assert "'tench'" not in caught.value.message


def test_long_lists_of_ambiguous_labels_are_cut(index: NounIndex) -> None:
    words = ["crane", "mouse", "dog", "cat", "car", "bat", "seal", "ring", "bow", "horn", "key"]
    words += ["trunk", "pipe"]
    with pytest.raises(AmbiguousLabelError, match="and 3 more labels"):
        resolve_labels(map(label, words), index)


def test_first_takes_the_best_with_a_warning(index: NounIndex) -> None:
    resolution = resolve_label(label("crane"), index, on_ambiguous="first")
    assert resolution.synset == index.get("crane.n.04")
    assert resolution.how == "first-choice"
    (warning,) = resolution.warnings
    assert "'crane' is taken as crane.n.04" in warning
    assert "crane.n.05" in warning


def test_aliases_decide(index: NounIndex) -> None:
    resolution = resolve_label(label("dog", "hot dog", "frankfurter"), index)
    assert resolution.synset == index.get("frank.n.02")
    assert resolution.how == "aliases"
    assert resolution.warnings == ()


def test_an_alias_that_is_the_name_decides_nothing(index: NounIndex) -> None:
    with pytest.raises(AmbiguousLabelError):
        resolve_label(label("crane", "Crane"), index)


def test_aliases_stand_in_for_an_unknown_name(index: NounIndex) -> None:
    resolution = resolve_label(label("doggo of the marshes", "wading bird"), index)
    assert resolution.synset == index.get("wading_bird.n.01")


def test_other_labels_are_context(index: NounIndex) -> None:
    birds = [label(n) for n in ("heron", "stork", "flamingo")]
    machines = [label(n) for n in ("bulldozer", "forklift", "derrick")]
    assert names(index, label("crane"), *birds)[0] == "crane.n.05"
    assert names(index, label("crane"), *machines)[0] == "crane.n.04"
    assert names(index, label("mouse"), label("rat"), label("hamster"))[0] == "mouse.n.01"
    desk = [label(n) for n in ("computer keyboard", "modem", "disk drive")]
    assert names(index, label("mouse"), *desk)[0] == "mouse.n.04"


@pytest.mark.parametrize(
    "senses",
    [
        "airplane.n.01 automobile=car.n.01 bird.n.01 cat.n.01 deer.n.01 dog.n.01 frog.n.01 "
        "horse.n.01 ship.n.01 truck.n.01",
        "bicycle.n.01 bird.n.01 boat.n.01 bottle.n.01 bus.n.01 car.n.01 cat.n.01 chair.n.01 "
        "cow.n.01 dog.n.01 horse.n.01 person.n.01 sheep.n.01 sofa.n.01 train.n.01",
        "dog.n.01 cat.n.01 ambulance.n.01 jeep.n.01",
        "apple.n.01 banana=banana.n.02 orange.n.01 pear.n.01 lemon.n.01",
    ],
)
def test_everyday_words_keep_their_everyday_sense(index: NounIndex, senses: str) -> None:
    wanted = dict(
        one.split("=") if "=" in one else (one.split(".")[0], one) for one in senses.split()
    )
    assert names(index, *(label(name) for name in wanted)) == [
        index.get(sense).name for sense in wanted.values()
    ]


def test_context_does_not_make_a_label_certain(index: NounIndex) -> None:
    with pytest.raises(AmbiguousLabelError):
        resolve_labels([label("crane"), label("heron"), label("stork")], index)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("boxer", "boxer.n.04"),  # a dog before the persons
        ("person", "person.n.01"),  # not person.n.02, a body
        ("king", "king.n.01"),
        ("turkey", "turkey.n.01"),  # the bird, not the country
        ("plane", "airplane.n.01"),  # not the mathematical abstraction
        ("men", "man.n.01"),  # not the work force
        ("glasses", "spectacles.n.01"),
    ],
)
def test_first_choices_of_words_that_mislead(index: NounIndex, name: str, expected: str) -> None:
    assert names(index, label(name)) == [expected]


@pytest.mark.parametrize("name", ["pilot", "boxer", "labrador"])
def test_what_the_filters_dropped_keeps_a_label_ambiguous(index: NounIndex, name: str) -> None:
    with pytest.raises(AmbiguousLabelError):
        resolve_label(label(name), index)


def test_unknown_labels_are_named_with_a_way_out(index: NounIndex) -> None:
    with pytest.raises(UnknownLabelError) as caught:
        resolve_labels([label("quadcopter"), label("tench"), label("smart phone")], index)
    assert "'quadcopter', 'smart phone'" in caught.value.message
    assert "attach" in caught.value.hint


def test_the_last_word_of_an_unknown_label_is_offered(index: NounIndex) -> None:
    with pytest.raises(UnknownLabelError, match=r"golden_retriever|retriever\.n\.01"):
        resolve_label(label("moonlight retriever"), index)


def test_attach_hangs_unknown_labels_under_the_root(index: NounIndex) -> None:
    resolution = resolve_label(label("smartphone"), index, on_unknown="attach")
    assert resolution.synset is None
    assert resolution.gloss is None
    assert resolution.how == "attached"
    assert "'smartphone'" in resolution.warnings[0]


def test_an_unknown_pin_is_an_error_even_with_attach(index: NounIndex) -> None:
    with pytest.raises(UnknownLabelError, match=r"crane\.n\.77"):
        resolve_label(label("crane", synset="crane.n.77"), index, on_unknown="attach")


def test_ask_asks_only_about_open_labels(index: NounIndex) -> None:
    asked: list[str] = []

    def choose(one: Label, candidates: tuple[Synset, ...]) -> Synset:
        asked.append(one.name)
        return candidates[-1]

    found = resolve_labels(
        [label("tench"), label("crane")], index, on_ambiguous="ask", choose=choose
    )
    assert asked == ["crane"]
    assert [r.how for r in found] == ["only-sense", "asked"]
    assert found[1].synset == index.get("crane.n.04")  # beside a fish the bird is offered first
    assert found[1].warnings == ()


def test_an_answer_that_was_not_offered_is_refused(index: NounIndex) -> None:
    with pytest.raises(UsageError, match=r"dog\.n\.01 is not a candidate for 'crane'"):
        resolve_label(
            label("crane"), index, on_ambiguous="ask", choose=lambda *_: index.get("dog.n.01")
        )


@pytest.mark.parametrize(
    "policy",
    [{"on_ambiguous": "guess"}, {"on_unknown": "drop"}, {"on_ambiguous": "ask"}],
    ids=lambda p: next(iter(p.values())),
)
def test_policies_are_checked(index: NounIndex, policy: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(policy.values()))):
        resolve_label(label("tench"), index, **policy)  # type: ignore[arg-type]


class TestAccuracyOnImageNet:
    """The numbers in the docstring of ``resolve.py``: names are each sense's first lemma."""

    wnids = tuple(imagenet_table())

    def n_right(self, index: NounIndex, labels: list[Label], *, context: bool) -> int:
        groups = [labels] if context else [[one] for one in labels]
        found = [r for g in groups for r in resolve_labels(g, index, on_ambiguous="first")]
        certain = [
            r.synset is not None and r.synset.wnid == wnid
            for r, wnid in zip(found, self.wnids, strict=True)
            if r.how in ("only-sense", "aliases")
        ]
        assert all(certain)
        assert len(certain) == (864 if labels[0].aliases else 748)
        return sum(
            r.synset is not None and r.synset.wnid == wnid
            for r, wnid in zip(found, self.wnids, strict=True)
        )

    def test_first_sense(self, index: NounIndex) -> None:
        rows = [index.row(wnid) for wnid in self.wnids]
        assert sum(index.sense_rows(index.lemmas(row)[0])[0] == row for row in rows) == 791

    @pytest.mark.parametrize(
        ("aliases", "context", "expected"),
        [(False, False, 850), (False, True, 890), (True, False, 923), (True, True, 940)],
    )
    def test_resolving(self, index: NounIndex, aliases: bool, context: bool, expected: int) -> None:
        lemmas = [index.lemmas(index.row(wnid)) for wnid in self.wnids]
        labels = [
            Label(wnid, words[0], words[0], words[1:] if aliases else ())
            for wnid, words in zip(self.wnids, lemmas, strict=True)
        ]
        assert self.n_right(index, labels, context=context) == expected
