"""JPEG, PNG, GIF, WebP and BMP files reduced to one picture before a decoder sees them.

Each function walks its container, takes the size and the orientation, counts what the limits
bound, and passes on only what the picture is made of. So the decoder's own readers of EXIF,
profiles, text, thumbnails, comments and animations never see the file, and what they would warn
of, inflate or loop over never happens.
"""

from __future__ import annotations

import re
import struct
import zlib

from robustzs.images.limits import ImageLimits
from robustzs.images.reduced import (
    MAX_PARTS,
    Reduced,
    check_frames,
    check_size,
    damaged,
    exif_orientation,
    too_large,
    truncated,
)

_FILL = re.compile(rb"\xff+")
_MAX_SCANS = 100  # a progressive JPEG has about ten; each one costs a pass over the picture
_MAX_SEGMENTS = 4096
_MAX_RLE_BYTES = 4 * 1024 * 1024  # Pillow expands BMP's run lengths in Python


def reduce_jpeg(data: bytes, limits: ImageLimits) -> Reduced:
    """Keep JFIF and Adobe markers (they tell the colour space), tables, frame and scans."""
    kept = [b"\xff\xd8"]
    size: tuple[int, int] | None = None
    orientation: int | None = None
    position = 2
    for _ in range(_MAX_SEGMENTS):
        position = data.find(b"\xff", position)
        fill = _FILL.match(data, position) if position >= 0 else None
        if fill is None or fill.end() >= len(data):
            raise truncated("JPEG")
        position = fill.end() + 1
        marker = data[position - 1]
        if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            continue
        if marker == 0xD9:
            raise damaged("JPEG", "it ends before its picture begins")
        if marker == 0xDA:
            break
        if position + 2 > len(data):
            raise truncated("JPEG")
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2:
            raise damaged("JPEG", f"a segment of length {length}")
        segment = data[position + 2 : position + length]
        if len(segment) != length - 2:
            raise truncated("JPEG")
        position += length
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if size is not None or len(segment) < 6:
                raise damaged("JPEG", "its frame header")
            height, width = struct.unpack_from(">HH", segment, 1)
            size = (width, height)
            check_size(size, limits, "JPEG")
        if marker == 0xE1 and orientation is None and segment.startswith(b"Exif\0\0"):
            orientation = exif_orientation(segment)
        if _keeps_jpeg_segment(marker, segment):
            kept.append(b"\xff" + bytes([marker]) + struct.pack(">H", length) + segment)
    else:
        raise too_large("JPEG", f"more than {_MAX_SEGMENTS} segments before its picture")
    if size is None:
        raise damaged("JPEG", "no frame header")
    scans = data[position - 2 :]
    if scans.count(b"\xff\xda") > _MAX_SCANS:
        raise too_large("JPEG", f"more than {_MAX_SCANS} scans")
    if b"\xff\xd9" not in scans:
        raise truncated("JPEG")
    return Reduced(b"".join([*kept, scans]), size, orientation or 1)


def _keeps_jpeg_segment(marker: int, segment: bytes) -> bool:
    if marker == 0xE0:
        return segment.startswith(b"JFIF\0")
    if marker == 0xEE:
        return segment.startswith(b"Adobe")
    return not 0xE1 <= marker <= 0xEF and marker != 0xFE


def reduce_png(data: bytes, limits: ImageLimits) -> Reduced:
    """Keep IHDR, PLTE, tRNS and IDAT; an APNG is its default image."""
    kept = [data[:8]]
    size: tuple[int, int] | None = None
    orientation = 1
    text_left = limits.max_text_bytes
    position = 8
    has_picture = False
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if kind == b"IEND":
            break
        if end > len(data):
            raise truncated("PNG")
        if (size is None) != (kind == b"IHDR"):
            raise damaged("PNG", "its header is not first, or not alone")
        if kind == b"IHDR":
            if length != 13:
                raise damaged("PNG", "its header")
            size = struct.unpack_from(">II", data, position + 8)
            check_size(size, limits, "PNG")
        elif kind == b"acTL" and length >= 4:
            check_frames(struct.unpack_from(">I", data, position + 8)[0], limits, "PNG")
        elif kind == b"eXIf":
            orientation = exif_orientation(data[position + 8 : end - 4])
        elif kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            text_left -= _inflated_size(kind, data[position + 8 : end - 4], text_left)
            if text_left < 0:
                raise too_large("PNG", f"more than {limits.max_text_bytes} bytes of text")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            kept.append(data[position:end])
            has_picture |= kind == b"IDAT"
        position = end
    else:
        raise too_large("PNG", f"more than {MAX_PARTS} chunks")
    if size is None or not has_picture:
        raise truncated("PNG") if position + 8 > len(data) else damaged("PNG", "no picture")
    kept.append(b"\0\0\0\0IEND\xaeB`\x82")
    return Reduced(b"".join(kept), size, orientation)


def _inflated_size(kind: bytes, chunk: bytes, limit: int) -> int:
    """Bytes of a text or profile chunk after inflation, counted no further than ``limit`` + 1."""
    keyword_end = chunk.find(b"\0") + 1
    compressed = b""
    if kind in (b"zTXt", b"iCCP"):
        compressed = chunk[keyword_end + 1 :]
    elif kind == b"iTXt" and chunk[keyword_end : keyword_end + 1] == b"\1":
        parts = chunk[keyword_end + 2 :].split(b"\0", 2)
        compressed = parts[2] if len(parts) == 3 else b""
    if not compressed or limit < 0:
        return len(chunk)
    try:
        inflated = zlib.decompressobj().decompress(compressed, limit + 1)
    except zlib.error:
        return len(chunk)
    return max(len(inflated), len(chunk))


def reduce_gif(data: bytes, limits: ImageLimits) -> Reduced:
    """Keep the screen, its palette, and the first image with its control block."""
    if len(data) < 13:
        raise truncated("GIF")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    head, control, first = data[:position], b"", b""
    parts_left = MAX_PARTS
    n_frames = 0
    while position < len(data) and data[position] != 0x3B and n_frames <= limits.max_frames:
        start = position
        introducer = data[position]
        if introducer == 0x21:
            position += 2
        elif introducer == 0x2C:
            n_frames += 1
            if position + 10 > len(data):
                break
            left, top, wide, high, image_flags = struct.unpack_from("<HHHHB", data, position + 1)
            position += 10 + (3 << ((image_flags & 7) + 1) if image_flags & 0x80 else 0) + 1
            if n_frames == 1:
                width, height = max(width, left + wide), max(height, top + high)
                check_size((width, height), limits, "GIF")
        else:
            position += 1  # readers skip what they do not know
            parts_left -= 1
            if parts_left < 0:
                raise too_large("GIF", f"more than {MAX_PARTS} blocks")
            continue
        while position < len(data) and data[position]:
            position += data[position] + 1
            parts_left -= 1
            if parts_left < 0:
                raise too_large("GIF", f"more than {MAX_PARTS} blocks")
        position += 1
        if position > len(data):
            break
        if introducer == 0x21 and data[start + 1] == 0xF9:
            control = data[start:position]
        elif introducer == 0x2C and not first:
            first = control + data[start:position]
    check_frames(n_frames, limits, "GIF")
    if not first:
        ended = data[position : position + 1] == b";"
        raise damaged("GIF", "no picture") if ended else truncated("GIF")
    return Reduced(head + first + b";", (width, height))


def reduce_webp(data: bytes, limits: ImageLimits) -> Reduced:
    """Measure a WebP; its own library checks the chunks against each other."""
    if len(data) < 30:
        raise truncated("WebP")
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise truncated("WebP")
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise damaged("WebP", "its first chunk is unknown")
    check_size((width, height), limits, "WebP")
    orientation, n_frames, position = 1, 0, 12
    for _ in range(MAX_PARTS):
        if position + 8 > end:
            break
        length = struct.unpack_from("<I", data, position + 4)[0]
        if data[position : position + 4] == b"ANMF":
            n_frames += 1
        elif data[position : position + 4] == b"EXIF":
            orientation = exif_orientation(data[position + 8 : position + 8 + length])
        position += 8 + length + (length & 1)
    else:
        raise too_large("WebP", f"more than {MAX_PARTS} chunks")
    check_frames(n_frames, limits, "WebP")
    return Reduced(data[:end], (width, height), orientation)


def reduce_bmp(data: bytes, limits: ImageLimits) -> Reduced:
    """Measure a BMP; a negative height means that the top row comes first."""
    if len(data) < 26:
        raise truncated("BMP")
    offset, header = struct.unpack_from("<II", data, 10)
    compression = 0
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        if len(data) < 34:
            raise truncated("BMP")
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    check_size((width, abs(height)), limits, "BMP")
    if compression in (1, 2):
        if len(data) > _MAX_RLE_BYTES:
            raise too_large("BMP", f"more than {_MAX_RLE_BYTES} bytes of run lengths")
    elif offset + (width * bits + 31) // 32 * 4 * abs(height) > len(data):
        raise truncated("BMP")
    return Reduced(data, (width, abs(height)))
