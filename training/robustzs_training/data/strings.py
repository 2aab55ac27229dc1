"""Many texts in two arrays.

A list of a million Python strings is copied object by object into every loader process; two arrays
travel as two blocks, and forked processes share them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class StringColumn:
    """Texts by number; read-only.

    File names that are not UTF-8 survive (``surrogateescape``, as in :func:`os.fsdecode`).

    Args:
        data: uint8, the texts one after the other.
        ends: int64 ``[n + 1]``, where each begins and the last one ends.
    """

    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> StringColumn:
        """Take the texts, one at a time."""
        data, ends = bytearray(), array("q", [0])
        for text in texts:
            data += text.encode("utf-8", "surrogateescape")
            ends.append(len(data))
        return cls(np.frombuffer(bytes(data), np.uint8), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> str:
        start, stop = int(self.ends[index]), int(self.ends[index + 1])
        return self.data[start:stop].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: npt.NDArray[np.int64]) -> StringColumn:
        """The texts of some rows; a negative row gives an empty text."""
        data, ends, whole = bytearray(), array("q", [0]), self.data.data
        for row in rows.tolist():
            if row >= 0:
                data += whole[int(self.ends[row]) : int(self.ends[row + 1])]
            ends.append(len(data))
        return StringColumn(np.frombuffer(bytes(data), np.uint8), np.array(ends, np.int64))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of each text: int64 ``[n]``."""
        return np.diff(self.ends)

    @property
    def parts(self) -> tuple[bytes, bytes]:
        """What the column is made of, little-endian, for digests."""
        return self.ends.astype("<i8").tobytes(), self.data.tobytes()
