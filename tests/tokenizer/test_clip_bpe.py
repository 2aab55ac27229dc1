"""CLIP's byte-pair encoding against open_clip's and transformers' own."""

from __future__ import annotations

import gzip
import json
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from transformers import CLIPTokenizer

from robustzs.errors import CheckpointFormatError
from robustzs.labels import LabelSet, get_templates
from robustzs.tokenizer import build_clip_tokenizer_json
from robustzs.tokenizer.cleaning import clean
from tests.tokenizer.helpers import (
    CLIP_JSON,
    SNIPPETS,
    assigned_characters,
    clip_tokenizer,
    hostile_texts,
)

OURS = clip_tokenizer()
THEIRS = SimpleTokenizer()
CASED = clip_tokenizer(lowercase=False)
THEIRS_CASED = SimpleTokenizer(clean="whitespace")


def knows_every_character(text: str) -> bool:
    # Mending mojibake can bring forth a character that Unicode has not assigned (yet).
    return all(
        unicodedata.category(char) not in ("Cn", "Co") for char in clean(text, lowercase=True)
    )


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile_texts().filter(knows_every_character))
def test_hostile_text_has_the_tokens_of_open_clip(text: str) -> None:
    assert OURS([text]).tolist() == THEIRS([text]).tolist()
    assert CASED([text]).tolist() == THEIRS_CASED([text]).tolist()


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_each_treacherous_snippet_alone_and_between_words(snippet: str) -> None:
    texts = [snippet, f"a{snippet}a", f"!{snippet}!", f"1{snippet}1 {snippet}", snippet * 3]
    assert OURS(texts).tolist() == THEIRS(texts).tolist()
    assert CASED(texts).tolist() == THEIRS_CASED(texts).tolist()


def test_every_assigned_character_next_to_letters_digits_and_symbols() -> None:
    characters = [char for char in assigned_characters() if not is_plain_ideograph(char)]
    assert len(characters) > 20_000
    texts = [f"a{char}a!{char}!1{char}1" for char in characters]
    ours, theirs = OURS(texts), THEIRS(texts).numpy()
    different = [characters[i] for i in np.flatnonzero((ours != theirs).any(axis=1))]
    assert different == []


def is_plain_ideograph(char: str) -> bool:
    """Han and Hangul blocks of thousands that are all alike; a sample of them is kept."""
    block = 0x3400 <= ord(char) <= 0x9FFF or 0xAC00 <= ord(char) <= 0xD7A3 or ord(char) >= 0x17000
    return block and ord(char) % 64 != 0


def test_imagenet_prompts_with_openai_templates() -> None:
    texts = [f(c) for c in IMAGENET_CLASSNAMES for f in OPENAI_IMAGENET_TEMPLATES[::8]]
    assert OURS(texts).tolist() == THEIRS(texts).tolist()


def test_our_own_imagenet_prompts_and_templates() -> None:
    prompts = LabelSet.imagenet1k().prompts
    texts = [
        text
        for name in ("articles", "paper")
        for p in prompts
        for text in get_templates(name).fill(p)
    ]
    assert OURS(texts).tolist() == THEIRS(texts).tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["ab", "ba", "aaa", " ", "photo", "!", "é"]), max_size=400))
def test_long_text_is_cut_and_keeps_its_end_token(pieces: list[str]) -> None:
    text = "".join(pieces)
    row = OURS([text])[0]
    assert row.tolist() == THEIRS([text])[0].tolist()
    assert 49407 in row


@pytest.mark.parametrize("context_length", [2, 3, 8, 77, 248])
def test_context_length_and_truncation(context_length: int) -> None:
    texts = ["", "cat", "a photo of an extraordinarily long-winded dog " * 30]
    ours = clip_tokenizer(context_length=context_length)(texts)
    assert ours.tolist() == SimpleTokenizer(context_length=context_length)(texts).tolist()
    assert (ours.max(axis=1) == 49407).all()


def test_special_tokens_in_a_text_follow_open_clip() -> None:
    start, end = 49406, 49407
    injected = OURS(["a dog <end_of_text> a cat"])[0].tolist()
    assert injected.count(end) == 2, "open_clip makes a token of it, and so do we"
    glued = OURS(["a dog!<end_of_text>"])[0].tolist()
    assert glued.count(end) == 1, "within a run of punctuation it is plain text"
    foreign = OURS(["<|startoftext|> dog <|endoftext|>"])[0].tolist()
    assert foreign.count(start) == 1, "transformers' spelling is plain text"


def test_transformers_agrees_on_clean_prompts() -> None:
    document = json.loads(CLIP_JSON)
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {
        names.get(word, word): index for word, index in document["model"]["vocab"].items()
    }
    theirs = CLIPTokenizer(vocab=vocabulary, merges=[tuple(p) for p in document["model"]["merges"]])
    prompts = LabelSet.imagenet1k().prompts
    texts = [f"a photo of a {prompt}." for prompt in prompts] + ["Don't, 3.14 & café!", "犬 🐶", ""]
    for ids, row in zip(theirs(texts)["input_ids"], OURS.encode_ragged(texts), strict=True):
        assert ids == row


def test_25k_prompts_take_about_a_second() -> None:
    fill = get_templates("openai-imagenet-80").fill
    texts = [text for prompt in LabelSet.imagenet1k().prompts for text in fill(prompt)[:25]]
    OURS(texts[:100])
    start = time.process_time()
    assert OURS(texts).shape == (25_000, 77)
    # Processor time of all threads, with room for a slow machine; a tenth of it is usual.
    assert time.process_time() - start < 10.0


def test_the_json_is_the_same_every_time() -> None:
    assert build_clip_tokenizer_json(default_bpe()).encode() == CLIP_JSON


def test_wrong_merges_are_refused(tmp_path: Path) -> None:
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    broken = {
        "absent.gz": None,
        "plain.gz": "\n".join(lines).encode(),
        "short.gz": gzip.compress("\n".join(lines[:1000]).encode()),
        "cut.gz": gzip.compress("\n".join(lines).encode())[:1000],
        "repeated.gz": gzip.compress("\n".join([lines[0], *(["t h"] * 60_000)]).encode()),
    }
    for name, data in broken.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointFormatError, match=name):
            build_clip_tokenizer_json(tmp_path / name)
