"""Examples of shards by number."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from robustzs.errors import ImageSourceError, ImageTooLargeError, ShardError
from robustzs.images.decode import DEFAULT_LIMITS, decode_image
from robustzs.labels import LabelSet
from robustzs_training.data.base import Finding, Sample
from robustzs_training.data.shards.download import ShardCache
from robustzs_training.data.shards.index import read_index
from robustzs_training.data.shards.names import ShardName, shown

_OPEN_INDICES = 1024


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What a loader process must know of one shard.

    Attributes:
        name: Where it is.
        index: The file that says what lies where in it.
        n_rows: Of the index.
        size: Bytes of the shard.
        stamp: When it was last changed, in ns; 0 for a fetched one, which ``sha256`` identifies.
        sha256: Of a fetched one.
    """

    name: ShardName
    index: Path
    n_rows: int
    size: int
    stamp: int
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a set of shards.

    Attributes:
        labels: The classes.
        label_of: int64 ``[n]``.
        rows: int64 ``[n]``, increasing: the rows over all indices that have a class; ``None`` when
            every row has.
    """

    labels: LabelSet
    label_of: torch.Tensor
    rows: npt.NDArray[np.int64] | None


class ShardSource:
    """The examples of WebDataset shards. Make one with :func:`open_webdataset`.

    Args:
        shards: In order.
        remote: Where fetched shards are.
        classes: ``None`` where no example has a label; else only those with one count.
        digest: Of everything.
        findings: What is known to be wrong.
        ignored: How many members of each kind were left alone, by extension.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        remote: ShardCache,
        *,
        classes: Classes | None,
        digest: str,
        findings: tuple[Finding, ...],
        ignored: dict[str, int],
    ) -> None:
        self._shards = tuple(shards)
        self._remote = remote
        self._classes = classes
        self._starts = np.cumsum([0, *(shard.n_rows for shard in shards)], dtype=np.int64)
        self._digest = digest
        self._open: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self.findings = findings
        self.ignored = ignored

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # every process maps for itself

    def __len__(self) -> int:
        if self._classes is not None:
            return len(self._classes.label_of)
        return int(self._starts[-1])

    @property
    def labels(self) -> LabelSet | None:
        """The classes; ``None`` where no example has a label."""
        return None if self._classes is None else self._classes.labels

    @property
    def label_of(self) -> torch.Tensor | None:
        """int64 ``[n]``; ``None`` where no example has a label."""
        return None if self._classes is None else self._classes.label_of

    @property
    def digest(self) -> str:
        """Sha256, in hex, over names of shards, keys, image sizes, captions and labels."""
        return self._digest

    @property
    def chunks(self) -> Sequence[tuple[int, int]]:
        """The examples ``[start, stop)`` of each shard, which one shard on disk serves."""
        rows = None if self._classes is None else self._classes.rows
        cuts = self._starts if rows is None else np.searchsorted(rows, self._starts)
        return [(int(start), int(stop)) for start, stop in pairwise(cuts)]

    def key_of(self, index: int) -> str:
        """``train-0003.tar/n01440764/12``: the shard and the key in it."""
        number, row = self._locate(index)
        return f"{self._shards[number].name.name}/{self._table(number).column('key')[row]}"

    def caption_of(self, index: int) -> str | None:
        """The caption without reading the image; ``None`` where there is none."""
        number, row = self._locate(index)
        caption: str | None = self._table(number).column("caption")[row].as_py()
        return caption

    def read(self, index: int) -> Sample:
        """Read one example.

        Raises:
            ImageError: It has no image, or one that cannot be used.
            ShardError: The shard or its index is gone, damaged, or not what it was.
        """
        number, row = self._locate(index)
        shard = self._shards[number]
        record = self._table(number).slice(row, 1).to_pylist()[0]
        key = f"{shard.name.name}/{record['key']}"
        if record["size"] < 0:
            raise ImageSourceError(
                f"the example {key!r} has no image",
                hint="images end in .jpg, .jpeg, .png or .webp right after the key",
            )
        if record["size"] > DEFAULT_LIMITS.max_bytes:
            raise ImageTooLargeError(
                f"{key!r} has {record['size']} bytes, the limit is {DEFAULT_LIMITS.max_bytes}",
                hint="save it smaller",
            )
        data = self._bytes(shard, record["offset"], record["size"])
        label = None if self._classes is None else int(self._classes.label_of[index])
        return Sample(key=key, image=decode_image(data), label=label, caption=record["caption"])

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        rows = None if self._classes is None else self._classes.rows
        row = index if rows is None else int(rows[index])
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return number, row - int(self._starts[number])

    def _table(self, number: int) -> pa.RecordBatch:
        table = self._open.get(number)
        if table is None:
            shard = self._shards[number]
            index = read_index(shard.index)
            if index is None or index.table.num_rows != shard.n_rows:
                raise ShardError(
                    f"the index of the shard {shard.name.name!r} is gone or damaged: "
                    f"{str(shard.index)!r}",
                    hint="start again: it is made anew",
                )
            table = self._open[number] = index.table
            if len(self._open) > _OPEN_INDICES:
                self._open.popitem(last=False)
        return table

    def _bytes(self, shard: Shard, offset: int, size: int) -> bytes:
        try:
            with self._open_file(shard) as file:
                status = os.fstat(file.fileno())
                if status.st_size != shard.size or shard.stamp not in (0, status.st_mtime_ns):
                    raise ShardError(
                        f"the shard {shard.name.name!r} has changed since the run began",
                        hint="start a new run: its examples are other ones now",
                    )
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise ShardError(
                f"the shard {shown(shard.name.where)!r} cannot be read: {error.strerror or error}",
                hint="put it back, and go on with the run",
            ) from error

    def _open_file(self, shard: Shard) -> BinaryIO:
        if not shard.name.is_remote:
            return open(shard.name.where, "rb")
        while True:
            path, _ = self._remote.fetch(shard.name.where, sha256=shard.sha256)
            try:
                return path.open("rb")
            except FileNotFoundError:  # another process needed the room at this moment
                continue
