"""Whether captions fit into what a text tower reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.tokenizer import Tokenizer

CLIP = "clip"
_CLIP_CONTEXT = 77
_NO_LIMIT = 1_000_000

CountTokens = Callable[[str], int]


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """Captions of which a text tower reads only the beginning.

    Attributes:
        tower: Whose.
        context: Tokens that it reads.
        count: How many captions are longer.
        longest: Tokens of the longest one.
        key: Its image.
    """

    tower: str
    context: int
    count: int
    longest: int
    key: str


def count_overlong(captions: Iterable[tuple[str, str]], tower: str = CLIP) -> Overlong:
    """Count captions that a tower cuts.

    Args:
        captions: Keys and captions.
        tower: ``clip`` for CLIP's tokens and 77 of them, or a bundle.

    Raises:
        ModelNotFoundError: There is no such bundle.
    """
    count_tokens, context = _counter(tower)
    count, longest, longest_key = 0, 0, ""
    for key, caption in captions:
        n_tokens = count_tokens(caption)
        count += n_tokens > context
        if n_tokens > longest:
            longest, longest_key = n_tokens, key
    return Overlong(tower=tower, context=context, count=count, longest=longest, key=longest_key)


def _counter(tower: str) -> tuple[CountTokens, int]:
    if tower == CLIP:
        from open_clip import SimpleTokenizer

        clip = SimpleTokenizer()
        return lambda text: len(clip.encode(text)) + 2, _CLIP_CONTEXT
    bundle = Bundle.load(resolve_model(tower))
    config = bundle.manifest.tokenizer
    whole = config.model_copy(update={"context_length": _NO_LIMIT, "fixed_length": False})
    tokenizer = Tokenizer(whole, bundle.file("tokenizer.json"))
    return lambda text: len(tokenizer.encode_ragged([text])[0]), config.context_length
