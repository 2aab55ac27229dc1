"""Where images come from: files, folders, patterns and standard input, found one after the other.

Nothing is read while looking: an ``ImageSource`` is a name, and a problem with it is an item of its
own, so that one bad name never hides the others. Only regular files are opened; a pipe or device
that waits for a writer cannot hold anybody up.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from robustzs.errors import ImageError, ImageSourceError, ImageTooLargeError
from robustzs.files import is_closed
from robustzs.images.limits import DEFAULT_LIMITS, ImageLimits

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".tif", ".tiff"}
)
"""What counts as an image inside a folder; a file that is named itself may be called anything."""

STDIN = "-"
_CHUNK = 1 << 20
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True)
class ImageSource:
    """One image to be read.

    Attributes:
        name: As it was given; for a file in a folder, the folder as given and the way down.
        error: Why it cannot be read, when that is known already.
    """

    name: str
    error: ImageError | None = None

    def read(self, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
        """The encoded image.

        Raises:
            ImageSourceError: not there, not readable, not a regular file.
            ImageTooLargeError: more than ``limits.max_bytes``.
        """
        if self.error is not None:
            raise self.error
        if self.name == STDIN:
            return _read_stdin(limits)
        return _read_file(self.name, limits)


def iter_sources(inputs: Iterable[str | Path]) -> Iterator[ImageSource]:
    """Find the images behind names, lazily and in the order given.

    A folder gives the files with an image suffix in it and below, sorted by name; links to folders
    are not followed. A name with ``*``, ``?``, ``[`` that no file has is a pattern (``**`` for any
    depth); it gives the files that it matches, sorted. ``-`` is standard input. What is given
    twice comes twice.

    Args:
        inputs: Names, or paths, which are never patterns.

    Yields:
        One source per image, and one with an error for each name that leads nowhere.
    """
    for given in inputs:
        name = os.fspath(given)
        if isinstance(given, str):
            if name == STDIN:
                yield ImageSource(STDIN)
                continue
            if not os.path.lexists(name) and glob.has_magic(name):
                yield from _matches(name)
                continue
        yield from _path(name)


def _path(name: str) -> Iterator[ImageSource]:
    if os.path.isdir(name):
        found = False
        for source in _walk(name):
            found = True
            yield source
        if not found:
            suffixes = " ".join(sorted(SUFFIXES))
            yield _failed(name, f"the folder {name!r} holds no images", f"looked for {suffixes}")
    elif os.path.lexists(name) or is_closed(name):
        yield ImageSource(name)  # reading it says why not
    elif "://" in name:
        yield _failed(name, f"{name!r} is an address, not a file", "download the image first")
    elif "\0" in name or not name:
        yield _failed(name, f"{name!r} is not a file name")
    else:
        yield _failed(name, f"there is no file {name!r}")


def _walk(folder: str) -> Iterator[ImageSource]:
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield _failed(current, f"the folder {current!r} cannot be read: {error.strerror}")
            continue
        below = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and not (
                entry.is_symlink() and os.path.isdir(entry.path)
            ):
                yield ImageSource(entry.path)
        pending.extend(reversed(below))


def _matches(pattern: str) -> Iterator[ImageSource]:
    found = False
    for name in sorted(glob.iglob(pattern, recursive=True)):
        if not os.path.isdir(name):
            found = True
            yield ImageSource(name)
    if not found:
        yield _failed(pattern, f"no file matches {pattern!r}")


def _failed(name: str, message: str, hint: str = "") -> ImageSource:
    return ImageSource(name, ImageSourceError(message, hint=hint))


def _read_file(name: str, limits: ImageLimits) -> bytes:
    try:
        # First a look from outside: opening some devices has effects.
        _check_kind(name, os.stat(name).st_mode)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
        flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(name, flags)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(descriptor)
            _check_kind(name, status.st_mode)
            if status.st_size > limits.max_bytes:
                raise _over_limit(f"{name!r} has {status.st_size} bytes, more", limits)
            return _read_capped(stream, name, limits)
    except FileNotFoundError as error:
        is_link = os.path.islink(name)
        what = f"{name!r} is a link to nothing" if is_link else f"there is no file {name!r}"
        raise ImageSourceError(what) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ImageSourceError(f"{name!r} cannot be read: {reason}") from error


def _check_kind(name: str, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "not a regular file")
    raise ImageSourceError(
        f"{name!r} is {kind}; only regular files are read",
        hint=f"use {STDIN} to read from standard input",
    )


def _read_stdin(limits: ImageLimits) -> bytes:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise ImageSourceError("there is no standard input")
    if stream.isatty():
        raise ImageSourceError(
            "standard input is a terminal", hint="send an image: robustzs classify - < image.jpg"
        )
    try:
        data = _read_capped(stream, "standard input", limits)
    except (OSError, ValueError) as error:
        raise ImageSourceError("standard input cannot be read") from error
    if not data:
        raise ImageSourceError(
            "standard input is empty", hint="- reads one image, and can be given once"
        )
    return data


def _read_capped(stream: BinaryIO, name: str, limits: ImageLimits) -> bytes:
    pieces = []
    total = 0
    while piece := stream.read(min(_CHUNK, limits.max_bytes + 1 - total)):
        pieces.append(piece)
        total += len(piece)
        if total > limits.max_bytes:
            raise _over_limit(f"{name} has more bytes", limits)
    return b"".join(pieces)


def _over_limit(what: str, limits: ImageLimits) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"{what} than the limit of {limits.max_bytes} allows", hint="save the image smaller"
    )
