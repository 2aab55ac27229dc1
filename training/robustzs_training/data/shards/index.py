"""Where every example of a shard lies: made once by a scan, kept as an Arrow file, mapped to read.

Loader processes map the same file, so that captions and names of any number of examples cost no
memory of their own, and a copy of the source for a loader process is small.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock
from webdataset.tariterators import base_plus_ext

from robustzs.errors import ShardError
from robustzs_training.data.shards.tar import Member, scan_tar

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp"})
TEXT_EXTENSIONS = frozenset({"txt", "json", "cls"})
MAX_TEXT_BYTES = 1 << 20
_VERSION = 1
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # -1: no image
        pa.field("caption", pa.string()),
        pa.field("label", pa.string()),
    ]
)


@dataclass
class _Example:
    """What the scan has found for one key so far."""

    key: str
    image: Member | None = None
    texts: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The examples of one shard.

    Attributes:
        table: One row per example: ``key``, ``offset``, ``size``, ``caption``, ``label`` as it
            stands in the shard. ``size`` is -1 where there is no image.
        digest: Sha256 over keys, image sizes, captions and labels.
        ignored: How many members of each kind were left alone, by extension.
    """

    table: pa.RecordBatch
    digest: str
    ignored: dict[str, int]


def load_index(shard: Path, name: str, *, identity: str, folder: Path) -> tuple[Path, ShardIndex]:
    """Read the index of a shard, making it first where there is none.

    Args:
        shard: The tar.
        name: What messages call it.
        identity: Changes when the shard's content does.
        folder: Where indices are kept.

    Returns:
        The index file and what it holds.

    Raises:
        ShardError: The shard is damaged, or the index cannot be written.
        FileNotFoundError: The shard is gone.
    """
    stem = hashlib.sha256(f"{_VERSION}\n{name}\n{identity}".encode()).hexdigest()[:32]
    path = folder / f"{stem}.arrow"
    known = read_index(path)
    if known is None:
        with _one_at_a_time(path):
            known = read_index(path)  # another process may have made it meanwhile
            if known is None:
                made = build_index(shard, name)
                _write(path, made)
                known = read_index(path) or made  # mapped: the memory is free again
    return path, known


def read_index(path: Path) -> ShardIndex | None:
    """Map an index file; ``None`` when there is none or it is not one."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            metadata = reader.schema.metadata or {}
            if reader.num_record_batches != 1 or not reader.schema.remove_metadata().equals(
                _SCHEMA
            ):
                return None
            table = reader.get_batch(0)
        table.validate(full=True)
        ignored = json.loads(metadata[b"ignored"])
        return ShardIndex(table=table, digest=metadata[b"digest"].decode(), ignored=ignored)
    except (OSError, pa.ArrowException, ValueError, KeyError):
        return None


def build_index(shard: Path, name: str) -> ShardIndex:
    """Scan a shard and read its texts.

    Members are grouped by WebDataset's rule: the key ends at the first dot after the last slash.

    Raises:
        FileNotFoundError: It is gone.
        ShardError: Damaged, or the same member twice for one example.
    """
    examples: dict[str, _Example] = {}
    ignored: Counter[str] = Counter()
    with shard.open("rb") as file, shard.open("rb") as beside:
        for member in scan_tar(file, name):
            key, extension = base_plus_ext(member.name)
            kind = (extension or "").lower()
            if member.size < 0:
                ignored["not a regular file"] += 1
            elif key is None or _is_meta(member.name):
                ignored["no key"] += 1
            elif kind in IMAGE_EXTENSIONS:
                example = examples.setdefault(key, _Example(key))
                if example.image is not None:
                    raise _twice(name, member, "image")
                example.image = member
            elif kind in TEXT_EXTENSIONS:
                example = examples.setdefault(key, _Example(key))
                if kind in example.texts:
                    raise _twice(name, member, f".{kind}")
                beside.seek(member.offset)
                text = beside.read(member.size) if member.size <= MAX_TEXT_BYTES else b"\xff"
                example.texts[kind] = _decode(text)
                if example.texts[kind] is None:
                    ignored[f".{kind} that cannot be read"] += 1
            else:
                ignored[f".{_printable(kind)[:32]}"] += 1
    return _to_index(list(examples.values()), ignored)


def _to_index(examples: list[_Example], ignored: Counter[str]) -> ShardIndex:
    columns: dict[str, list[Any]] = {each: [] for each in _SCHEMA.names}
    digest = hashlib.sha256()
    for example in examples:
        fields = _json_fields(example.texts.get("json"), ignored)
        caption = _first(example.texts.get("txt"), fields.get("caption"), fields.get("text"))
        label = _first(
            example.texts.get("cls"), fields.get("wnid"), fields.get("label"), fields.get("cls")
        )
        image = example.image or Member("", 0, -1)
        row = (_printable(example.key), image.offset, image.size, caption, label)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
        line = json.dumps([row[0], image.size, caption, label], separators=(",", ":"))
        digest.update(line.encode("ascii") + b"\n")
    table = pa.RecordBatch.from_pydict(columns, schema=_SCHEMA)
    return ShardIndex(table=table, digest=digest.hexdigest(), ignored=dict(sorted(ignored.items())))


def _json_fields(text: str | None, ignored: Counter[str]) -> dict[str, str]:
    """Texts and whole numbers of a JSON object, as text."""
    if text is None:
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        ignored[".json that cannot be read"] += 1
        return {}
    return {
        key: _clean(str(value))
        for key, value in document.items()
        if isinstance(value, (str, int)) and not isinstance(value, bool)
    }


def _first(*texts: str | None) -> str | None:
    return next((text for text in texts if text), None)


def _decode(data: bytes) -> str | None:
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None


def _clean(text: str) -> str:
    # JSON can write half of a surrogate pair, which no UTF-8 can.
    return text.encode("utf-8", "replace").decode("utf-8").strip()


def _printable(name: str) -> str:
    """A name that is not UTF-8 keeps its odd bytes as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_meta(name: str) -> bool:
    """WebDataset keeps names such as ``__meta__`` for itself."""
    first = name.split("/", 1)[0]
    return first.startswith("__") and first.split(".", 1)[0].endswith("__")


def _twice(name: str, member: Member, what: str) -> ShardError:
    return ShardError(
        f"the shard {name!r} holds a second {what} for one example: "
        f"{_printable(member.name)!r} at byte {member.offset}",
        hint="a key ends at the first dot of a name: make keys different before it",
    )


def _write(path: Path, index: ShardIndex) -> None:
    metadata = {"digest": index.digest, "ignored": json.dumps(index.ignored)}
    table = index.table.replace_schema_metadata(metadata)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_batch(table)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Of all processes that want this index, one makes it."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(path: Path, error: OSError) -> ShardError:
    return ShardError(
        f"the index of the shards cannot be written to {str(path.parent)!r}: {error}",
        hint="free space, or choose another cache folder",
    )
