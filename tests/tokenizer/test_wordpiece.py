"""WordPiece against open_clip's HFTokenizer over MiniLM's vocabulary."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from open_clip.tokenizer import HFTokenizer

from robustzs.labels import LabelSet, get_templates
from tests.tokenizer.helpers import MINILM, SNIPPETS, hostile_texts, padded, wordpiece_tokenizer

OURS = wordpiece_tokenizer()
THEIRS = HFTokenizer(str(MINILM), context_length=77)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile_texts())
def test_hostile_text_has_the_tokens_of_open_clip(text: str) -> None:
    assert padded(OURS([text]), 77).tolist() == THEIRS([text]).tolist()


@pytest.mark.parametrize("strip", [False, True])
def test_snippets_with_and_without_the_separator(strip: bool) -> None:
    ours = wordpiece_tokenizer(context_length=16, strip_sep_token=strip)
    theirs = HFTokenizer(str(MINILM), context_length=16, strip_sep_token=strip)
    texts = [f"a{snippet}b {snippet}" for snippet in SNIPPETS] + ["", "word " * 40]
    assert padded(ours(texts), 16).tolist() == theirs(texts).tolist()


def test_imagenet_prompts() -> None:
    prompts = LabelSet.imagenet1k().prompts
    texts = [text for p in prompts for text in get_templates("openai-7").fill(p)]
    assert padded(OURS(texts), 77).tolist() == THEIRS(texts).tolist()


def test_special_tokens_in_a_text_follow_open_clip() -> None:
    assert OURS.encode_ragged(["dog [SEP] cat"])[0].count(102) == 2
    assert OURS.encode_ragged(["dog [sep] cat"])[0].count(102) == 1
