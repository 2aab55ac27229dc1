"""TIFF files reduced to the first page: its directory is checked and written anew.

The new directory, appended to the file, holds only the baseline tags that place and describe the
pixels, each of the type and count that its definition allows and inside the file. Orientation is
read here; pages are counted. Source: TIFF 6.0 section 2, and the BigTIFF description of libtiff.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from robustzs.errors import ImageFormatError
from robustzs.images.limits import ImageLimits
from robustzs.images.reduced import Reduced, check_frames, check_size, damaged, truncated

_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_TYPE_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _COMPRESSION, _ORIENTATION = 256, 257, 259, 274
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
# One whole number each: photometric, fill order, predictor, YCbCr positioning too.
_SCALARS = {256, 257, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 531}
_ARRAYS = {258: 16, 320: 3 << 16, 338: 16, 339: 16, 347: 1 << 16, 529: 3, 530: 2, 532: 6}
_PLACES = {_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES}
# none, LZW, JPEG, deflate, PackBits. The others are rare and their decoders little tested, and
# that of faxes writes a line to standard error for every damaged row.
_COMPRESSIONS = {1, 5, 7, 8, 32773, 32946}
_MAX_ENTRIES = 4096
_MAX_SAMPLES = 8


@dataclass(frozen=True)
class _Layout:
    """Byte order and word sizes of one file."""

    order: str
    big: bool

    @property
    def entry_size(self) -> int:
        return 20 if self.big else 12

    @property
    def count_format(self) -> str:
        return self.order + ("Q" if self.big else "H")

    @property
    def word_format(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def word_size(self) -> int:
        return 8 if self.big else 4


@dataclass(frozen=True)
class _Entry:
    kind: int
    count: int
    start: int
    raw: bytes


def is_tiff(data: bytes) -> bool:
    """Whether the data begin as a TIFF or BigTIFF file does."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def reduce_tiff(data: bytes, limits: ImageLimits) -> Reduced:
    """Check the first page and give it a clean directory.

    Raises:
        ImageTruncatedError: a value or strip lies behind the end of the file.
        ImageDecodeError: the directory contradicts the format.
        ImageFormatError: a compression that is not accepted.
        ImageTooLargeError: too many pixels or pages.
    """
    layout = _Layout("<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+"))
    header = 16 if layout.big else 8
    if len(data) < header:
        raise truncated("TIFF")
    (first,) = struct.unpack_from(layout.word_format, data, header - layout.word_size)
    entries = _read_directory(data, layout, first)
    _count_pages(data, layout, first, limits)
    values = {tag: _scalar(data, layout, tag, entry) for tag, entry in entries.items()
              if tag in _SCALARS}  # fmt: skip
    size = (values.get(_WIDTH, 0), values.get(_HEIGHT, 0))
    check_size(size, limits, "TIFF")
    if values.get(_COMPRESSION, 1) not in _COMPRESSIONS:
        raise ImageFormatError(
            f"the TIFF file has compression {values[_COMPRESSION]}, which is not accepted",
            hint="save it uncompressed, with LZW or with deflate",
        )
    if values.get(_SAMPLES, 1) > _MAX_SAMPLES:
        raise damaged("TIFF", f"{values[_SAMPLES]} samples per pixel")
    _check_places(data, layout, entries, values)
    orientation = values.get(_ORIENTATION, 1)
    kept = {tag: entry for tag, entry in entries.items() if tag != _ORIENTATION}
    return Reduced(
        _with_directory(data, layout, kept), size, orientation if 1 <= orientation <= 8 else 1
    )


def _read_directory(data: bytes, layout: _Layout, start: int) -> dict[int, _Entry]:
    count_size = struct.calcsize(layout.count_format)
    if start + count_size > len(data):
        raise truncated("TIFF")
    (count,) = struct.unpack_from(layout.count_format, data, start)
    if start < 8 or count > _MAX_ENTRIES:
        raise damaged("TIFF", f"a directory of {count} entries")
    if start + count_size + count * layout.entry_size > len(data):
        raise truncated("TIFF")
    entries: dict[int, _Entry] = {}
    for index in range(count):
        position = start + count_size + index * layout.entry_size
        raw = data[position : position + layout.entry_size]
        tag, kind = struct.unpack_from(f"{layout.order}HH", raw)
        if tag not in _SCALARS and tag not in _ARRAYS and tag not in _PLACES:
            continue
        (n_values,) = struct.unpack_from(layout.word_format, raw, 4)
        if tag in entries or kind not in _TYPE_SIZES or n_values < 1:
            raise damaged("TIFF", f"its tag {tag}")
        if n_values > (1 if tag in _SCALARS else _ARRAYS.get(tag, len(data))):
            raise damaged("TIFF", f"its tag {tag} has {n_values} values")
        value_start = position + layout.entry_size - layout.word_size
        if n_values * _TYPE_SIZES[kind] > layout.word_size:
            (value_start,) = struct.unpack_from(layout.word_format, data, value_start)
        if value_start + n_values * _TYPE_SIZES[kind] > len(data):
            raise truncated("TIFF")
        entries[tag] = _Entry(kind, n_values, value_start, raw)
    return entries


def _count_pages(data: bytes, layout: _Layout, start: int, limits: ImageLimits) -> None:
    seen: set[int] = set()
    count_size = struct.calcsize(layout.count_format)
    while start and start not in seen and start + count_size <= len(data):
        seen.add(start)
        check_frames(len(seen), limits, "TIFF", "pages")
        (count,) = struct.unpack_from(layout.count_format, data, start)
        link = start + count_size + count * layout.entry_size
        if link + layout.word_size > len(data):
            return
        (start,) = struct.unpack_from(layout.word_format, data, link)


def _numbers(data: bytes, layout: _Layout, tag: int, entry: _Entry) -> tuple[int, ...]:
    code = _TYPE_CODES.get(entry.kind)
    if code is None:
        raise damaged("TIFF", f"its tag {tag} has type {entry.kind}")
    return struct.unpack_from(f"{layout.order}{entry.count}{code}", data, entry.start)


def _scalar(data: bytes, layout: _Layout, tag: int, entry: _Entry) -> int:
    return _numbers(data, layout, tag, entry)[0]


def _check_places(
    data: bytes, layout: _Layout, entries: dict[int, _Entry], values: dict[int, int]
) -> None:
    """Strips or tiles: as many as the picture needs, each inside the file."""
    tiled = _TILE_OFFSETS in entries
    offsets, sizes = (_TILE_OFFSETS, _TILE_BYTES) if tiled else (_STRIP_OFFSETS, _STRIP_BYTES)
    if offsets not in entries or sizes not in entries or (tiled and _STRIP_OFFSETS in entries):
        raise damaged("TIFF", "it does not say where its pixels are")
    width, height = values[_WIDTH], values[_HEIGHT]
    if tiled:
        piece = (values.get(_TILE_WIDTH, 0), values.get(_TILE_HEIGHT, 0))
        if min(piece) < 1 or max(piece) > 65536 or piece[0] * piece[1] > 1 << 26:
            raise damaged("TIFF", f"tiles of {piece[0]} x {piece[1]} pixels")
    else:
        piece = (width, min(values.get(_ROWS_PER_STRIP, height), height))
        if piece[1] < 1:
            raise damaged("TIFF", "strips without rows")
    planes = values.get(_SAMPLES, 1) if values.get(_PLANAR, 1) == 2 else 1
    needed = -(-width // piece[0]) * -(-height // piece[1]) * planes
    if entries[offsets].count != needed or entries[sizes].count != needed:
        raise damaged("TIFF", f"{entries[offsets].count} strips or tiles where {needed} are needed")
    starts = _numbers(data, layout, offsets, entries[offsets])
    lengths = _numbers(data, layout, sizes, entries[sizes])
    if any(start + length > len(data) for start, length in zip(starts, lengths, strict=True)):
        raise truncated("TIFF")


def _with_directory(data: bytes, layout: _Layout, entries: dict[int, _Entry]) -> bytes:
    padding = -len(data) % 8
    header = 16 if layout.big else 8
    return b"".join(
        [
            data[: header - layout.word_size],
            struct.pack(layout.word_format, len(data) + padding),
            data[header:],
            bytes(padding),
            struct.pack(layout.count_format, len(entries)),
            *(entry.raw for _, entry in sorted(entries.items())),
            bytes(layout.word_size),
        ]
    )
