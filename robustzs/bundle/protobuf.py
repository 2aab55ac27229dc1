"""The protobuf wire format, as far as a guard needs it: tags, lengths and varints over a buffer.

Nothing is copied: a length-delimited field is handed on as a pair of offsets, so a tensor of
gigabytes costs as much as one of bytes. Source of the format: protobuf's "Encoding" page.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Final

from robustzs.errors import OnnxMalformedError

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

Buffer = bytes | mmap.mmap
Field = tuple[int, int, int, int]
"""``(field number, wire type, start, end)``; a varint has its value in ``start``."""


class WireReader:
    """Walks messages in one buffer and counts the fields that it meets.

    Args:
        buffer: The whole file.
        name: What error messages call it.
        max_fields: Fields visited in all before the file is refused: bounds the time.
    """

    def __init__(self, buffer: Buffer, name: str, max_fields: int) -> None:
        self._buffer = buffer
        self._name = name
        self._fields_left = max_fields
        self._max_fields = max_fields

    def malformed(self, what: str) -> OnnxMalformedError:
        """The error for this file."""
        return OnnxMalformedError(
            f"{self._name} is not a readable ONNX file: {what}",
            hint="copy or export the bundle again",
        )

    def varint(self, position: int, end: int) -> tuple[int, int]:
        """Read a varint; returns its value and the position behind it."""
        value = shift = 0
        while True:
            if position >= end:
                raise self.malformed(f"it breaks off in a number at byte {position}")
            byte = self._buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position
            shift += 7
            if shift > 63:
                raise self.malformed(f"a number before byte {position} is too long")

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Yield the fields of the message in ``[start, end)``, in file order."""
        position = start
        buffer = self._buffer
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise self.malformed(f"it has more than {self._max_fields} fields")
            tag = buffer[position]
            position += 1
            if tag >= 0x80:
                tag, position = self.varint(position - 1, end)
            number, wire_type = tag >> 3, tag & 7
            if number == 0 or number > 0x1FFF_FFFF:
                raise self.malformed(f"field number {number} before byte {position}")
            if wire_type == LENGTH:
                length, position = self.varint(position, end)
                if length > end - position:
                    raise self.malformed(
                        f"field {number} at byte {position} claims {length} bytes, "
                        f"{end - position} are left"
                    )
                yield number, wire_type, position, position + length
                position += length
            elif wire_type == VARINT:
                value, position = self.varint(position, end)
                yield number, wire_type, value, position
            elif wire_type in (FIXED32, FIXED64):
                size = 4 if wire_type == FIXED32 else 8
                if size > end - position:
                    raise self.malformed(f"field {number} at byte {position} breaks off")
                yield number, wire_type, position, position + size
                position += size
            else:
                raise self.malformed(f"wire type {wire_type} before byte {position}")

    def expect(self, field: Field, wire_type: int) -> Field:
        """Return ``field`` when it has the wire type that its schema gives it."""
        if field[1] != wire_type:
            raise self.malformed(f"field {field[0]} has wire type {field[1]}, not {wire_type}")
        return field

    def text(self, field: Field, max_length: int = 4096) -> str:
        """The UTF-8 text of a length-delimited field."""
        _, _, start, end = self.expect(field, LENGTH)
        if end - start > max_length:
            raise self.malformed(f"a name of {end - start} bytes at byte {start}")
        try:
            return bytes(self._buffer[start:end]).decode("utf-8")
        except UnicodeDecodeError:
            raise self.malformed(f"a name at byte {start} is not UTF-8") from None
