"""Errors as people see them, and the exit codes that programs see."""

from __future__ import annotations

import sys

from robustzs.cli.escape import terminal_safe
from robustzs.errors import RobustZSError, UsageError


def report(error: RobustZSError) -> int:
    """Print ``error`` on stderr and give its exit code."""
    # Our own messages have lines; what they quote from outside is escaped line by line.
    message = "\n".join(map(terminal_safe, error.message.split("\n")))
    sys.stderr.write(f"error: {message}\n")
    if error.hint:
        sys.stderr.write(f"  try: {terminal_safe(error.hint)}\n")
    return 2 if isinstance(error, UsageError) else 1
