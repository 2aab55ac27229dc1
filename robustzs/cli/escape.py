"""Making untrusted text safe to show: file names and labels come from anywhere.

A terminal obeys control sequences, a spreadsheet evaluates formulas, and both reorder text at the
word of a bidirectional override. Nothing that robustzs prints hands such characters on.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

# Cc control, Cf format (bidi overrides, zero-width), Cs lone surrogates (undecodable file names),
# Zl/Zp line and paragraph separators, Co/Cn private and unassigned.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"})
# U+200D joins emoji and is needed by several scripts; it moves nothing on the screen.
_HARMLESS = frozenset({"\u200d"})
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r", "\n")
_PLAIN_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def _is_unsafe(character: str) -> bool:
    return character not in _HARMLESS and unicodedata.category(character) in _UNSAFE_CATEGORIES


def terminal_safe(text: str) -> str:
    r"""Replace characters that a terminal obeys or hides by ``\xNN`` / ``\uNNNN`` escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape", "backslashreplace").decode("ascii")
        if _is_unsafe(character)
        else character
        for character in text
    )


def csv_safe(value: str | float | bool | None) -> str | float | bool:
    """Guard a CSV cell against being taken for a formula: a leading ``'`` before ``= + - @``.

    Numbers stay numbers; ``None`` becomes an empty cell.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = terminal_safe(value)
    if text.lstrip(" ").startswith(_FORMULA_START) and not _PLAIN_NUMBER.fullmatch(text):
        return "'" + text
    return text


def json_safe(value: Any, *, indent: int | None = None) -> str:
    r"""JSON in readable UTF-8, with every unsafe character as a ``\uNNNN`` escape.

    Raises:
        ValueError: for NaN or an infinity, which JSON has not.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        _json_escape(character) if character != "\n" and _is_unsafe(character) else character
        for character in text
    )


def _json_escape(character: str) -> str:
    # json.dumps leaves DEL as it is, hence the first branch.
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else json.dumps(character)[1:-1]
