"""``If-Match`` and ``If-None-Match`` (RFC 9110, sections 13.1.1 and 13.1.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from robustzs.errors import UsageError
from robustzs_serving.stored.errors import PreconditionError

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS = re.compile(rf"\s*{_TAG}\s*(?:,\s*{_TAG}\s*)*")
_ONE = re.compile(_TAG)
_MAX_CHARACTERS = 2_000


@dataclass(frozen=True)
class Preconditions:
    """What a client says that it knows of a resource.

    Args:
        match: entity tags of ``If-Match``, ``("*",)`` for any, ``None`` where it is not given.
        none_match: likewise of ``If-None-Match``.
    """

    match: tuple[str, ...] | None = None
    none_match: tuple[str, ...] | None = None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Preconditions:
        """Read both headers.

        Raises:
            UsageError: one is neither ``*`` nor a list of entity tags.
        """
        return cls(_tags(headers, "if-match"), _tags(headers, "if-none-match"))

    def check(self, etag: str | None) -> None:
        """Let a write through, or not.

        Args:
            etag: of what is there; ``None`` where nothing is.

        Raises:
            PreconditionError: it is not what the client knows.
        """
        if self.match is not None and not _has(self.match, etag, weak=False):
            now = "there is nothing" if etag is None else f"it is {etag} now"
            raise PreconditionError(
                f"If-Match does not hold: {now}", hint="get it again before you change it"
            )
        if self.none_match is not None and _has(self.none_match, etag, weak=True):
            raise PreconditionError(
                "If-None-Match does not hold: there is one already",
                hint="choose another id, or leave the header out to replace it",
            )

    def is_known(self, etag: str) -> bool:
        """Whether a reader has this version already, so that 304 is the answer."""
        return self.none_match is not None and _has(self.none_match, etag, weak=True)


def _tags(headers: Mapping[str, str], name: str) -> tuple[str, ...] | None:
    text = headers.get(name)
    if text is None:
        return None
    if text.strip() == "*":
        return ("*",)
    if len(text) > _MAX_CHARACTERS or _TAGS.fullmatch(text) is None:
        raise UsageError(
            f"the header {name} is neither * nor a list of entity tags",
            hint='send the ETag of an earlier answer, quotes included: "0123abcd"',
        )
    return tuple(_ONE.findall(text))


def _has(tags: tuple[str, ...], etag: str | None, *, weak: bool) -> bool:
    if etag is None:
        return False
    if tags == ("*",):
        return True
    return etag in (tag.removeprefix("W/") if weak else tag for tag in tags)
