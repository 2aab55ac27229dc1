"""Collecting everything that is wrong with a hierarchy before saying so, once."""

from __future__ import annotations

from dataclasses import dataclass, field

from robustzs.errors import HierarchyError, HierarchyFormatError

_SHOWN = 20  # problems in the message; the error's ``problems`` holds all that were kept
_KEPT = 1000  # a hostile file cannot make the report itself large


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Args:
        kind: The error to raise when this is the only kind of problem.
        message: What is wrong, naming the value.
        where: ``file:line``, where it is known.
        hint: What to do about it.
    """

    kind: type[HierarchyError]
    message: str
    where: str | None = None
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


@dataclass
class ProblemLog:
    """Problems found so far.

    Args:
        subject: What is being read or built, for the first line of the report.
    """

    subject: str
    problems: list[Problem] = field(default_factory=list)
    n_dropped: int = 0

    def add(
        self,
        kind: type[HierarchyError],
        message: str,
        where: str | None = None,
        hint: str = "",
    ) -> None:
        """Note a problem and go on."""
        if len(self.problems) < _KEPT:
            self.problems.append(Problem(kind, message, where, hint))
        else:
            self.n_dropped += 1

    def __bool__(self) -> bool:
        return bool(self.problems)

    def raise_if_any(self) -> None:
        """Raise one error with every problem.

        Raises:
            HierarchyError: Of the problems' own type when they share one, else
                :class:`~robustzs.errors.HierarchyFormatError`.
        """
        if not self.problems:
            return
        kinds = {problem.kind for problem in self.problems}
        kind = kinds.pop() if len(kinds) == 1 else HierarchyFormatError
        texts = tuple(str(problem) for problem in self.problems)
        hints = tuple(dict.fromkeys(p.hint for p in self.problems if p.hint))
        if len(texts) == 1:
            raise kind(
                f"{self.subject}: {texts[0]}", hint=hints[0] if hints else "", problems=texts
            )
        n_hidden = max(0, len(texts) - _SHOWN) + self.n_dropped
        lines = [f"{self.subject}: {len(texts) + self.n_dropped} problems", *texts[:_SHOWN]]
        if n_hidden:
            lines.append(f"... and {n_hidden} more")
        raise kind("\n  ".join(lines), hint="; ".join(hints), problems=texts)
