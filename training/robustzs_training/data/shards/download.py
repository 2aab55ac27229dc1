"""Shards from ``https``: fetched once for all processes, whole or not at all, within a size."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from robustzs.errors import DatasetNotFoundError, ShardError
from robustzs_training.data.shards.names import check_address, shown

MAX_SHARD_BYTES = 64 << 30
_ATTEMPTS = 5
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_CHUNK = 1 << 20
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})


class _TryAgainError(Exception):
    """What the server said, and how long it asks to wait."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


@dataclass(frozen=True, kw_only=True)
class ShardCache:
    """A folder of fetched files; picklable, and shared by any number of processes.

    What lies there is used without asking the server again: delete the folder to fetch anew.

    Attributes:
        folder: Made when needed.
        max_bytes: Of all files together; those used longest ago go first. ``None``: no limit.
            While several processes fetch, each of them may exceed it by its file.
        max_file_bytes: Of one file.
        pause_s: Before the second attempt; doubles with each further one.
    """

    folder: Path
    max_bytes: int | None = None
    max_file_bytes: int = MAX_SHARD_BYTES
    pause_s: float = _FIRST_PAUSE_S

    def fetch(
        self, url: str, *, sha256: str | None = None, suffix: str = ".tar"
    ) -> tuple[Path, str]:
        """Give the local copy of a file, fetching it when it is not there.

        Args:
            url: ``https``; ``http`` on this machine itself.
            sha256: What an earlier fetch gave; another content is refused.
            suffix: Of the local copy.

        Returns:
            The file and its sha256, in hex.

        Raises:
            DatasetNotFoundError: The server does not have it.
            ShardError: It cannot be fetched whole, is too large, or has changed.
        """
        check_address(url)
        stem = hashlib.sha256(url.encode("utf-8")).hexdigest()[:32]
        target = self.folder / f"{stem}{suffix}"
        try:
            known = _touch(target)
            while known is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                with FileLock(target.with_suffix(".lock")):
                    if _touch(target) is None:
                        self._download(url, target)
                    known = _touch(target)
                self._evict(0)  # what others fetched meanwhile
        except OSError as error:
            raise ShardError(
                f"{shown(url)!r} cannot be kept in {str(self.folder)!r}: {error}",
                hint="free space, or choose another cache folder",
            ) from error
        if sha256 is not None and known != sha256:
            raise ShardError(
                f"{shown(url)!r} is not what it was when the run began",
                hint="the server's file has changed: start a new run",
            )
        return target, known

    def _download(self, url: str, target: Path) -> None:
        part = target.with_suffix(
            ".part"
        )  # may be there from a killed process, and is gone on with
        pause = self.pause_s
        try:
            with _client(url) as client:
                for attempt in range(1, _ATTEMPTS + 1):
                    try:
                        _Transfer(self, client, url, part).run()
                        break
                    except (_TryAgainError, httpx.TransportError) as error:
                        _refuse_certificate(error, url)
                        if attempt == _ATTEMPTS:
                            raise ShardError(
                                f"{shown(url)!r} could not be fetched in {attempt} attempts: "
                                f"{error or type(error).__name__}",
                                hint="check the network, or fetch the shards first",
                            ) from error
                        asked = error.pause_s if isinstance(error, _TryAgainError) else 0.0
                        time.sleep(min(max(pause, asked), _LONGEST_PAUSE_S))
                        pause *= 2
            record = {"sha256": _sha256(part), "size": part.stat().st_size, "url": shown(url)}
            side = target.with_suffix(".record.tmp")
            side.write_text(json.dumps(record), encoding="utf-8")
            os.replace(part, target)
            os.replace(side, target.with_suffix(".record"))
        except (ShardError, DatasetNotFoundError):
            if not target.with_suffix(".etag").exists():  # nobody could tell of which version it is
                part.unlink(missing_ok=True)
            raise

    def make_room(self, n_bytes: int, url: str) -> None:
        """Remove what was used longest ago until ``n_bytes`` more fit.

        Raises:
            ShardError: They never will.
        """
        if n_bytes > self.max_file_bytes:
            raise ShardError(
                f"{shown(url)!r} has {n_bytes} bytes, the limit is {self.max_file_bytes}",
                hint="make smaller shards",
            )
        if self.max_bytes is not None:
            if n_bytes > self.max_bytes:
                raise ShardError(
                    f"{shown(url)!r} has {n_bytes} bytes, the whole cache may have "
                    f"{self.max_bytes}",
                    hint="allow a larger cache",
                )
            self._evict(n_bytes)
        free = shutil.disk_usage(self.folder).free
        if n_bytes > free:
            raise ShardError(
                f"{shown(url)!r} has {n_bytes} bytes, {str(self.folder)!r} has room for {free}",
                hint="free space, or choose another cache folder",
            )

    def _evict(self, n_bytes: int) -> None:
        if self.max_bytes is None:
            return
        with FileLock(self.folder / "evict.lock"):
            files = []
            for path in self.folder.glob("*.tar"):
                try:
                    status = path.stat()
                except OSError:  # somebody removed it
                    continue
                files.append((status.st_mtime_ns, status.st_size, path))
            total = sum(size for _, size, _ in files) + n_bytes
            for _, size, path in sorted(files):
                if total <= self.max_bytes:
                    return
                with _unless_locked(path.with_suffix(".lock")) as free:
                    if free:
                        # Who has it open keeps it, and fetches it anew the next time.
                        path.with_suffix(".record").unlink(missing_ok=True)
                        path.unlink(missing_ok=True)
                        total -= size


class _Transfer:
    """One attempt, which goes on where the last one ended if the server can."""

    def __init__(self, cache: ShardCache, client: httpx.Client, url: str, part: Path) -> None:
        self._cache = cache
        self._client = client
        self._url = url
        self._part = part
        self._tag_file = part.with_suffix(".etag")

    def run(self) -> None:
        have = self._part.stat().st_size if self._part.exists() else 0
        tag = self._tag_file.read_text("utf-8") if have and self._tag_file.exists() else ""
        headers = {"Range": f"bytes={have}-", "If-Range": tag} if tag else {}
        try:
            with self._client.stream("GET", self._url, headers=headers) as response:
                self._check(response)
                self._receive(response, self._start(response, have if tag else 0))
        except httpx.TooManyRedirects as error:
            raise ShardError(f"{shown(self._url)!r} redirects without end") from error
        self._tag_file.unlink(missing_ok=True)

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        where = shown(self._url)
        if status in _WORTH_RETRYING or status == 416:
            if status == 416:  # what is here is no part of what is there
                self._part.unlink(missing_ok=True)
            asked = response.headers.get("Retry-After", "")
            pause = float(asked) if asked.isascii() and asked.isdecimal() else 0.0
            raise _TryAgainError(f"the server answered {status}", pause)
        if status in (401, 403, 404, 410):  # stores say 403 for what is not there, too
            raise DatasetNotFoundError(
                f"the server does not give {where!r} (status {status})",
                hint="check the address, and the first and last number of the range",
            )
        if status not in (200, 206):
            raise ShardError(f"the server refused {where!r} with status {status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ShardError(f"the server sends {where!r} in another encoding than was asked for")

    def _start(self, response: httpx.Response, have: int) -> int:
        """Where the bytes of this answer belong."""
        if response.status_code != 206:
            return 0
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            self._part.unlink(missing_ok=True)
            raise _TryAgainError("the server sent another part than was asked for")
        return have

    def _receive(self, response: httpx.Response, start: int) -> None:
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isascii() and length.isdecimal() else None
        self._cache.make_room(total - start if total is not None else 0, self._url)
        tag = response.headers.get("ETag", "")
        if tag and not tag.startswith("W/"):  # a weak one does not promise the same bytes
            self._tag_file.write_text(tag, "utf-8")
        else:
            self._tag_file.unlink(missing_ok=True)
        size = start
        with self._part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for piece in response.iter_raw():  # as they come: what is here is not lost
                size += len(piece)
                if size > self._cache.max_file_bytes:
                    self._cache.make_room(size, self._url)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and size != total:
            raise _TryAgainError(f"{size} of {total} bytes came")


def _client(url: str) -> httpx.Client:
    """``SSL_CERT_FILE`` and proxy variables work as everywhere."""
    is_safe = url.lower().startswith("https:")

    def check(request: httpx.Request) -> None:
        # Called for every redirect, too: none may leave https.
        if request.url.scheme != "https":
            if is_safe:
                raise ShardError(f"{shown(url)!r} redirects to {shown(str(request.url))!r}")
            check_address(str(request.url))

    return httpx.Client(
        timeout=_TIMEOUT,
        follow_redirects=True,
        max_redirects=5,
        headers={"Accept-Encoding": "identity", "User-Agent": "robustzs"},
        event_hooks={"request": [check]},
    )


def _refuse_certificate(error: Exception, url: str) -> None:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        raise ShardError(
            f"the certificate of {shown(url)!r} is not trusted: {error}",
            hint="if it is your own server, name its certificate in SSL_CERT_FILE",
        ) from error


def _touch(target: Path) -> str | None:
    """The sha256 of a whole copy, which is now the one used last; ``None`` where there is none."""
    try:
        record = json.loads(target.with_suffix(".record").read_text(encoding="utf-8"))
        if record["size"] == target.stat().st_size:
            os.utime(target)
            return str(record["sha256"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _unless_locked(lock: Path) -> Iterator[bool]:
    try:
        with FileLock(lock, timeout=0):
            yield True
    except Timeout:
        yield False
