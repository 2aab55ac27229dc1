"""What checks found, for cards and for refusals."""

from __future__ import annotations

from dataclasses import dataclass

from robustzs.cards.schema import Check
from robustzs.errors import UntrustworthyResultError


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check.

    Attributes:
        name: For cards.
        passed: Whether numbers may be published.
        value: What was measured; ``None`` where there is no number.
        allowed: Which values pass, in words.
        finding: What was found, naming the value.
        reason: Why that makes numbers untrustworthy; told where the check fails.
        remedy: What to do about it.
    """

    name: str
    passed: bool
    value: float | None
    allowed: str
    finding: str
    reason: str
    remedy: str

    def for_card(self) -> Check:
        """As cards keep it."""
        told = f"{self.finding}; allowed: {self.allowed}"
        if not self.passed:
            told += f". {self.reason}: {self.remedy}"
        return Check(name=self.name, passed=self.passed, message=told)


@dataclass(frozen=True)
class CheckReport:
    """All checks of a run, in the order in which they were made."""

    results: tuple[CheckResult, ...] = ()

    def __add__(self, other: CheckReport) -> CheckReport:
        return CheckReport(self.results + other.results)

    @property
    def passed(self) -> bool:
        """Whether all did."""
        return all(result.passed for result in self.results)

    def for_card(self) -> tuple[Check, ...]:
        """As cards keep them."""
        return tuple(result.for_card() for result in self.results)

    def require(self) -> None:
        """Refuse to go on.

        Raises:
            UntrustworthyResultError: A check failed; the first is named.
        """
        failed = [result for result in self.results if not result.passed]
        if failed:
            first = failed[0]
            others = ", ".join(result.name for result in failed[1:])
            raise UntrustworthyResultError(
                f"the check {first.name!r} refuses: {first.finding}. {first.reason}"
                + (f". Also failed: {others}" if others else ""),
                hint=first.remedy,
            )
