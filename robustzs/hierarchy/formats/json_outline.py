"""JSON to an outline; unlike ``json.loads`` it knows lines and keeps repeated keys."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from robustzs.errors import HierarchyFormatError, HierarchyLimitError
from robustzs.hierarchy.formats.outline import Mapping, Outline, Scalar, Sequence, checked_scalar

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_LITERAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")


def parse_json(text: str, path: Path, *, max_nesting: int, max_items: int) -> Outline:
    """The outline of ``text``.

    Raises:
        HierarchyFormatError: Not JSON.
        HierarchyLimitError: Nested deeper than ``max_nesting``, or more than ``max_items`` values.
    """
    lines = [match.start() for match in re.finditer("\n", text)]
    parser = _Parser(text, path, lines, max_nesting, max_items)
    value = parser.value(0)
    parser.skip()
    if parser.at < len(text):
        raise parser.error("text after the end")
    return value


@dataclass
class _Parser:
    text: str
    path: Path
    line_ends: list[int]
    max_nesting: int
    n_left: int
    at: int = 0

    def line(self) -> int:
        return bisect_right(self.line_ends, self.at - 1) + 1

    def error(self, message: str) -> HierarchyFormatError:
        return HierarchyFormatError(f"{self.path}:{self.line()}: not JSON: {message}")

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def peek(self) -> str:
        self.skip()
        return self.text[self.at : self.at + 1]

    def expect(self, char: str) -> None:
        if self.peek() != char:
            raise self.error(f"{char!r} expected, found {self.peek()!r}")
        self.at += 1

    def value(self, nesting: int) -> Outline:
        char = self.peek()
        self.n_left -= 1
        if self.n_left < 0:
            raise HierarchyLimitError(f"{self.path}:{self.line()}: too many values")
        if nesting > self.max_nesting:
            raise HierarchyLimitError(
                f"{self.path}:{self.line()}: nested deeper than {self.max_nesting}"
            )
        if char == "{":
            return self.mapping(nesting)
        if char == "[":
            return self.sequence(nesting)
        return self.string() if char == '"' else self.literal()

    def string(self) -> Scalar:
        line = self.line()
        match = _STRING.match(self.text, self.at)
        if match is None:
            raise self.error("a text without its closing quote")
        try:
            decoded = json.loads(match.group())
        except ValueError as error:
            raise self.error(str(error)) from error
        self.at = match.end()
        return checked_scalar(str(decoded), self.path, line)

    def literal(self) -> Scalar:
        line = self.line()
        match = _LITERAL.match(self.text, self.at)
        if match is None:
            raise self.error(f"a value expected, found {self.text[self.at : self.at + 12]!r}")
        self.at = match.end()
        return Scalar(None if match.group() == "null" else match.group(), line)

    def sequence(self, nesting: int) -> Sequence:
        found = Sequence(self.line())
        self.expect("[")
        while self.peek() != "]":
            if found.items:
                self.expect(",")
            found.items.append(self.value(nesting + 1))
        self.expect("]")
        return found

    def mapping(self, nesting: int) -> Mapping:
        found = Mapping(self.line())
        self.expect("{")
        while self.peek() != "}":
            if found.entries:
                self.expect(",")
            if self.peek() != '"':
                raise self.error("a key in double quotes expected")
            key = self.string()
            self.expect(":")
            found.entries.append((key, self.value(nesting + 1)))
        self.expect("}")
        return found
