"""Reader for Qt's binary resource files (``.rcc``), format versions 1 to 3.

The format is that of Qt's own ``QResource`` (``qtbase/src/corelib/io/qresource.cpp``)::

    header   "qres", version, tree offset, data offset, names offset (big-endian u32 each),
             and from version 3 on one u32 of overall flags
    tree     fixed-size entries; entry 0 is the root folder
             folder: u32 name, u16 flags, u32 number of children, u32 index of the first child
             file:   u32 name, u16 flags, u16 territory, u16 language, u32 data offset
             from version 2 on both end with a u64 time stamp
    names    u16 length, u32 hash, UTF-16BE text
    data     u32 size, then the bytes; zlib data is preceded by the u32 unpacked size
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Largest unpacked entry that the reader accepts; a picture of the packages is far below it."""

_HEADER = struct.Struct(">4sIIII")
_NAME = struct.Struct(">HI")
_FOLDER = struct.Struct(">IHII")
_FILE = struct.Struct(">IHHHI")
_ZLIB, _IS_FOLDER, _ZSTD = 0x01, 0x02, 0x04


class RccError(ValueError):
    """A file is not a readable Qt resource file; the message names it and what is wrong."""


class RccArchive:
    """The files inside one ``.rcc`` file, by their path in the resource tree.

    Args:
        data: the whole file.
        name: how messages call it.

    Raises:
        RccError: not a resource file, of an unknown version, or with a broken tree.
    """

    def __init__(self, data: bytes, name: str = "resource file") -> None:
        self._data = data
        self._name = name
        magic, version, tree, blobs, names = _HEADER.unpack(self._slice(0, _HEADER.size))
        if magic != b"qres":
            raise RccError(f"{name}: starts with {magic!r}, not with b'qres'")
        if version not in (1, 2, 3):
            raise RccError(f"{name}: format version {version}; versions 1 to 3 are known")
        self._tree, self._blobs, self._names = tree, blobs, names
        self._entry_size = 14 if version == 1 else 22
        self._files = dict(self._walk())

    @classmethod
    def open(cls, path: Path) -> RccArchive:
        """Reads ``path`` whole and parses it."""
        return cls(path.read_bytes(), str(path))

    def paths(self) -> list[str]:
        """All file paths, sorted, without a leading slash."""
        return sorted(self._files)

    def read(self, path: str) -> bytes:
        """The unpacked bytes of one file.

        Raises:
            RccError: no such file, or its data are broken or packed in an unreadable way.
        """
        if path not in self._files:
            raise RccError(f"{self._name}: no file {path!r} inside")
        flags, offset = self._files[path]
        (size,) = struct.unpack(">I", self._slice(self._blobs + offset, 4))
        raw = self._slice(self._blobs + offset + 4, size)
        try:
            if flags & _ZLIB:
                return self._unzlib(raw, path)
            if flags & _ZSTD:
                return _unzstd(raw)
        except (zlib.error, struct.error) as error:
            raise RccError(f"{self._name}: {path!r} does not unpack: {error}") from error
        return raw

    def _unzlib(self, raw: bytes, path: str) -> bytes:
        (expected,) = struct.unpack_from(">I", raw)
        if expected > MAX_FILE_BYTES:
            raise RccError(f"{self._name}: {path!r} says {expected} bytes, over {MAX_FILE_BYTES}")
        unpacked = zlib.decompressobj().decompress(raw[4:], expected + 1)
        if len(unpacked) != expected:
            raise RccError(
                f"{self._name}: {path!r} unpacks to {len(unpacked)} bytes, not {expected}"
            )
        return unpacked

    def _slice(self, start: int, size: int) -> bytes:
        piece = self._data[start : start + size]
        if len(piece) != size:
            raise RccError(f"{self._name}: cut short: {size} bytes at offset {start} are not there")
        return piece

    def _walk(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yields (path, (flags, data offset)); every tree entry is visited at most once."""
        seen = {0}
        todo = [(0, "")]
        while todo:
            index, prefix = todo.pop()
            at = self._tree + index * self._entry_size
            _, flags, count, first = _FOLDER.unpack(self._slice(at, _FOLDER.size))
            if not flags & _IS_FOLDER:
                *_, offset = _FILE.unpack(self._slice(at, _FILE.size))
                yield prefix.rstrip("/"), (flags, offset)
                continue
            for child in range(first, first + count):
                if child in seen:
                    raise RccError(f"{self._name}: entry {child} has two parents")
                seen.add(child)
                todo.append((child, f"{prefix}{self._entry_name(child)}/"))

    def _entry_name(self, index: int) -> str:
        (offset,) = struct.unpack(">I", self._slice(self._tree + index * self._entry_size, 4))
        length, _ = _NAME.unpack(self._slice(self._names + offset, _NAME.size))
        raw = self._slice(self._names + offset + _NAME.size, 2 * length)
        try:
            return raw.decode("utf-16-be")
        except UnicodeDecodeError as error:
            raise RccError(f"{self._name}: the name of entry {index} is broken") from error


def _unzstd(raw: bytes) -> bytes:
    try:
        import zstandard  # type: ignore[import-not-found]  # optional: Debian's files use zlib
    except ImportError as error:
        raise RccError("this entry is packed with zstd: pip install zstandard") from error
    return bytes(zstandard.ZstdDecompressor().decompress(raw, max_output_size=MAX_FILE_BYTES))
