"""What is wrong with data: counted, named, and a reason to stop when it is too much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robustzs.errors import TooManyBadSamplesError, TrainingStateError
from robustzs_training.data.base import Finding, TroubleKind

ALWAYS_ALLOWED = 5
"""So many unusable samples never stop a run, unless the limit is 0."""
_MAX_KNOWN = 10_000
_NAMED_IN_ERRORS = 5
_KINDS: dict[TroubleKind, tuple[str, str]] = {
    "unreadable-image": ("images that cannot be read", "repair or remove them"),
    "missing-caption": ("images without a caption", "caption them with `robustzs caption`"),
    "missing-label": (
        "examples without a label, or with one that is none of the classes",
        "label them, or correct the list of classes",
    ),
    "unresolved-name": (
        "class names that WordNet lacks",
        "rename the folders, pin a sense (a wnid such as n02084071), or give a hierarchy file",
    ),
}


@dataclass
class _Tally:
    count: int = 0
    total: int | None = None  # of how many, when all were looked at before the run
    reasons: dict[str, str] = field(default_factory=dict)


class Trouble:
    """Counts what cannot be used and stops the run when it is more than the limit.

    A sample counts once, however often it is met (exactly so for the first 10,000). While a run
    goes on, the share is judged with the benefit of the doubt that a random part of the data
    deserves: a handful and four standard deviations, which shrink to nothing until all were seen.

    Args:
        max_bad_fraction: The limit of each kind, in [0, 1].
        n_named: How many of each kind are named in reports.
    """

    def __init__(self, max_bad_fraction: float = 0.01, *, n_named: int = 20) -> None:
        self.max_bad_fraction = max_bad_fraction
        self.n_named = n_named
        self._n_samples: int | None = None
        self._n_seen = 0
        self._tallies: dict[TroubleKind, _Tally] = {}

    def expect(self, n_samples: int) -> None:
        """Say how many samples there are, so that later epochs are not counted as further ones."""
        self._n_samples = n_samples

    def saw(self, n: int) -> None:
        """Count ``n`` samples that were looked at, good or bad."""
        self._n_seen += n

    def add(self, kind: TroubleKind, key: str, reason: str = "") -> None:
        """Count one bad sample; :meth:`check` decides whether it is one too many."""
        tally = self._tallies.setdefault(kind, _Tally())
        key = _printable(key)
        if key in tally.reasons:
            return
        tally.count += 1
        if len(tally.reasons) < _MAX_KNOWN:
            tally.reasons[key] = reason

    def found(self, finding: Finding) -> None:
        """Take what a source knows about all of its samples, and check it.

        Raises:
            TooManyBadSamplesError: It is more than the limit.
        """
        self._tallies[finding.kind] = _Tally(
            finding.count, finding.total, {_printable(key): "" for key in finding.first}
        )
        self.check()

    def check(self) -> None:
        """Stop the run if something is wrong too often.

        Raises:
            TooManyBadSamplesError: Naming the first samples and why they are bad.
        """
        for kind, tally in self._tallies.items():
            total = tally.total if tally.total is not None else self._n_distinct
            allowed = self._allowed(tally)
            if tally.count > allowed:
                what, remedy = _KINDS[kind]
                raise TooManyBadSamplesError(
                    f"{tally.count} of {total} are {what}, "
                    f"more than max_bad_fraction={self.max_bad_fraction:g} allows: "
                    f"{self._named(tally)}",
                    hint=f"{remedy}; or raise data.max_bad_fraction",
                )

    def _allowed(self, tally: _Tally) -> float:
        limit = self.max_bad_fraction
        if tally.total is not None:
            return limit * tally.total
        if limit == 0.0:
            return 0.0
        seen = self._n_distinct
        unseen = 1.0 - seen / self._n_samples if self._n_samples else 1.0
        doubt = ALWAYS_ALLOWED + 4.0 * math.sqrt(limit * (1.0 - limit) * seen)
        return max(ALWAYS_ALLOWED, limit * seen + doubt * math.sqrt(unseen))

    @property
    def _n_distinct(self) -> int:
        return self._n_seen if self._n_samples is None else min(self._n_seen, self._n_samples)

    def _named(self, tally: _Tally) -> str:
        shown = [
            f"{key} ({reason})" if reason else key
            for key, reason in list(tally.reasons.items())[: min(self.n_named, _NAMED_IN_ERRORS)]
        ]
        n_more = tally.count - len(shown)
        return ", ".join(shown) + (f" and {n_more} more" if n_more > 0 else "")

    def count(self, kind: TroubleKind) -> int:
        """How many bad samples of a kind were met."""
        return self._tallies[kind].count if kind in self._tallies else 0

    def summary(self) -> dict[str, Any]:
        """For ``summary.json``: how many were seen, and per kind the count and the first ones."""
        kinds: dict[str, Any] = {
            kind: {
                "count": tally.count,
                "first": [
                    {"key": key, "reason": reason}
                    for key, reason in list(tally.reasons.items())[: self.n_named]
                ],
            }
            for kind, tally in self._tallies.items()
            if tally.count
        }
        return {"seen": self._n_seen, "max_bad_fraction": self.max_bad_fraction, **kinds}

    def state_dict(self) -> dict[str, Any]:
        """Everything that is counted; JSON can hold it."""
        return {
            "seen": self._n_seen,
            "kinds": {
                kind: {
                    "count": tally.count,
                    "total": tally.total,
                    "reasons": dict(tally.reasons),
                }
                for kind, tally in self._tallies.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from a :meth:`state_dict`.

        Raises:
            TrainingStateError: It is none.
        """
        try:
            tallies = {
                kind: _Tally(
                    int(state["kinds"][kind]["count"]),
                    state["kinds"][kind]["total"],
                    {str(key): str(text) for key, text in state["kinds"][kind]["reasons"].items()},
                )
                for kind in _KINDS
                if kind in state["kinds"]
            }
            self._n_seen = int(state["seen"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TrainingStateError(
                f"the count of bad samples cannot be read: {error!r}",
                hint="start from an older checkpoint",
            ) from error
        self._tallies = tallies


def _printable(key: str) -> str:
    """A name that every terminal and JSON reader can take."""
    text = key.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
