"""Captions from glosses: what people read, how long it gets, and that it is always the same."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustzs_training.captions.gloss import MAX_WORDS, gloss_caption, gloss_parts, with_own_article

from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels.label import Label
from robustzs.labels.label_set import LabelSet

INDEX = NounIndex.load()
CLASSES = LabelSet.imagenet1k()


def _label(name: str, synset: str | None) -> Label:
    return Label(id=name, name=name, prompt=name, synset=synset)


@pytest.mark.parametrize(
    ("name", "synset", "caption"),
    [
        (
            "tabby cat",
            "n02123045",
            "a photo of a tabby cat, a kind of domestic cat with a grey or tawny coat mottled "
            "with black",
        ),
        (
            "wallaby",
            "wallaby.n.01",
            "a photo of a wallaby, one of various small or medium-sized kangaroos; often brightly "
            "colored",
        ),
        # The kind is told where the gloss does not name it.
        (
            "Keeshond",
            "keeshond.n.01",
            "a photo of a Keeshond, a spitz-like dog having a shaggy greyish coat and tightly "
            "curled tail originating in Holland",
        ),
        (
            "castle",
            "castle.n.02",
            "a photo of a castle, a kind of fortification, a large building formerly occupied by "
            "a ruler and fortified against attack",
        ),
        # A plural head gets no article, a remark in parentheses goes.
        (
            "goose",
            "goose.n.01",
            "a photo of a goose, a kind of anseriform bird, web-footed long-necked typically "
            "gregarious migratory aquatic birds usually larger and less aquatic than ducks",
        ),
        (
            "bobsleigh",
            "bobsled.n.02",
            "a photo of a bobsleigh, a long racing sled with a steering mechanism",
        ),
        ("blorb", None, "a photo of a blorb"),
    ],
)
def test_what_people_read(name: str, synset: str | None, caption: str) -> None:
    assert gloss_caption(_label(name, synset), INDEX) == caption


def test_names_only_says_nothing_of_looks() -> None:
    captions = [gloss_caption(label, INDEX, properties=False) for label in CLASSES]
    assert captions[281] == "a photo of a tabby cat"
    for label, caption in zip(CLASSES, captions, strict=True):
        assert caption.endswith(label.prompt)


def test_every_class_of_imagenet_reads_like_a_caption() -> None:
    captions = [gloss_caption(label, INDEX) for label in CLASSES]
    for label, caption in zip(CLASSES, captions, strict=True):
        assert label.prompt in caption
        assert len(caption.split()) <= MAX_WORDS
        rest = caption.replace(label.prompt, "it")
        assert not re.search(r"""[()`"]|\w\s[,;:.]|[,;:]$|\b(a|an|the) \1\b""", rest), caption
    longer = sum(
        len(c) > len(label.prompt) + 15 for c, label in zip(captions, CLASSES, strict=True)
    )
    assert longer == len(CLASSES), "every class has properties"
    assert len(set(captions)) > 990


@given(st.integers(0, len(INDEX) - 1), st.integers(8, 60), st.one_of(st.none(), st.text()))
def test_any_noun_of_wordnet_keeps_within_its_words(row: int, most: int, seed: str | None) -> None:
    label = _label("thing", INDEX.wnid(row))
    caption = gloss_caption(label, INDEX, max_words=most, seed=seed)
    assert caption == gloss_caption(label, INDEX, max_words=most, seed=seed)
    assert len(caption.split()) <= most
    assert caption.split()[-1] not in {"a", "of", "with", "the"}
    assert "thing" in caption
    assert caption == caption.strip()
    assert not set(caption) & set('()`"\n\t')


@given(st.text())
def test_any_gloss_can_be_taken_apart(gloss: str) -> None:
    for part in gloss_parts(gloss):
        assert part == " ".join(part.split())
        assert ";" not in part
        assert with_own_article(part).endswith(part)


def test_seeds_choose_openings() -> None:
    tabby = CLASSES[281]
    openings = {gloss_caption(tabby, INDEX, properties=False, seed=str(n)) for n in range(40)}
    assert len(openings) == 4


def test_torch_is_not_needed() -> None:
    code = "import sys; import robustzs_training.captions.gloss; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
