"""The container of the noun index: a header, named sections, one digest.

Layout: 8 bytes of magic, the sha256 of all that follows (32 bytes), the length of the header
(uint32, little-endian), the header (JSON), the sections one after another. A section is a numpy
array or plain bytes, stored as it is or deflated. Nothing in the file can name code to run.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustzs.errors import WordNetDataMissingError

MAGIC = b"RZSNOUN\x01"
_PREFIX = len(MAGIC) + 32 + 4
_DTYPES = frozenset({"<i4", "|u1"})
_BYTES = "bytes"


def write_noun_file(
    path: Path, info: Mapping[str, Any], sections: Mapping[str, npt.NDArray[Any] | bytes]
) -> str:
    """Write a noun file and return its sha256.

    Args:
        path: Where to; an existing file is replaced.
        info: JSON values about the content, kept under ``"info"`` in the header.
        sections: int32 or uint8 arrays are deflated; bytes are stored as they are.
    """
    payload = bytearray()
    table: list[dict[str, Any]] = []
    for name in sorted(sections):
        value = sections[name]
        if isinstance(value, bytes):
            dtype, codec, size, stored = _BYTES, "raw", len(value), value
        else:
            array = np.ascontiguousarray(value)
            dtype = array.dtype.newbyteorder("<").str
            if dtype not in _DTYPES:
                raise ValueError(f"section {name!r} has dtype {dtype}, not one of {_DTYPES}")
            raw = array.astype(dtype).tobytes()
            codec, size, stored = "zlib", len(raw), zlib.compress(raw, 9)
        table.append(
            {
                "name": name,
                "dtype": dtype,
                "codec": codec,
                "size": size,
                "start": len(payload),
                "stored": len(stored),
            }
        )
        payload += stored
    header = json.dumps(
        {"info": dict(info), "sections": table}, sort_keys=True, separators=(",", ":")
    ).encode()
    body = struct.pack("<I", len(header)) + header + bytes(payload)
    data = MAGIC + hashlib.sha256(body).digest() + body
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


class NounFile:
    """A noun file in memory; its digest has been checked.

    Args:
        data: The whole file.
        source: Where it came from, for messages.

    Raises:
        WordNetDataMissingError: If it is not a noun file, or is damaged.
    """

    def __init__(self, data: bytes, source: str) -> None:
        self._source = source
        if len(data) < _PREFIX or not data.startswith(MAGIC):
            raise self._damaged("it does not start like a noun index of this version")
        body = memoryview(data)[len(MAGIC) + 32 :]
        if hashlib.sha256(body).digest() != data[len(MAGIC) : len(MAGIC) + 32]:
            raise self._damaged("its sha256 does not match its content")
        (header_size,) = struct.unpack_from("<I", body)
        if 4 + header_size > len(body):
            raise self._damaged("it ends within its header")
        header = json.loads(bytes(body[4 : 4 + header_size]))
        self.info: dict[str, Any] = header["info"]
        self._table = {entry["name"]: entry for entry in header["sections"]}
        self._payload = body[4 + header_size :]

    @classmethod
    def read(cls, path: Path) -> NounFile:
        """Read and verify a file.

        Raises:
            WordNetDataMissingError: If it cannot be read, or is damaged.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WordNetDataMissingError(
                f"the noun index {str(path)!r} cannot be read: {error.strerror}",
                hint="reinstall robustzs, or compile it with `robustzs hierarchy compile-nouns`",
            ) from error
        return cls(data, str(path))

    @property
    def names(self) -> tuple[str, ...]:
        """The sections, sorted."""
        return tuple(sorted(self._table))

    def bytes_of(self, name: str) -> memoryview:
        """The bytes of a section, read-only."""
        entry = self._table[name]
        stored = self._payload[entry["start"] : entry["start"] + entry["stored"]]
        if entry["codec"] == "raw":
            return stored
        return memoryview(zlib.decompress(stored, bufsize=entry["size"]))

    def array(self, name: str) -> npt.NDArray[Any]:
        """A section as a read-only array."""
        return np.frombuffer(self.bytes_of(name), dtype=self._table[name]["dtype"])

    def _damaged(self, why: str) -> WordNetDataMissingError:
        return WordNetDataMissingError(
            f"the noun index {self._source!r} is damaged: {why}",
            hint="reinstall robustzs, or compile it with `robustzs hierarchy compile-nouns`",
        )
