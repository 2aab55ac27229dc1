"""The rules for file names inside a bundle, and how a file in it is opened.

A name is a relative POSIX path of plain ASCII parts, so that it means the same file on every
system and in every archive. No part of it may be a link: what a link shows can be exchanged
without touching the bundle.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from robustzs.errors import BundleFileMissingError, BundlePathError

MAX_NAME_LENGTH = 200
MAX_NAME_PARTS = 4
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_file_name(name: str) -> str:
    """Return ``name`` when it is allowed inside a bundle.

    Raises:
        BundlePathError: it is absolute, has ``..``, a backslash, a drive or an odd character.
    """
    parts = name.split("/")
    problem = ""
    if not name or len(name) > MAX_NAME_LENGTH:
        problem = f"is empty or longer than {MAX_NAME_LENGTH} characters"
    elif name.startswith("/"):
        problem = "is absolute"
    elif "\\" in name:
        problem = "has a backslash"
    elif re.match(r"[A-Za-z]:", name):
        problem = "names a drive"
    elif ".." in parts:
        problem = 'leads out of the bundle by ".."'
    elif len(parts) > MAX_NAME_PARTS:
        problem = f"is more than {MAX_NAME_PARTS} levels deep"
    else:
        for part in parts:
            if not _PART.fullmatch(part) or part.endswith("."):
                problem = f"has the part {part!r}; allowed are letters, digits and _ . + -"
            elif _WINDOWS_DEVICES.fullmatch(part):
                problem = f"has the part {part!r}, a device on Windows"
    if problem:
        raise BundlePathError(
            f"the file name {name[:MAX_NAME_LENGTH]!r} in the bundle {problem}",
            hint="names in a bundle are relative paths such as onnx/image_encoder.onnx",
        )
    return name


def locate(root: Path, name: str) -> Path:
    """The path of ``name`` under ``root``, after making sure that no part of it is a link.

    Raises:
        BundlePathError: the name is not allowed, a part of it is a link, or it is no regular file.
        BundleFileMissingError: there is no such file.
    """
    path = root
    parts = check_file_name(name).split("/")
    for index, part in enumerate(parts):
        path = path / part
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise BundleFileMissingError(
                f"{name} is missing from the bundle {root}",
                hint="copy or export the bundle again",
            ) from None
        except OSError as error:
            raise BundleFileMissingError(
                f"{name} in the bundle {root} cannot be read: {error.strerror}"
            ) from error
        if stat.S_ISLNK(mode):
            raise BundlePathError(
                f"{name} in the bundle {root} is or lies behind a link, {path}",
                hint="copy the bundle with the files themselves, for example by cp -rL",
            )
        is_last = index == len(parts) - 1
        if not (stat.S_ISREG(mode) if is_last else stat.S_ISDIR(mode)):
            raise BundlePathError(f"{path} in the bundle is not a regular file or folder")
    return path


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading without following a link and without ever blocking.

    Raises:
        BundleFileMissingError: it cannot be opened.
        BundlePathError: it is not a regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise BundleFileMissingError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundlePathError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0)
