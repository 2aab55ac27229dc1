"""``tokenizer.json`` for a bundle, from the vocabulary that an open_clip model was trained with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robustzs.bundle.manifest import TokenizerConfig
from robustzs.errors import ExportError, ExportParityError
from robustzs_training.models import with_absolute_paths
from robustzs_training.noise import quiet_libraries

Int64Array = npt.NDArray[np.int64]
Encode = Callable[[list[str]], Int64Array]

CLIP_VOCABULARY = 49408
# Prompts of zero-shot use, and what tokenizers disagree about: case, accents, entities, broken
# encodings, scripts without spaces, digits, apostrophes, emoji, white space, more than fits.
PROBE_TEXTS = (
    "a photo of a tench.",
    "a blurry photo of the Norwegian elkhound, a type of dog",
    "itap of my Café Noir &amp; crème brûlée",
    "the plushie don't they've I'm he'd we'll 's",
    "3.14159 apples, 2,000 pears; and #1 (one)!",
    "  tabs\tand\nnewlines   collapse  ",
    "schÃ¶n â€œquotedâ€\x9d text",
    "犬と猫 собака כלב",
    "🐶 a dog 👩‍👩‍👧",
    "",
    "word " * 120,
)


@dataclass(frozen=True, kw_only=True)
class TokenizerFile:
    """A bundle's tokenizer.

    Attributes:
        config: For ``bundle.json``.
        content: The bytes of ``tokenizer.json``.
        reference: The origin's own tokenizer: texts -> ``[N, context_length]``, padded.
    """

    config: TokenizerConfig
    content: bytes
    reference: Encode


def tokenizer_of(config: Mapping[str, Any]) -> TokenizerFile:
    """Make the tokenizer of an open_clip ``model_cfg``.

    Raises:
        ExportError: bundles know no tokenizer of that kind (SigLIP's, RoBERTa's, ...).
    """
    text = with_absolute_paths(config)["text_cfg"]
    context_length = int(text.get("context_length", 77))
    if text.get("tokenizer_mode") or text.get("tokenizer_kwargs"):
        raise ExportError(
            f"tokenizer_mode {text.get('tokenizer_mode')!r} with {text.get('tokenizer_kwargs')} "
            "has no equivalent in a bundle",
            hint="bundles take CLIP's byte-pair encoding and WordPiece as they are",
        )
    name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if name:
        return wordpiece_tokenizer(name, context_length)
    if text.get("vocab_size", CLIP_VOCABULARY) != CLIP_VOCABULARY:
        raise ExportError(
            f"a vocabulary of {text['vocab_size']} is not CLIP's of {CLIP_VOCABULARY}",
            hint="name the tokenizer in text_cfg.hf_tokenizer_name",
        )
    return clip_tokenizer(context_length)


def clip_tokenizer(context_length: int = 77) -> TokenizerFile:
    """CLIP's byte-pair encoding, from the vocabulary that open_clip ships."""
    from open_clip.tokenizer import SimpleTokenizer

    origin = SimpleTokenizer(context_length=context_length)
    config = TokenizerConfig(
        kind="clip-bpe", context_length=context_length, fixed_length=True, pad_id=0
    )
    document = _clip_document(origin.encoder, origin.bpe_ranks)
    return TokenizerFile(
        config=config, content=_json_bytes(document), reference=lambda texts: origin(texts).numpy()
    )


def wordpiece_tokenizer(name: str, context_length: int) -> TokenizerFile:
    """The WordPiece tokenizer of a Hugging Face text tower.

    Args:
        name: Folder or hub name of the tower.
        context_length: Most tokens per prompt.

    Raises:
        ExportError: it is no WordPiece tokenizer, or cannot be read.
    """
    from open_clip.tokenizer import HFTokenizer

    try:
        with quiet_libraries():
            origin = HFTokenizer(name, context_length=context_length)
        document = json.loads(origin.tokenizer.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError) as error:
        raise ExportError(
            f"the tokenizer {name!r} cannot be read: {error}",
            hint="its folder needs tokenizer.json",
        ) from error
    if document["model"]["type"] != "WordPiece":
        raise ExportError(
            f"the tokenizer {name!r} is of type {document['model']['type']}",
            hint="bundles take CLIP's byte-pair encoding and WordPiece",
        )
    # Length and padding belong to the caller: they are in the bundle's record.
    document["truncation"] = document["padding"] = None
    lowercase = bool((document.get("normalizer") or {}).get("lowercase", False))
    config = TokenizerConfig(
        kind="wordpiece",
        context_length=context_length,
        fixed_length=False,
        pad_id=origin.tokenizer.pad_token_id,
        lowercase=lowercase,
    )

    def reference(texts: list[str]) -> Int64Array:
        ids: Int64Array = origin(texts).numpy()
        return ids

    return TokenizerFile(config=config, content=_json_bytes(document), reference=reference)


def prove_tokenizer(file: TokenizerFile) -> None:
    """Hold the bundle's tokenizer to its origin, token by token, on `PROBE_TEXTS`.

    Raises:
        ExportParityError: they give different tokens for a text.
    """
    from robustzs.tokenizer import Tokenizer

    tokenizer = Tokenizer(file.config, file.content)
    for text in PROBE_TEXTS:
        found, expected = tokenizer([text])[0], file.reference([text])[0]
        length = min(len(found), len(expected))
        rest = np.concatenate([found[length:], expected[length:]])
        if (found[:length] != expected[:length]).any() or (rest != file.config.pad_id).any():
            raise ExportParityError(
                f"the bundle's tokenizer gives other tokens for {text[:60]!r} than the origin's: "
                f"{found[:12].tolist()} instead of {expected[:12].tolist()}"
            )


def _clip_document(
    vocabulary: Mapping[str, int], ranks: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    # Cleaning (ftfy, entities, white space) is the caller's, as in open_clip.
    start, end = "<start_of_text>", "<end_of_text>"
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    merges = [list(pair) for pair in sorted(ranks, key=lambda pair: ranks[pair])]
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(start, vocabulary[start]), _added(end, vocabulary[end])],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, {**byte_level, "use_regex": False}],
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [end, vocabulary[end]],
            "cls": [start, vocabulary[start]],
            "add_prefix_space": False,
            "trim_offsets": False,
        },
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": end,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(vocabulary),
            "merges": merges,
        },
    }


def _added(content: str, token_id: int) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _json_bytes(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
