"""The files behind label sets and hierarchies.

One folder for each key, named by a digest of the key's id, with one file for each thing that is
kept. A file is a line of JSON about it and then its content, whose sha256 stands in that line. It
is written beside its place, synced, and renamed into it, under a lock that the kernel gives back
when its holder dies: so readers in any process see the old one or the new one, whole, whatever is
killed when.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

from robustzs.bundle.store import canonical_json
from robustzs.errors import UsageError
from robustzs_serving.stored.errors import (
    StoreDamagedError,
    StoredNotFoundError,
    StoreFullError,
    StoreUnavailableError,
)
from robustzs_serving.stored.preconditions import Preconditions

Kind = Literal["label-sets", "hierarchies"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ID_PATTERN = r"^[a-z0-9-]{1,64}$"
MAX_PAGE = 1_000

_FORMAT = 1
_LEAST_BYTES = 4_096  # what a file takes on a disk, so that many tiny ones are bounded, too
_MAX_HEAD_BYTES = 4_096
_ID = re.compile(r"[a-z0-9-]{1,64}")
_NONE = Preconditions()


@dataclass(frozen=True)
class Stored:
    """One thing that is kept.

    Attributes:
        id: as the client named it.
        etag: changes with the content, and only with it; quoted as in the header.
        n_bytes: of the content.
        created_at: when there first was something under the id, UTC.
        modified_at: when the content was put, UTC.
        document: the content; empty in lists.
        is_new: whether nothing was there before this ``put``.
    """

    id: str
    etag: str
    n_bytes: int
    created_at: datetime
    modified_at: datetime
    document: Mapping[str, Any]
    is_new: bool = False


@dataclass(frozen=True)
class Page:
    """Some of what is kept, by id.

    Attributes:
        items: without documents.
        next_after: where the next page begins; ``None`` after the last.
    """

    items: tuple[Stored, ...]
    next_after: str | None


class Store:
    """What keys have put, on disk. Safe to use from threads and processes at once.

    Every method blocks on the disk for a moment: call it from a thread.

    Args:
        folder: made where it is not there; only this user may read it.
        bytes_per_key: room of each key; a file counts 4096 bytes at least.
    """

    def __init__(self, folder: Path, *, bytes_per_key: int) -> None:
        self.folder = folder
        self._room = bytes_per_key

    def get(self, kind: Kind, id_: str, key_id: str) -> Stored:
        """What is kept under an id.

        Raises:
            UsageError: no id can look like this.
            StoredNotFoundError: nothing is there, for this key.
            StoreDamagedError: it is not what was written.
            StoreUnavailableError: the disk refuses.
        """
        path = self._path(kind, id_, key_id)
        with _disk():
            try:
                data = path.read_bytes()
            except FileNotFoundError as error:
                raise _missing(kind, id_) from error
        return _parse(data, kind, id_)

    def signature(self, kind: Kind, id_: str, key_id: str) -> tuple[int, int, int]:
        """Differs whenever something else was put: enough to keep what was made of the content.

        Raises:
            UsageError: no id can look like this.
            StoredNotFoundError: nothing is there, for this key.
            StoreUnavailableError: the disk refuses.
        """
        with _disk():
            try:
                state = self._path(kind, id_, key_id).stat()
            except FileNotFoundError as error:
                raise _missing(kind, id_) from error
        return state.st_ino, state.st_mtime_ns, state.st_size

    def put(
        self,
        kind: Kind,
        id_: str,
        key_id: str,
        document: Mapping[str, Any],
        *,
        preconditions: Preconditions = _NONE,
    ) -> Stored:
        """Keep a document under an id, instead of what is there.

        Args:
            kind: of thing.
            id_: the client's.
            key_id: whose it is.
            document: JSON values; checked by the caller.
            preconditions: of the request.

        Raises:
            UsageError: no id can look like this.
            PreconditionError: what is there is not what the client knows.
            StoreFullError: the key has no room for it.
            StoreUnavailableError: the disk refuses.
        """
        path = self._path(kind, id_, key_id)
        content = canonical_json(document)
        now = datetime.now(timezone.utc)
        with _disk(), self._locked(path.parent):
            before = _look(path, kind, id_)
            preconditions.check(None if before is None else before.etag)
            is_new = not path.exists()
            stored = Stored(
                id=id_,
                etag=_etag(content),
                n_bytes=len(content),
                created_at=now if before is None else before.created_at,
                modified_at=now,
                document=document,
                is_new=is_new,
            )
            data = _head(stored, kind) + content
            self._check_room(path, len(data))
            _replace(path, data)
        return stored

    def delete(
        self, kind: Kind, id_: str, key_id: str, *, preconditions: Preconditions = _NONE
    ) -> None:
        """Remove what is kept under an id.

        Raises:
            UsageError: no id can look like this.
            StoredNotFoundError: nothing is there, for this key.
            PreconditionError: what is there is not what the client knows.
            StoreUnavailableError: the disk refuses.
        """
        path = self._path(kind, id_, key_id)
        with _disk():
            if not path.exists():  # nothing is made for a key that has put nothing
                preconditions.check(None)
                raise _missing(kind, id_)
        with _disk(), self._locked(path.parent):
            before = _look(path, kind, id_)
            preconditions.check(None if before is None else before.etag)
            try:
                path.unlink()
            except FileNotFoundError as error:
                raise _missing(kind, id_) from error
            _sync_folder(path.parent)

    def list(self, kind: Kind, key_id: str, *, after: str = "", limit: int = 100) -> Page:
        """What a key keeps, by id; what is damaged is left out.

        Args:
            kind: of thing.
            key_id: whose.
            after: only ids behind this one.
            limit: most items of the page, 1 to 1000.

        Raises:
            UsageError: a limit out of range.
            StoreUnavailableError: the disk refuses.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise UsageError(f"limit must be a whole number from 1 to {MAX_PAGE}, got {limit}")
        prefix, found = f"{kind}.", list[Stored]()
        folder = self._folder(key_id)
        with _disk():
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            ids = sorted(
                name.removeprefix(prefix).removesuffix(".json")
                for name in names
                if name.startswith(prefix)
            )
            more = [id_ for id_ in ids if id_ > after]
            for id_ in more[:limit]:
                with contextlib.suppress(FileNotFoundError, StoreDamagedError):
                    found.append(_read_head(folder / f"{prefix}{id_}.json", kind, id_))
        return Page(tuple(found), more[limit - 1] if len(more) > limit else None)

    def _path(self, kind: Kind, id_: str, key_id: str) -> Path:
        if _ID.fullmatch(id_) is None:
            raise UsageError(
                "an id has 1 to 64 characters of a-z, 0-9 and -", hint="such as animals-2"
            )
        return self._folder(key_id) / f"{kind}.{id_}.json"

    def _folder(self, key_id: str) -> Path:
        return self.folder / hashlib.sha256(key_id.encode("utf-8")).hexdigest()[:32]

    @contextlib.contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """One writer of a key at a time, in all processes."""
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_folder(folder.parent)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for path in folder.glob(".tmp-*"):  # of writers that died: this one holds the lock
                path.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)  # gives the lock back

    def _check_room(self, path: Path, n_bytes: int) -> None:
        others = sum(
            max(other.stat().st_size, _LEAST_BYTES)
            for other in path.parent.glob("*.json")
            if other != path
        )
        wanted = others + max(n_bytes, _LEAST_BYTES)
        if wanted > self._room:
            raise StoreFullError(
                f"this needs {wanted} bytes with what is there, and a key has {self._room}",
                hint="delete what you no longer need",
            )


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _head(stored: Stored, kind: Kind) -> bytes:
    record = {
        "format": _FORMAT,
        "kind": kind,
        "id": stored.id,
        "etag": stored.etag,
        "n_bytes": stored.n_bytes,
        "created_at": stored.created_at.isoformat(),
        "modified_at": stored.modified_at.isoformat(),
    }
    return json.dumps(record).encode("ascii") + b"\n"


def _parse(data: bytes, kind: Kind, id_: str) -> Stored:
    head, _, content = data.partition(b"\n")
    found = _parse_head(head, kind, id_)
    if found.n_bytes != len(content) or found.etag != _etag(content):
        raise _damaged(kind, id_)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(kind, id_) from error
    return Stored(**{**vars(found), "document": document})


def _parse_head(head: bytes, kind: Kind, id_: str) -> Stored:
    try:
        record = json.loads(head)
        if (record["format"], record["kind"], record["id"]) != (_FORMAT, kind, id_):
            raise ValueError("another file")
        return Stored(
            id=id_,
            etag=str(record["etag"]),
            n_bytes=int(record["n_bytes"]),
            created_at=datetime.fromisoformat(record["created_at"]),
            modified_at=datetime.fromisoformat(record["modified_at"]),
            document={},
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(kind, id_) from error


def _read_head(path: Path, kind: Kind, id_: str) -> Stored:
    with path.open("rb") as stream:
        return _parse_head(stream.readline(_MAX_HEAD_BYTES), kind, id_)


def _look(path: Path, kind: Kind, id_: str) -> Stored | None:
    """What is there before a write; damaged, it matches no tag and may be written over."""
    try:
        return _parse(path.read_bytes(), kind, id_)
    except (FileNotFoundError, StoreDamagedError):
        return None


def _replace(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError("the service cannot reach what it keeps") from error


def _missing(kind: Kind, id_: str) -> StoredNotFoundError:
    what = "label set" if kind == "label-sets" else "hierarchy"
    return StoredNotFoundError(
        f"there is no {what} {id_!r}", hint=f"PUT /v1/{kind}/{id_} makes one"
    )


def _damaged(kind: Kind, id_: str) -> StoreDamagedError:
    what = "label set" if kind == "label-sets" else "hierarchy"
    return StoreDamagedError(
        f"the {what} {id_!r} was damaged on disk", hint="put it again, or delete it"
    )
