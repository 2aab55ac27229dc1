"""CLIP's vocabulary as a ``tokenizer.json``.

The merges are OpenAI's ``bpe_simple_vocab_16e6.txt.gz``, which ``open_clip`` ships. The result
gives, on text that was cleaned by ``robustzs.tokenizer.cleaning``, the tokens of open_clip's
``SimpleTokenizer``; what that takes is said at each field.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from robustzs.errors import CheckpointFormatError

CLIP_VOCAB_SIZE = 49_408
START_TOKEN = "<start_of_text>"
END_TOKEN = "<end_of_text>"

_N_MERGES = CLIP_VOCAB_SIZE - 2 * 256 - 2
# open_clip compiles its pattern with IGNORECASE. The cases are spelt out here, because Oniguruma's
# own (?i) also equates "st" with a ligature; U+017F is the long s, the one foreign letter that
# folds to a letter of these words. U+0345 folds to a letter without being one: open_clip's pattern
# matches it nowhere and so drops it.
_SPECIAL = (
    "<[sSſ][tT][aA][rR][tT]_[oO][fF]_[tT][eE][xX][tT]>|<[eE][nN][dD]_[oO][fF]_[tT][eE][xX][tT]>"
)
_CONTRACTIONS = "'[sSſ]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_PATTERN = _SPECIAL + "|" + _CONTRACTIONS + r"|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"


def build_clip_tokenizer_json(merges: Path | str) -> str:
    """Write CLIP's tokenizer as JSON for the ``tokenizers`` package.

    Args:
        merges: ``bpe_simple_vocab_16e6.txt.gz``, as in OpenAI's and open_clip's packages.

    Raises:
        CheckpointFormatError: The file cannot be read or is not that list of merges.
    """
    pairs = _read_merges(Path(merges))
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, pairs)]
    words += [START_TOKEN, END_TOKEN]
    vocabulary = {word: index for index, word in enumerate(words)}
    if len(vocabulary) != CLIP_VOCAB_SIZE:
        raise CheckpointFormatError(
            f"{merges} gives {len(vocabulary)} different tokens, CLIP has {CLIP_VOCAB_SIZE}",
            hint="use the bpe_simple_vocab_16e6.txt.gz of the package open_clip_torch",
        )
    return json.dumps(_document(vocabulary, pairs), ensure_ascii=False, separators=(",", ":"))


def _read_merges(path: Path) -> list[tuple[str, str]]:
    hint = "use the bpe_simple_vocab_16e6.txt.gz of the package open_clip_torch"
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CheckpointFormatError(f"merges {path} cannot be read: {error}", hint=hint) from error
    # The first line is a version; the file goes on far beyond what CLIP uses.
    pairs = [line.split() for line in lines[1 : _N_MERGES + 1]]
    if len(pairs) != _N_MERGES or any(len(pair) != 2 for pair in pairs):
        raise CheckpointFormatError(f"{path} does not hold {_N_MERGES} merges", hint=hint)
    return [(left, right) for left, right in pairs]


def _byte_letters() -> list[str]:
    """A visible letter for each byte, in the order of CLIP's (and GPT-2's) vocabulary.

    Bytes that are printable in Latin-1 stand for themselves and come first; the other 68 are
    U+0100 and up.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(others)]


def _document(vocabulary: dict[str, int], pairs: list[tuple[str, str]]) -> dict[str, Any]:
    tokens = {token: vocabulary[token] for token in (START_TOKEN, END_TOKEN)}
    # Without ByteLevel's own regex, which is GPT-2's and would split again.
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    words = {
        "type": "Split",
        "pattern": {"Regex": _PATTERN},
        "behavior": "Removed",
        "invert": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(token, token_id) for token, token_id in tokens.items()],
        # Cleaning lowers the case as Python does; a second lowering here could only add the
        # opinion of another version of Unicode.
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, byte_level]},
        "post_processor": _start_and_end(tokens),
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in pairs],
        },
    }


def _added_token(token: str, token_id: int) -> dict[str, Any]:
    return {
        "id": token_id,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _start_and_end(tokens: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": START_TOKEN, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": END_TOKEN, "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            token: {"id": token, "ids": [token_id], "tokens": [token]}
            for token, token_id in tokens.items()
        },
    }
