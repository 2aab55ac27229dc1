"""``tokenizer.json`` for a bundle, from the vocabulary that an open_clip model was trained with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from robustzs.bundle.manifest import TokenizerConfig
from robustzs.errors import ExportError, ExportParityError
from robustzs.tokenizer import Tokenizer, build_clip_tokenizer_json
from robustzs.tokenizer.clip_vocabulary import CLIP_VOCAB_SIZE
from robustzs_training.models import with_absolute_paths
from robustzs_training.noise import quiet_libraries

Int64Array = npt.NDArray[np.int64]
Encode = Callable[[list[str]], Int64Array]

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
    arguments = dict(text.get("tokenizer_kwargs") or {})
    strip_sep_token = bool(arguments.pop("strip_sep_token", False))
    if text.get("tokenizer_mode") or arguments:
        raise ExportError(
            f"a tokenizer with mode {text.get('tokenizer_mode')!r} and {arguments} has no "
            "equivalent in a bundle",
            hint="bundles take CLIP's byte-pair encoding and WordPiece as they are",
        )
    name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if name:
        return wordpiece_tokenizer(
            name,
            context_length,
            fixed_length="hf_model_name" not in text,
            strip_sep_token=strip_sep_token,
        )
    if text.get("vocab_size", CLIP_VOCAB_SIZE) != CLIP_VOCAB_SIZE:
        raise ExportError(
            f"a vocabulary of {text['vocab_size']} is not CLIP's of {CLIP_VOCAB_SIZE}",
            hint="name the tokenizer in text_cfg.hf_tokenizer_name",
        )
    return clip_tokenizer(context_length)


@cache
def clip_tokenizer(context_length: int = 77) -> TokenizerFile:
    """CLIP's byte-pair encoding, from the vocabulary that open_clip ships."""
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    origin = SimpleTokenizer(context_length=context_length)
    config = TokenizerConfig(
        kind="clip-bpe", context_length=context_length, fixed_length=True, pad_id=0
    )
    content = build_clip_tokenizer_json(default_bpe()).encode()
    return TokenizerFile(config=config, content=content, reference=_numpy(origin))


def wordpiece_tokenizer(
    name: str, context_length: int, *, fixed_length: bool = False, strip_sep_token: bool = False
) -> TokenizerFile:
    """The WordPiece tokenizer of a Hugging Face text tower.

    Args:
        name: Folder or hub name of the tower.
        context_length: Most tokens per prompt.
        fixed_length: Whether the text tower takes exactly so many.
        strip_sep_token: As in open_clip's ``tokenizer_kwargs``.

    Raises:
        ExportError: it is no WordPiece tokenizer, or cannot be read.
    """
    from open_clip.tokenizer import HFTokenizer

    try:
        with quiet_libraries():
            origin = HFTokenizer(
                name, context_length=context_length, strip_sep_token=strip_sep_token
            )
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
    # Length and padding belong to the bundle's record.
    document["truncation"] = document["padding"] = None
    config = TokenizerConfig(
        kind="wordpiece",
        context_length=context_length,
        fixed_length=fixed_length,
        pad_id=origin.tokenizer.pad_token_id,
        lowercase=bool((document.get("normalizer") or {}).get("lowercase", False)),
        strip_sep_token=strip_sep_token,
    )
    content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return TokenizerFile(config=config, content=content, reference=_numpy(origin))


def _numpy(origin: Callable[[list[str]], Any]) -> Encode:
    def reference(texts: list[str]) -> Int64Array:
        ids: Int64Array = origin(texts).numpy().astype(np.int64)
        return ids

    return reference


def prove_tokenizer(file: TokenizerFile) -> None:
    """Hold the bundle's tokenizer to its origin, token by token, on `PROBE_TEXTS`.

    Raises:
        ExportParityError: they give different tokens for a text.
    """
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
