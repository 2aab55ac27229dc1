"""The memory of a captioning run: a file that only grows, and survives a kill at any moment.

One JSON object a line. The first one holds the settings; every other one holds a caption, or why
there is none; of several for one image the last counts. Lines are written together and forced to
the disk together. A last line that was torn is cut off when the file is opened again.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from robustzs.errors import CaptionError

if sys.platform != "win32":
    import fcntl

FORMAT = "robustzs-captions-journal"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one image.

    Attributes:
        key: Path of the image below its folder, with ``/``.
        caption: One line; ``None`` if there is none.
        error: Short reason, the same for all failures of a kind; empty with a caption.
        message: The reason in words.
        passing: The failure lies with the model's server and not with the image.
        prompt_tokens: Read by the model.
        completion_tokens: Written by the model.
    """

    key: str
    caption: str | None = None
    error: str = ""
    message: str = ""
    passing: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Journal:
    """Open it with :meth:`open`; use it in a ``with``.

    Attributes:
        path: The file.
        failures: Images without a caption, and why: the short reason by key.
        prompt_tokens: Of all runs together.
        completion_tokens: Of all runs together.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.failures: dict[str, str] = {}
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._passing: set[str] = set()
        self._places: dict[str, int] = {}  # where the line of each caption begins
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._end = 0

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, str], *, force: bool = False) -> Journal:
        """Begin a journal, or go on with one.

        Args:
            path: The file; made if it is not there.
            settings: What captions depend on. A journal of other settings is refused.
            force: Begin anew whatever is there.

        Raises:
            CaptionError: It cannot be written, is damaged before its last line, belongs to other
                settings, or another process is writing it.
        """
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise CaptionError(
                f"cannot write {str(path)!r}: {error.strerror}",
                hint="name an --output in a folder that you can write",
            ) from error
        journal = cls(path, descriptor)
        try:
            journal._lock()
            if force:
                journal._file.truncate(0)
            journal._read(dict(settings))
        except BaseException:
            journal.close()
            raise
        return journal

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file free; nothing is lost without it."""
        self._file.close()

    def __contains__(self, key: str) -> bool:
        """Whether the image has a caption."""
        return key in self._places

    def __len__(self) -> int:
        """How many captions there are."""
        return len(self._places)

    def is_open(self, key: str, *, retry_failed: bool = False) -> bool:
        """Whether there is something left to do for an image.

        Args:
            key: The image.
            retry_failed: Whether failures that lie with the image count, too.
        """
        if key in self._places:
            return False
        return retry_failed or key not in self.failures or key in self._passing

    def caption(self, key: str) -> str:
        """The caption of an image; read from the disk.

        Raises:
            KeyError: It has none.
        """
        self._file.seek(self._places[key])
        pieces = []
        while piece := self._file.read(4096):
            pieces.append(piece)
            if b"\n" in piece:
                break
        caption = json.loads(b"".join(pieces).split(b"\n", 1)[0])["caption"]
        return str(caption)

    def reasons(self) -> Counter[str]:
        """How many images failed for each reason."""
        return Counter(self.failures.values())

    def append(self, outcomes: Iterable[Outcome]) -> None:
        """Write outcomes down; on return they are on the disk."""
        block = bytearray()
        noted = []
        for outcome in outcomes:
            line = {
                key: value for key, value in vars(outcome).items() if value not in (None, "", 0)
            }
            noted.append((line, self._end + len(block)))
            block += _encode(line)
        self._write(bytes(block))
        for line, place in noted:
            self._note(line, place)

    def _write(self, block: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(block)
        while view:
            view = view[self._file.write(view) :]
        os.fsync(self._file.fileno())
        self._end += len(block)

    def _note(self, line: Mapping[str, Any], place: int) -> None:
        key = line["key"]
        self.prompt_tokens += line.get("prompt_tokens", 0)
        self.completion_tokens += line.get("completion_tokens", 0)
        self._passing.discard(key)
        if isinstance(line.get("caption"), str):
            self._places[key] = place
            self.failures.pop(key, None)
        else:
            self.failures[key] = str(line.get("error", "unknown"))
            if line.get("passing"):
                self._passing.add(key)

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CaptionError(
                f"another process is writing {str(self.path)!r}",
                hint="let it finish, or choose another --output",
            ) from error

    def _read(self, settings: dict[str, str]) -> None:
        header = {"format": FORMAT, "version": VERSION, "settings": settings}
        self._file.seek(0)
        number = 0
        with os.fdopen(os.dup(self._file.fileno()), "rb") as stream:
            for number, raw in enumerate(stream, start=1):
                line = _decode(raw)
                if line is None:
                    if stream.read(1):
                        raise self._damaged(number)
                    break
                if number == 1:
                    self._check(line, settings)
                elif not isinstance(line.get("key"), str):
                    raise self._damaged(number)
                else:
                    self._note(line, self._end)
                self._end += len(raw)
        self._file.truncate(self._end)
        if self._end == 0:
            self._write(_encode(header))

    def _check(self, line: Mapping[str, Any], settings: Mapping[str, str]) -> None:
        if line.get("format") != FORMAT or line.get("version") != VERSION:
            raise CaptionError(
                f"{str(self.path)!r} is not a journal of captions that this version reads",
                hint="choose another --output",
            )
        found = line.get("settings")
        if found != settings:
            known = found if isinstance(found, dict) else {}
            different = [
                f"{name} {known.get(name)!r}, now {settings.get(name)!r}"
                for name in sorted({*known, *settings})
                if known.get(name) != settings.get(name)
            ]
            raise CaptionError(
                f"{str(self.path)!r} was begun with {'; '.join(different)}",
                hint="give the same options, another --output, or --force to begin anew",
            )

    def _damaged(self, number: int) -> CaptionError:
        return CaptionError(
            f"{str(self.path)!r} is damaged at line {number}, which is not the last",
            hint="remove that line, or begin anew with --force",
        )


def _encode(line: Mapping[str, Any]) -> bytes:
    # ASCII, so that a name that is not valid Unicode survives, too.
    return json.dumps(line, ensure_ascii=True).encode("ascii") + b"\n"


def _decode(raw: bytes) -> dict[str, Any] | None:
    if not raw.endswith(b"\n"):
        return None
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None
