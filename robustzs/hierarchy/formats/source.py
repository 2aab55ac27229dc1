"""Opening a hierarchy file: regular, of bounded size, UTF-8."""

from __future__ import annotations

import stat
from pathlib import Path

from robustzs.errors import HierarchyFormatError, HierarchyLimitError
from robustzs.hierarchy.limits import HierarchyLimits


def read_text(path: Path, limits: HierarchyLimits) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
        HierarchyFormatError: Not a readable regular file, not UTF-8, or with NUL characters.
        HierarchyLimitError: Larger than ``limits.max_bytes``.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise HierarchyFormatError(f"{path} is not a regular file")
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise HierarchyFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > limits.max_bytes:
        raise HierarchyLimitError(f"{path} has more than {limits.max_bytes} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise HierarchyFormatError(
            f"{path}:{line}: byte 0x{data[error.start]:02X} is not UTF-8",
            hint="save the file as UTF-8",
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise HierarchyFormatError(f"{path}:{line}: NUL character")
    return text
