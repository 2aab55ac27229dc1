"""The caption table: one row an image, Parquet or JSON lines, there whole or not at all.

| column | what |
|---|---|
| ``key`` | path of the image below its folder, with ``/`` |
| ``caption`` | one line of text |
| ``source`` | ``gloss``, ``transformers`` or ``openai`` |
| ``prompt`` | what the model was asked |
| ``model`` | who answered |
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from robustzs.errors import CaptionError, UsageError

COLUMNS = ("key", "caption", "source", "prompt", "model")
SUFFIXES = (".jsonl", ".parquet")
_ROWS_PER_GROUP = 50_000

Row = tuple[str, str, str, str, str]


def check_output(path: Path) -> None:
    """Make sure that the name says which format is meant.

    Raises:
        UsageError: It does not.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"captions cannot be written as {str(path)!r}",
            hint=f"end the name in {' or '.join(SUFFIXES)}",
        )


def write_table(path: Path, rows: Iterable[Row]) -> int:
    """Write rows in their order; the suffix chooses the format.

    Returns:
        How many there were.

    Raises:
        UsageError: The suffix is of neither format.
        CaptionError: The file cannot be written.
    """
    check_output(path)
    writer = _write_parquet if path.suffix.lower() == ".parquet" else _write_jsonl
    try:
        with _whole(path) as stream:
            return writer(stream, iter(rows))
    except OSError as error:
        raise CaptionError(
            f"cannot write {str(path)!r}: {error.strerror or error}",
            hint="make room or name another --output; the journal keeps every caption",
        ) from error


def _write_jsonl(stream: BinaryIO, rows: Iterator[Row]) -> int:
    n_rows = 0
    for row in rows:
        line = json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=True)
        stream.write(line.encode("ascii") + b"\n")
        n_rows += 1
    return n_rows


def _write_parquet(stream: BinaryIO, rows: Iterator[Row]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    n_rows = 0
    with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        while group := list(itertools.islice(rows, _ROWS_PER_GROUP)):
            columns: Sequence[Sequence[str]] = list(zip(*group, strict=True))
            writer.write_table(pa.table([pa.array(c, pa.string()) for c in columns], schema=schema))
            n_rows += len(group)
    return n_rows


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name when it is complete and on the disk."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
