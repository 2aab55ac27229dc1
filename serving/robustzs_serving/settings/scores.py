"""How much of the scores a client gets to see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from robustzs.errors import UsageError

_ROUNDED = re.compile(r"rounded:([0-6])", re.ASCII)


@dataclass(frozen=True)
class ScorePolicy:
    """``full``, ``rounded:N`` (N decimals, 0 to 6) or ``withheld``.

    Args:
        kind: what is done to scores.
        decimals: of ``rounded``; otherwise without meaning.
    """

    kind: Literal["full", "rounded", "withheld"] = "full"
    decimals: int = 6

    @classmethod
    @lru_cache(maxsize=8)
    def parse(cls, text: str) -> ScorePolicy:
        """Read what a deployer writes.

        Raises:
            UsageError: it is none of the three.
        """
        if text == "full":
            return cls("full")
        if text == "withheld":
            return cls("withheld")
        if found := _ROUNDED.fullmatch(text):
            return cls("rounded", int(found[1]))
        raise UsageError(
            f"scores are full, rounded:N or withheld, not {text[:40]!r}", hint="such as rounded:2"
        )

    def __str__(self) -> str:
        return f"rounded:{self.decimals}" if self.kind == "rounded" else self.kind
