"""What a measurement has found so far, on disk: whatever stops it, only one batch is lost.

::

    STATE/identity.json     what is measured: model, pictures, attacks
    STATE/journal-0.jsonl   a line for each batch, of process 0; read by all
    STATE/turned/           perturbed images of a few rows, for reports

A line is written and synced before the next batch starts. The last line of a process that was
killed may be torn; it is left out, and cut off when the process comes back. Lines name rows of the
set, so a measurement may go on with another number of processes or another batch size.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustzs.errors import EvaluationStateError

_IDENTITY = "identity.json"
_TURNED = "turned"
_DISK = "free disk space or see to permissions, then start the same command again"


@dataclass(frozen=True, kw_only=True)
class Line:
    """What became of one batch.

    Attributes:
        question: What was asked; see :mod:`robustzs_training.evaluation.run`.
        rows: Places in the set.
        right: Of each row, whether the verdict is right.
        by: Of each row, the attack that broke it, or nothing; empty for clean images.
        seconds: It took.
        notes: Further integers of each row, by name.
    """

    question: str
    rows: tuple[int, ...]
    right: tuple[bool, ...]
    by: tuple[str, ...] = ()
    seconds: float = 0.0
    notes: Mapping[str, tuple[int, ...]]

    def to_json(self) -> str:
        """One line, with its end."""
        document = {
            "question": self.question,
            "rows": self.rows,
            "right": "".join("1" if right else "0" for right in self.right),
            "by": self.by,
            "seconds": round(self.seconds, 4),
            "notes": dict(self.notes),
        }
        return json.dumps(document, separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Line:
        """Read a line.

        Raises:
            ValueError: It is none.
        """
        try:
            found = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        if not isinstance(found, dict):
            raise ValueError("no object")
        try:
            rows = tuple(int(row) for row in found["rows"])
            right = tuple(mark == "1" for mark in found["right"])
            by = tuple(str(name) for name in found["by"])
            notes = {str(k): tuple(int(v) for v in values) for k, values in found["notes"].items()}
            line = cls(
                question=str(found["question"]),
                rows=rows,
                right=right,
                by=by,
                seconds=float(found["seconds"]),
                notes=notes,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("fields are missing or of another kind") from error
        sizes = {
            len(right),
            *(len(values) for values in notes.values()),
            *({len(by)} if by else ()),
        }
        if sizes != {len(rows)}:
            raise ValueError("rows and verdicts differ in number")
        return line


class EvaluationState:
    """The journals of one measurement; a context manager.

    Args:
        folder: Where they lie; made if it is not there.
        identity: What is measured, as JSON values; a folder that holds another measurement is
            refused.
        rank: Of this process.

    Raises:
        EvaluationStateError: The folder holds another measurement, or another process writes into
            it, or the disk refuses.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, rank: int = 0) -> None:
        self.folder = folder
        self.rank = rank
        self._identity = json.loads(json.dumps(identity))
        self._stream: FileIO | None = None
        self._read: dict[Path, int] = {}
        self._lines: dict[str, list[Line]] = {}
        self._known: dict[str, dict[int, bool]] = {}

    def __enter__(self) -> EvaluationState:
        with _disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_identity()
            path = self.folder / f"journal-{self.rank}.jsonl"
            self._stream = path.open("ab", buffering=0)  # nothing is left over to fail later
        try:
            with _disk(self.folder):
                self._lock(self._stream)
                self._cut_torn(path)
            self.reload()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def record(self, line: Line) -> None:
        """Keep what became of a batch.

        Raises:
            EvaluationStateError: The disk refuses.
        """
        if self._stream is None:
            raise EvaluationStateError("the state is not open", hint="use it in a with block")
        with _disk(self.folder):
            data = memoryview(line.to_json().encode())
            while data:
                data = data[self._stream.write(data) :]
            os.fsync(self._stream.fileno())
        self.reload()

    def reload(self) -> None:
        """Read what all processes have found since the last time.

        Raises:
            EvaluationStateError: A journal is damaged.
        """
        with _disk(self.folder):
            for path in sorted(self.folder.glob("journal-*.jsonl")):
                self._read_more(path)

    def lines(self, question: str) -> Sequence[Line]:
        """All that is known of a question, batch by batch."""
        return self._lines.get(question, ())

    def known(self, question: str) -> Mapping[int, bool]:
        """Row -> verdict."""
        return self._known.get(question, {})

    def notes(self, question: str, name: str) -> dict[int, int]:
        """Row -> a further integer."""
        return {
            row: value
            for line in self.lines(question)
            for row, value in zip(line.rows, line.notes.get(name, ()), strict=False)
        }

    def seconds(self, question: str) -> float:
        """Time that all processes together spent on a question."""
        return sum(line.seconds for line in self.lines(question))

    def keep_image(self, question: str, row: int, image: npt.NDArray[np.float32]) -> None:
        """Keep a perturbed image ``[3, H, W]`` for reports.

        Raises:
            EvaluationStateError: The disk refuses.
        """
        path = self._image_path(question, row)
        with _disk(self.folder):
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}")
            with temporary.open("wb") as stream:
                np.save(stream, image, allow_pickle=False)
            os.replace(temporary, path)

    def image(self, question: str, row: int) -> npt.NDArray[np.float32] | None:
        """A perturbed image ``[3, H, W]``, if it was kept."""
        try:
            found = np.load(self._image_path(question, row), allow_pickle=False)
        except (OSError, ValueError):
            return None
        return np.asarray(found, np.float32)

    def _image_path(self, question: str, row: int) -> Path:
        name = hashlib.sha256(question.encode()).hexdigest()[:16]
        return self.folder / _TURNED / f"{name}-{row}.npy"

    def _check_identity(self) -> None:
        path = self.folder / _IDENTITY
        if not path.exists():
            if any(self.folder.glob("journal-*.jsonl")):
                raise EvaluationStateError(
                    f"{self.folder} has journals and no {_IDENTITY}",
                    hint="--no-resume starts over",
                )
            write_text(path, json.dumps(self._identity, indent=2, sort_keys=True) + "\n")
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != self._identity:
            names = ", ".join(differences(found, self._identity))
            raise EvaluationStateError(
                f"{self.folder} holds another measurement; different: {names}",
                hint="name another --output, or --no-resume to start over",
            )

    def _lock(self, stream: FileIO) -> None:
        try:
            import fcntl
        except ImportError:  # Windows; there two at once are not found out
            return
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EvaluationStateError(
                f"another process measures into {self.folder}",
                hint="wait for it, or name another --output",
            ) from error

    def _cut_torn(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.truncate(path, whole)

    def _read_more(self, path: Path) -> None:
        start = self._read.get(path, 0)
        with path.open("rb") as stream:
            stream.seek(start)
            data = stream.read()
        whole = data.rfind(b"\n") + 1
        self._read[path] = start + whole
        for text in data[:whole].decode("utf-8", "replace").splitlines():
            try:
                line = Line.from_json(text)
            except ValueError as error:
                raise EvaluationStateError(
                    f"{path} is damaged: {error}", hint="--no-resume starts over"
                ) from error
            self._lines.setdefault(line.question, []).append(line)
            known = self._known.setdefault(line.question, {})
            known.update(zip(line.rows, line.right, strict=True))


def differences(found: object, wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of what differs between two documents."""
    if not isinstance(found, Mapping):
        return [prefix or "everything"]
    names: list[str] = []
    for key in sorted({*found, *wanted}):
        one, other = found.get(key), wanted.get(key)
        if one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            names += differences(one, other, f"{prefix}{key}.")
        else:
            names.append(f"{prefix}{key}")
    return names


def forget(folder: Path) -> None:
    """Remove a measurement, and nothing else that lies there.

    Raises:
        EvaluationStateError: The disk refuses.
    """
    if not (folder / _IDENTITY).exists() and not any(folder.glob("journal-*.jsonl")):
        return
    with _disk(folder):
        for path in folder.glob("journal-*.jsonl"):
            path.unlink()
        shutil.rmtree(folder / _TURNED, ignore_errors=True)
        (folder / _IDENTITY).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file at once: the old one stays until the new one is whole, and on the disk.

    Raises:
        EvaluationStateError: The disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _disk(path.parent):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EvaluationStateError(
            f"{error.filename or folder} cannot be read or written: {error.strerror or error}",
            hint=_DISK,
        ) from error
