r"""What goes between a service and its decode processes: lengths and raw bytes.

```
to the decoder    uint32 n, n bytes of an image file
from it, once     READY
from it, then     uint8 OK,       H * W * 3 bytes: pixels [3, H, W] as uint8
              or  uint8 REFUSED,  uint8 kind, uint16 n, n bytes: "message\0hint" in UTF-8
```

Nothing is unpickled, and the length of what a decoder sends is bounded before it is read.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import NamedTuple

from robustzs.errors import (
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    ImageTruncatedError,
)

READY, OK, REFUSED = b"\x01", b"\x02", b"\x03"
LENGTH = struct.Struct("<I")
REFUSAL = struct.Struct("<BH")
MAX_TEXT = 600
KINDS: tuple[type[ImageError], ...] = (
    ImageError,
    ImageFormatError,
    ImageTruncatedError,
    ImageTooLargeError,
    ImageDecodeError,
)


class Gone(Exception):
    """The other side closed its end, or sent what it must not."""


class Refusal(NamedTuple):
    """What a decoder says of an image that it cannot read."""

    kind: type[ImageError]
    message: str
    hint: str


def pack_refusal(error: ImageError) -> bytes:
    """A refusal, to send."""
    kind = KINDS.index(type(error)) if type(error) in KINDS else 0
    text = f"{error.message[:400]}\0{error.hint[:150]}".encode("utf-8", "replace")[:MAX_TEXT]
    return REFUSED + REFUSAL.pack(kind, len(text)) + text


def read_refusal(connection: socket.socket, deadline: float) -> Refusal:
    """A refusal; its marker was read before.

    Raises:
        Gone: it is none.
        TimeoutError: at the deadline.
    """
    kind, length = REFUSAL.unpack(read(connection, REFUSAL.size, deadline))
    if kind >= len(KINDS) or length > MAX_TEXT:
        raise Gone("a refusal that is none")
    text = read(connection, length, deadline).decode("utf-8", "replace")
    message, _, hint = text.partition("\0")
    return Refusal(KINDS[kind], _plain(message), _plain(hint))


def read(connection: socket.socket, n_bytes: int, deadline: float) -> bytearray:
    """Exactly so many bytes.

    Raises:
        Gone: the other side is.
        TimeoutError: at the deadline, on ``time.monotonic``'s clock.
    """
    data = bytearray(n_bytes)
    with memoryview(data) as view:
        done = 0
        while done < n_bytes:
            _set_timeout(connection, deadline)
            try:
                n_read = connection.recv_into(view[done:])
            except ConnectionError as error:
                raise Gone("the connection broke") from error
            if n_read == 0:
                raise Gone("the connection ended")
            done += n_read
    return data


def send(connection: socket.socket, data: bytes, deadline: float) -> None:
    """All of the bytes.

    Raises:
        Gone: the other side is.
        TimeoutError: at the deadline, on ``time.monotonic``'s clock.
    """
    _set_timeout(connection, deadline)
    try:
        connection.sendall(data)
    except ConnectionError as error:
        raise Gone("the connection broke") from error


def _set_timeout(connection: socket.socket, deadline: float) -> None:
    if deadline == float("inf"):
        connection.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0.0:
        raise TimeoutError
    connection.settimeout(left)


def _plain(text: str) -> str:
    """Without characters that act on a terminal or a log."""
    return "".join(character if character.isprintable() else "?" for character in text)
