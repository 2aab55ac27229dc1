"""The base of all errors, and those that belong to no room."""

from __future__ import annotations

from typing import ClassVar


class RobustZSError(Exception):
    """Base of all errors above.

    Args:
        message: What is wrong, naming the value.
        hint: What to do about it; empty when the message says it.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(RobustZSError):
    """An option or argument is out of range or contradicts another."""

    code = "usage"


class MissingExtraError(RobustZSError):
    """An optional dependency is not installed."""

    code = "missing-extra"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed",
            hint=f'pip install "robustzs[{extra}]"',
        )
