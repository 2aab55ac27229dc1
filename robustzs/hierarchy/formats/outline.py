"""What YAML and JSON have in common here: mappings, sequences and text, each with its line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from robustzs.errors import HierarchyFormatError

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Scalar:
    """Text as written; ``None`` for an empty value or ``null``.

    Nothing is converted: ``no`` is a country, ``1e3`` a product and ``2024-01-01`` a name.
    """

    text: str | None
    line: int


@dataclass(frozen=True)
class Sequence:
    """Items in order."""

    line: int
    items: list[Outline] = field(default_factory=list)


@dataclass(frozen=True)
class Mapping:
    """Keys and values in order; keys are not yet known to be distinct."""

    line: int
    entries: list[tuple[Scalar, Outline]] = field(default_factory=list)

    def get(self, key: str) -> Outline | None:
        """The first value under ``key``."""
        return next((value for name, value in self.entries if name.text == key), None)


Outline = Scalar | Sequence | Mapping


def checked_scalar(text: str | None, path: Path, line: int) -> Scalar:
    """A scalar, unless an escape smuggled half a character into it.

    Raises:
        HierarchyFormatError: A lone surrogate, which no file or terminal can show.
    """
    if text is not None and (found := _SURROGATE.search(text)):
        raise HierarchyFormatError(f"{path}:{line}: lone surrogate U+{ord(found.group()):04X}")
    return Scalar(text, line)
