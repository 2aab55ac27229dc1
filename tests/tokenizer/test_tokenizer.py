"""What holds for every tokenizer: shapes, padding, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustzs.bundle.manifest import TokenizerConfig
from robustzs.bundle.store import Bundle
from robustzs.errors import MissingExtraError, TokenizerFileError, UsageError
from robustzs.tokenizer import Tokenizer
from robustzs.tokenizer.cleaning import clean
from tests.factories import CONTEXT_LENGTH, VOCABULARY
from tests.tokenizer.helpers import CLIP_JSON, MINILM, clip_tokenizer, wordpiece_tokenizer

BOTH = pytest.mark.parametrize("make", [clip_tokenizer, wordpiece_tokenizer])


@BOTH
def test_fixed_length_pads_to_the_context_and_free_length_to_the_longest(make: Any) -> None:
    texts = ["cat", "a photo of a great white shark"]
    fixed = make(fixed_length=True, context_length=20)(texts)
    free = make(fixed_length=False, context_length=20, pad_id=7)(texts)
    ragged = make(context_length=20).encode_ragged(texts)
    assert fixed.dtype == free.dtype == np.int64
    assert fixed.shape == (2, 20)
    assert free.shape == (2, max(map(len, ragged)))
    assert free[0].tolist() == ragged[0] + [7] * (free.shape[1] - len(ragged[0]))
    assert fixed[0, : len(ragged[0])].tolist() == ragged[0]
    assert (fixed[0, len(ragged[0]) :] == 0).all()


@BOTH
def test_no_texts_give_no_rows(make: Any) -> None:
    assert make(fixed_length=True)([]).shape == (0, 77)
    assert make(fixed_length=False)([]).shape == (0, 0)


@BOTH
def test_a_text_does_not_depend_on_its_batch_mates(make: Any) -> None:
    tokenizer = make()
    texts = ["cat", "", "<end_of_text>", "a dog's life " * 40, "Ã©"]
    assert tokenizer.encode_ragged(texts) == [tokenizer.encode_ragged([t])[0] for t in texts]


@BOTH
def test_one_text_instead_of_a_list_is_refused(make: Any) -> None:
    with pytest.raises(UsageError, match="list of texts"):
        make()("cat")
    with pytest.raises(UsageError, match="text 1 is not a text but int"):
        make()(["cat", 3])


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=0x7E, exclude_characters="&")), st.booleans())
def test_the_short_way_for_plain_ascii_changes_nothing(text: str, lowercase: bool) -> None:
    from open_clip.tokenizer import get_clean_fn

    theirs = get_clean_fn("lower" if lowercase else "whitespace")
    assert clean(text, lowercase=lowercase) == theirs(text)


def test_settings_left_in_the_file_do_not_matter() -> None:
    document = json.loads((MINILM / "tokenizer.json").read_bytes())
    assert document["truncation"] or document["padding"], "the file as published has them"
    ragged = wordpiece_tokenizer(context_length=512).encode_ragged(["cat", "word " * 300])
    assert [len(row) for row in ragged] == [3, 302]


def test_a_file_of_another_kind_is_refused() -> None:
    config = TokenizerConfig(kind="clip-bpe", context_length=77, fixed_length=True, pad_id=0)
    with pytest.raises(TokenizerFileError, match="holds a WordPiece model"):
        Tokenizer(config, MINILM / "tokenizer.json")
    with pytest.raises(TokenizerFileError, match="lowercase True"):
        wordpiece_tokenizer(lowercase=False)
    with pytest.raises(TokenizerFileError, match="context of 1 token"):
        clip_tokenizer(context_length=1)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": {"type": "BPE"}}', CLIP_JSON[:-1]]
)
def test_a_damaged_file_is_refused(data: bytes) -> None:
    config = TokenizerConfig(kind="clip-bpe", context_length=77, fixed_length=True, pad_id=0)
    with pytest.raises(TokenizerFileError, match="cannot be read"):
        Tokenizer(config, data)


def test_an_absent_file_and_a_file_without_frame_are_refused(tmp_path: Path) -> None:
    config = TokenizerConfig(kind="clip-bpe", context_length=77, fixed_length=True, pad_id=0)
    with pytest.raises(TokenizerFileError, match="cannot be read"):
        Tokenizer(config, tmp_path / "tokenizer.json")
    document = json.loads(CLIP_JSON) | {"post_processor": None}
    with pytest.raises(TokenizerFileError, match="0 special tokens"):
        Tokenizer(config, json.dumps(document).encode())


def test_a_bundle_brings_its_tokenizer(tiny_bundle: Path) -> None:
    tokenizer = Tokenizer.from_bundle(Bundle.load(tiny_bundle))
    expected = [VOCABULARY.index(word) for word in ("[CLS]", "cat", "[SEP]")]
    assert tokenizer.encode_ragged(["  CAT "]) == [expected]
    assert tokenizer.context_length == CONTEXT_LENGTH


@pytest.mark.parametrize("package", ["tokenizers", "ftfy"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = clip_tokenizer()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*robustzs\[cpu\]"):
        clip_tokenizer() if package == "tokenizers" else ready(["café"])


def test_plain_prompts_need_neither_ftfy_nor_torch(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(CLIP_JSON)
    code = """
import sys
from pathlib import Path
from robustzs.bundle.manifest import TokenizerConfig
from robustzs.tokenizer import Tokenizer
config = TokenizerConfig(kind="clip-bpe", context_length=77, fixed_length=True, pad_id=0)
token_ids = Tokenizer(config, Path(sys.argv[1]))(["a photo of a cat."])
assert token_ids[0, :4].tolist() == [49406, 320, 1125, 539], token_ids
print(sorted({"ftfy", "torch", "transformers", "onnxruntime"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "tokenizer.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
