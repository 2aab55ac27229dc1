"""Label sets from names: ids, duplicates, digests."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustzs.errors import DuplicateLabelError, LabelError, LabelFileError
from robustzs.labels import Label, LabelSet
from robustzs.labels.rules import MAX_LABELS, same_text_key


def test_a_name_is_its_own_prompt_and_gives_a_slug() -> None:
    cat, wheel = LabelSet.from_names([" cat ", "Potter's  Wheel"])
    assert cat == Label("cat", "cat", "cat", (), None)
    assert wheel == Label("potters-wheel", "Potter's  Wheel", "Potter's  Wheel", (), None)


def test_a_wnid_of_imagenet_brings_its_name_and_prompt() -> None:
    (crane,) = LabelSet.from_names(["n02012849"])
    assert (crane.id, crane.synset) == ("n02012849", "n02012849")
    assert crane.name != crane.id
    assert crane == next(label for label in LabelSet.imagenet1k() if label.id == crane.id)


def test_a_wnid_elsewhere_and_a_sense_are_synsets() -> None:
    elsewhere, cream = LabelSet.from_names(["n00007846", "ice_cream.n.01"])
    assert elsewhere == Label("n00007846", "n00007846", "n00007846", (), "n00007846")
    assert cream == Label("ice-cream", "ice cream", "ice cream", (), "ice_cream.n.01")


def test_imagenet_is_complete_and_in_class_order() -> None:
    labels = LabelSet.imagenet1k()
    assert len(labels) == 1000
    assert (labels[0].id, labels[0].name) == ("n01440764", "tench")
    assert labels.ids == tuple(sorted(labels.ids))
    assert all(label.synset == label.id for label in labels)
    assert LabelSet.from_names(labels.ids) == labels


def test_colliding_slugs_get_digests_whatever_the_order() -> None:
    names = ["C++", "C#", "hot dog", "hot-dog", "🦊", "cat"]
    forward, backward = LabelSet.from_names(names), LabelSet.from_names(names[::-1])
    assert len(set(forward.ids)) == len(names)
    assert dict(zip(forward.names, forward.ids, strict=True)) == dict(
        zip(backward.names, backward.ids, strict=True)
    )
    assert forward.ids[0].startswith("c-")
    assert forward.ids[4].startswith("label-")
    assert forward.ids[5] == "cat"


@pytest.mark.parametrize(
    ("name", "label_id"),
    [
        ("कुत्ता", "कुत्ता"),
        ("Große Straße", "grosse-strasse"),
        ("e\u0301toile", "étoile"),
        ("犬", "犬"),
        ("swim trunks / shorts", "swim-trunks-shorts"),
        ("../../etc/passwd", "etc-passwd"),
        ("=cmd|' /C calc'!A0", "cmd-c-calc-a0"),
    ],
)
def test_slugs_keep_letters_of_every_script(name: str, label_id: str) -> None:
    assert LabelSet.from_names([name]).ids == (label_id,)


NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=20)


@given(st.lists(NAMES.filter(str.strip), min_size=1, max_size=30, unique_by=same_text_key))
def test_any_distinct_names_give_distinct_stable_ids(names: list[str]) -> None:
    try:
        labels = LabelSet.from_names(names)
    except DuplicateLabelError:
        # Only a wnid or a sense can still coincide with another name.
        assert any(name.strip()[-1:].isdigit() for name in names)
        return
    assert len(set(labels.ids)) == len(names)
    assert all(
        unicodedata.is_normalized("NFC", each) and each.split() == [each] for each in labels.ids
    )
    assert set(LabelSet.from_names(names[::-1]).ids) == set(labels.ids)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cat", "dog", "cat"], "label 1 and label 3 have the same name 'cat'"),
        (["cat", "Cat"], "label 1 and label 2 have the same name 'Cat'"),
        (["hot  dog", "Hot dog"], "label 1 and label 2"),
        (["caf\u00e9", "cafe\u0301"], "label 1 and label 2"),
        (["STRASSE", "straße"], "label 1 and label 2"),
        (["n02012849", "n02012849"], "label 1 and label 2"),
        (["crane.n.04", "crane.n.05"], "the same prompt 'crane'"),
    ],
)
def test_duplicates_name_both_places(names: list[str], words: str) -> None:
    with pytest.raises(DuplicateLabelError, match=words):
        LabelSet.from_names(names)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "the name is empty"),
        (" \u3000 ", "the name is empty"),
        ("a\x00b", r"control character U\+0000 at character 2"),
        ("a\nb", r"U\+000A"),
        ("a\tb", r"U\+0009"),
        ("\x1b[31mred", r"U\+001B"),
        ("a\x85b", r"U\+0085"),
        ("a\u2028b", r"U\+2028"),
        ("a\ud800", r"lone surrogate U\+D800"),
        ("x" * 513, "513 characters, the limit is 512"),
    ],
)
def test_unfit_names_are_refused(name: str, words: str) -> None:
    with pytest.raises(LabelError, match=words):
        LabelSet.from_names(["cat", name])


def test_all_problems_come_at_once() -> None:
    with pytest.raises(LabelError) as caught:
        LabelSet.from_names(["cat", "", "a\x00", "cat", "x" * 600])
    assert len(caught.value.problems) == 4
    assert type(caught.value) is LabelError
    with pytest.raises(LabelError, match="and 980 more") as caught:
        LabelSet.from_names([""] * 1000)
    assert len(caught.value.problems) == 1000


def test_limits_and_misuse() -> None:
    with pytest.raises(LabelError, match="no label"):
        LabelSet.from_names([])
    with pytest.raises(LabelError, match="at least one"):
        LabelSet(())
    with pytest.raises(LabelError, match="not a list of names"):
        LabelSet.from_names("cat")
    with pytest.raises(LabelError, match=f"{MAX_LABELS + 1} labels, the limit"):
        LabelSet.from_names([f"label {i}" for i in range(MAX_LABELS + 1)])
    with pytest.raises(DuplicateLabelError, match="'a' occurs twice"):
        LabelSet((Label("a", "x", "x"), Label("a", "y", "y")))


def test_labels_built_by_code_may_share_names() -> None:
    labels = LabelSet((Label("a", "crane", "crane"), Label("b", "crane", "crane")))
    assert labels.names == ("crane", "crane")
    assert labels.index("b") == 1
    with pytest.raises(LabelError, match="no label has the id 'c'"):
        labels.index("c")


def test_the_digest_covers_every_field_and_the_order() -> None:
    base = Label("a", "cat", "cat")
    variants = [
        (base,),
        (Label("b", "cat", "cat"),),
        (Label("a", "dog", "cat"),),
        (Label("a", "cat", "dog"),),
        (Label("a", "cat", "cat", ("kitty",)),),
        (Label("a", "cat", "cat", (), "cat.n.01"),),
        (base, Label("b", "dog", "dog")),
        (Label("b", "dog", "dog"), base),
    ]
    assert len({LabelSet(labels).digest for labels in variants}) == len(variants)
    assert LabelSet((base,)).digest == LabelSet((Label("a", "cat", "cat"),)).digest


def test_the_digest_does_not_depend_on_the_hash_seed() -> None:
    code = "from robustzs.labels import LabelSet; print(LabelSet.imagenet1k().digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for seed in ("0", "1")
    }
    assert digests == {LabelSet.imagenet1k().digest + "\n"}


def test_parse_takes_names_with_csv_quotes() -> None:
    assert LabelSet.parse("cat, dog ,hot dog,").names == ("cat", "dog", "hot dog")
    assert LabelSet.parse('"salt, sea",pepper, "6"" nail"').names == (
        "salt, sea",
        "pepper",
        '6" nail',
    )
    assert LabelSet.parse("dog's nose").names == ("dog's nose",)
    assert LabelSet.parse("x" * 300 + "," + "y" * 300).names == ("x" * 300, "y" * 300)


def test_parse_refuses_a_path_to_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # as `--labels <(command)` gives
    for path in (tmp_path / "pipe", tmp_path, Path(os.devnull)):
        with pytest.raises(LabelFileError, match="not a regular file"):
            LabelSet.parse(str(path))


def test_parse_prefers_an_existing_file_and_quotes_undo_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pets").write_text("cat\ndog\n")
    Path("birds").mkdir()
    assert LabelSet.parse("pets").names == ("cat", "dog")
    assert LabelSet.parse('"pets"').names == ("pets",)
    assert LabelSet.parse("birds").names == ("birds",), "a folder is no label file"
    with pytest.raises(LabelFileError, match=r"pet\.txt does not exist"):
        LabelSet.parse("pet.txt")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "no label"),
        ("  ", "no label"),
        ("cat,,dog", "label 2: the name is empty"),
        ("cat\ndog", "one line"),
        ('"cat', "cannot read the labels"),
        ('"cat"s,dog', "cannot read the labels"),
        ("a\x00b", r"U\+0000"),
    ],
)
def test_parse_refuses(spec: str, words: str) -> None:
    with pytest.raises(LabelError, match=words):
        LabelSet.parse(spec)
