"""The file of API keys: made by ``robustzs keys``, read by the service.

A key is ``rzs_<id>_<secret>`` with a secret of 256 random bits. The file holds the sha256 of each
key and never a key. A slow hash such as argon2 or scrypt makes *guessing* dear, which passwords
need because people choose them; nobody can guess one of 2**256 random keys, so a fast hash gives
away nothing, and a slow one would let strangers spend the service's time with wrong keys.

Several keys may have one name; the name owns what is stored. So a key is rotated by making a second
one of the same name, and revoking the first by its id when it is out of use.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustzs.errors import UsageError

_logger = logging.getLogger(__name__)

MAX_KEYS = 1_000
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_RESERVED = "anonymous"
_SECRET_BYTES = 32
_LOOK_AGAIN_SECONDS = 1.0


class KeyRecord(BaseModel):
    """What is kept of one key.

    Attributes:
        id: public part of the key, to tell keys of one name apart.
        name: whose key it is.
        sha256: of the whole key.
        created: when it was made.
        expires: when it ends; ``None`` for never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: datetime
    expires: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires is None or now < self.expires


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    keys: Annotated[tuple[KeyRecord, ...], Field(max_length=MAX_KEYS)] = ()


class KeyRing:
    """The keys of a file, read again when it changes.

    Where the file cannot be read later on, the keys that were read last stay, and the log says so.

    Args:
        path: of the file.

    Raises:
        UsageError: the file is not there or damaged: a service must not start without its keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._keys = read_keys(path)
        self._looked = time.monotonic()

    def find(self, key: str) -> str | None:
        """The name of a key's owner, or ``None``.

        The key's hash is compared with all, each in constant time, so that the time it takes
        tells nothing of which one is near.
        """
        self._refresh()
        digest = hash_key(key)
        now = datetime.now(timezone.utc)
        found = None
        for record in self._keys:
            if hmac.compare_digest(record.sha256, digest) and record.is_valid(now):
                found = record.name
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_AGAIN_SECONDS:
            return
        self._looked = now
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except UsageError as error:
            _logger.error("the keys stay as they were: %s", error)


def hash_key(key: str) -> str:
    """sha256 of a key, as the file has it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def read_keys(path: Path) -> tuple[KeyRecord, ...]:
    """The keys of a file.

    Raises:
        UsageError: it is not there, or not such a file.
    """
    try:
        return _Document.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise UsageError(
            f"the keys file {str(path)!r} cannot be read: {error.strerror}",
            hint="make one with `robustzs keys make`",
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(
            f"the keys file {str(path)!r} is damaged: {place}: {first['msg']}",
            hint="restore it, or make a new one with `robustzs keys make`",
        ) from error


def make_key(path: Path, name: str, *, days: float | None = None) -> tuple[str, KeyRecord]:
    """Add a key to a file, which is made where it is not there yet.

    Args:
        path: of the file.
        name: whose key it is: small letters, digits and hyphens, at most 64.
        days: that it is valid; ``None`` for ever.

    Returns:
        The key, which is kept nowhere, and its record.

    Raises:
        UsageError: a wrong name, or a file that is no keys file or full.
    """
    if not _NAME.fullmatch(name) or name == _RESERVED:
        raise UsageError(
            f"a key cannot be named {name[:80]!r}",
            hint="use 1 to 64 small letters, digits and hyphens, and not `anonymous`",
        )
    with _locked(path):
        keys = read_keys(path) if path.exists() else ()
        if len(keys) >= MAX_KEYS:
            raise UsageError(f"the file has {len(keys)} keys, the limit is {MAX_KEYS}")
        key_id = secrets.token_hex(4)
        while any(record.id == key_id for record in keys):
            key_id = secrets.token_hex(4)
        key = f"rzs_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        created = datetime.now(timezone.utc).replace(microsecond=0)
        expires = None if days is None else created + timedelta(days=days)
        record = KeyRecord(
            id=key_id, name=name, sha256=hash_key(key), created=created, expires=expires
        )
        _write(path, (*keys, record))
    return key, record


def revoke_keys(path: Path, which: str) -> tuple[KeyRecord, ...]:
    """Take keys out of a file.

    Args:
        path: of the file.
        which: a name, for all of its keys, or the id of one.

    Returns:
        What was taken out.

    Raises:
        UsageError: there is no such key.
    """
    with _locked(path):
        keys = read_keys(path)
        gone = tuple(record for record in keys if which in (record.name, record.id))
        if not gone:
            raise UsageError(
                f"no key has the name or id {which[:80]!r}", hint="see `robustzs keys list`"
            )
        _write(path, tuple(record for record in keys if record not in gone))
    return gone


def _write(path: Path, keys: tuple[KeyRecord, ...]) -> None:
    """Whole or not at all, and for the owner's eyes."""
    text = _Document(keys=keys).model_dump_json(indent=2) + "\n"
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UsageError(
            f"the keys file {str(path)!r} cannot be written: {error.strerror}",
            hint="give a file in a folder that you may write to",
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, where the system has such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        handle = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise UsageError(
            f"there is no folder {str(path.parent)!r}", hint="make it, or name another file"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
