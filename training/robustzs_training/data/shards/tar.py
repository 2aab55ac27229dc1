"""What lies where in a tar: a scan over its headers, which extracts nothing.

Only regular files count. Names are keys: an absolute one or one with ``..`` leads nowhere, since
no file is ever made from it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from robustzs.errors import ShardError

MAX_MEMBERS = 10_000_000
_BLOCK = 512
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
)
_REFETCH = "copy or download the shard again"


class Member(NamedTuple):
    """One regular file in a tar.

    Attributes:
        name: As it stands there; any text.
        offset: Of its first byte in the shard.
        size: Bytes; -1 for what is not plainly stored: links, devices, sparse files.
    """

    name: str
    offset: int
    size: int


def scan_tar(file: BinaryIO, name: str) -> Iterator[Member]:
    """List the files in a tar, in their order.

    ``tarfile`` takes a damaged header for the end, so that a shard that lost its second half would
    look like a smaller one. Here the end must be the block of zeros that closes every tar.

    Args:
        file: The shard; its position is moved between one member and the next.
        name: What messages call it.

    Raises:
        ShardError: Not a tar, compressed, damaged, or cut off; with the byte where it was seen.
    """
    try:
        _check_start(file, name)
        yield from _scan(file, name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ShardError(f"the shard {name!r} cannot be read: {reason}") from error


def _check_start(file: BinaryIO, name: str) -> None:
    start = file.read(_BLOCK)
    file.seek(0)
    for magic, kind in _COMPRESSED:
        if start.startswith(magic):
            raise ShardError(
                f"the shard {name!r} is compressed with {kind}, so single examples cannot be read",
                hint="unpack it to a plain .tar: images are compressed already",
            )
    if not start:
        raise ShardError(f"the shard {name!r} is empty, cut off at byte 0", hint=_REFETCH)


def _scan(file: BinaryIO, name: str) -> Iterator[Member]:
    position = 0
    previous = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            count = 0
            while (member := tar.next()) is not None:
                position = member.offset
                count += 1
                if position <= previous or member.size < 0 or count > MAX_MEMBERS:
                    raise _damaged(name, position, "impossible sizes")
                previous = position
                plain = member.isreg() and not member.issparse()
                yield Member(member.name, member.offset_data, member.size if plain else -1)
                # Else every header of the shard stays in memory.
                tar.members.clear()  # type: ignore[attr-defined]
            position = tar.offset
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        raise _damaged(name, position, str(error) or type(error).__name__) from error
    _check_end(file, name, position)


def _check_end(file: BinaryIO, name: str, position: int) -> None:
    file.seek(position)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise ShardError(
            f"the shard {name!r} is cut off at byte {position + len(block)}, "
            "before the mark that ends a tar",
            hint=_REFETCH,
        )
    if block.strip(b"\0"):
        raise _damaged(name, position, "a damaged header")


def _damaged(name: str, position: int, why: str) -> ShardError:
    return ShardError(
        f"the shard {name!r} is damaged or cut off after byte {position}: {why}", hint=_REFETCH
    )
