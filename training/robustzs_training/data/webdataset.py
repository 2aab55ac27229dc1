"""WebDataset shards as an indexed source: local folders and patterns, or ``https`` addresses.

Why not WebDataset's own pipeline: it reads shards from front to back, so that what a process gets
depends on how many there are, a killed run cannot go on in the middle, and shuffling is bounded by
a buffer. Its decoders unpickle ``.pyd`` and ``.pickle``, and its opener runs ``pipe:`` commands.
Here each shard's headers are scanned once (`shards/tar.py`, by the standard library's ``tarfile``)
and example ``i`` is then read by its place, in any order, by any process. Grouping by key and brace
patterns are WebDataset's own functions, so its shards are read as they are.

Members that count, by extension: ``.jpg .jpeg .png .webp`` (the image), ``.txt`` (its caption),
``.json`` (``caption`` or ``text``; ``wnid``, ``label`` or ``cls``), ``.cls`` (its label). Others
are counted in ``ignored`` and never opened; ``.pyd .pkl .pickle .pth .npy`` are among them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from robustzs.errors import DataError, DatasetNotFoundError, DuplicateLabelError, ShardError
from robustzs.labels import LabelSet
from robustzs_training.data.base import Finding
from robustzs_training.data.shards.classes import (
    CLASS_FILES,
    is_imagenet,
    is_number,
    resolve_values,
)
from robustzs_training.data.shards.download import ShardCache
from robustzs_training.data.shards.index import ShardIndex, load_index
from robustzs_training.data.shards.names import ShardName, find_shards, shown
from robustzs_training.data.shards.source import Classes, Shard, ShardSource
from robustzs_training.recipe import DataPart

_PARALLEL = 4
_ATTEMPTS = 5
_SHOWN = 20
_MAX_CLASS_FILE_BYTES = 32 << 20

_Opened = tuple[Shard, ShardIndex]


def open_webdataset(
    part: DataPart, *, cache: Path, max_cache_bytes: int | None = None
) -> ShardSource:
    """Open WebDataset shards.

    The first time, every shard is read once from front to back (remote ones are fetched); what is
    found is kept in ``cache``, so the next time takes a moment. An example without an image is one
    that cannot be read; where others have labels, one without does not count as an example, and
    is told in ``findings``.

    Args:
        part: ``path`` is a pattern such as ``DIR/train-{0000..0146}.tar``, a folder of tars, or
            ``https://host/train-{00..09}.tar``. Where labels are numbers, ``classes.txt``,
            ``classes.json`` or ``classnames.txt`` lies beside the shards or in the folder above.
        cache: Keeps indices and fetched shards.
        max_cache_bytes: Of fetched shards; those used longest ago go first. ``None``: no limit.

    Raises:
        DatasetNotFoundError: No such folder, file or address.
        ShardError: A shard is damaged or changed, or an address is refused.
        DataError: No example in the shards, or labels that cannot be classes.
    """
    if not part.path:
        raise DataError(
            "a webdataset source needs a path", hint="data.path=DIR/train-{0000..0009}.tar"
        )
    names = find_shards(part.path, split=part.split)
    remote = ShardCache(folder=cache / "shards", max_bytes=max_cache_bytes)
    opened = _open_all(names, remote, cache / "shard-index")
    n_rows = sum(shard.n_rows for shard, _ in opened)
    ignored: Counter[str] = Counter()
    for _, index in opened:
        ignored.update(index.ignored)
    if not any(
        pc.any(pc.greater_equal(index.table.column("size"), 0)).as_py() for _, index in opened
    ):
        seen = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common(8))
        raise DataError(
            f"there is no image in the {len(opened)} shards of {shown(part.path)!r}"
            + (f"; they hold {seen}" if seen else ""),
            hint="an example is KEY.jpg (.jpeg, .png, .webp) with KEY.txt, KEY.json or KEY.cls, "
            "and KEY has no dot",
        )
    findings: list[Finding] = []
    classes = _classes(opened, n_rows, remote, findings)
    _missing_captions(opened, n_rows, findings)
    return ShardSource(
        [shard for shard, _ in opened],
        remote,
        classes=classes,
        digest=_digest(opened, classes),
        findings=tuple(findings),
        ignored=dict(ignored),
    )


def _open_all(names: Sequence[ShardName], remote: ShardCache, folder: Path) -> list[_Opened]:
    # In a cache that may not hold them all, one after the other.
    pool = ThreadPoolExecutor(_PARALLEL if remote.max_bytes is None else 1)
    try:
        return list(pool.map(partial(_open, remote=remote, folder=folder), names))
    finally:
        pool.shutdown(cancel_futures=True)


def _open(name: ShardName, *, remote: ShardCache, folder: Path) -> _Opened:
    for attempt in range(_ATTEMPTS):
        sha256 = None
        path = Path(name.where)
        if name.is_remote:
            path, sha256 = remote.fetch(name.where)
        try:
            status = path.stat()
            identity = sha256 or f"{path.absolute()}\n{status.st_size}\n{status.st_mtime_ns}"
            place, index = load_index(path, name.name, identity=identity, folder=folder)
            break
        except OSError as error:
            # Another process may have needed its room in the cache before we opened it.
            if name.is_remote and attempt < _ATTEMPTS - 1:
                continue
            raise ShardError(
                f"the shard {shown(name.where)!r} cannot be read: {error.strerror or error}",
                hint="allow a larger cache" if name.is_remote else "check its permissions",
            ) from error
    shard = Shard(
        name=name,
        index=place,
        n_rows=index.table.num_rows,
        size=status.st_size,
        stamp=0 if name.is_remote else status.st_mtime_ns,
        sha256=sha256,
    )
    return shard, index


def _digest(opened: Sequence[_Opened], classes: Classes | None) -> str:
    digest = hashlib.sha256()
    for shard, index in opened:
        digest.update(f"{shard.name.name}\0{index.digest}\n".encode("utf-8", "surrogateescape"))
    if classes is not None:
        digest.update(classes.labels.digest.encode())
    return digest.hexdigest()


def _classes(
    opened: Sequence[_Opened], n_rows: int, remote: ShardCache, findings: list[Finding]
) -> Classes | None:
    column = pa.chunked_array([index.table.column("label") for _, index in opened])
    column = column.dictionary_encode().unify_dictionaries().combine_chunks()
    values: list[str] = column.dictionary.to_pylist()
    if not values:
        return None
    first = opened[0][0].name
    class_file = _class_file(first, remote, needed=any(map(is_number, values)))
    resolved = resolve_values(values, class_file, f"the shard {first.name!r}")
    if resolved.finding is not None:
        findings.append(resolved.finding)
    codes = np.asarray(column.indices.fill_null(len(values)))
    places = np.asarray([*resolved.places, -1], dtype=np.int64)[codes]
    without = np.flatnonzero(places < 0)
    if len(without) == n_rows:
        raise DataError(
            f"no label in the shards is one of the {len(resolved.labels)} classes in the file "
            f"beside them, for example {values[0][:80]!r}",
            hint="numbers count from 0; names must be those of the file",
        )
    findings.append(_finding("missing-label", opened, without, n_rows))
    rows = np.flatnonzero(places >= 0) if len(without) else None
    label_of = torch.from_numpy(places if rows is None else places[rows])
    return Classes(labels=resolved.labels, label_of=label_of, rows=rows)


def _class_file(first: ShardName, remote: ShardCache, *, needed: bool) -> LabelSet | None:
    """What lies beside the first shard, or in the folder above; a remote one only when needed."""
    if not first.is_remote:
        folder = Path(first.where).absolute().parent
        for path in (beside / name for beside in (folder, folder.parent) for name in CLASS_FILES):
            if path.is_file():
                return _read_classes(path)
        return None
    if not needed:
        return None
    base = shown(first.where).rsplit("/", 1)[0]
    small = replace(remote, max_file_bytes=_MAX_CLASS_FILE_BYTES)
    for name in CLASS_FILES:
        try:
            path, _ = small.fetch(f"{base}/{name}", suffix=Path(name).suffix)
        except DatasetNotFoundError:
            continue
        return _read_classes(path)
    return None


def _read_classes(path: Path) -> LabelSet:
    try:
        return LabelSet.from_file(path)
    except DuplicateLabelError:
        # Published lists of ImageNet's classes call two of them "missile" and two "sunglasses".
        names = path.read_text(encoding="utf-8-sig").splitlines()
        if is_imagenet(names):
            return LabelSet.imagenet1k()
        raise


def _missing_captions(opened: Sequence[_Opened], n_rows: int, findings: list[Finding]) -> None:
    columns = [index.table.column("caption") for _, index in opened]
    if sum(column.null_count for column in columns) == n_rows:
        return  # these shards have no captions at all: that is for the objective to judge
    missing = np.flatnonzero(np.concatenate([np.asarray(column.is_null()) for column in columns]))
    findings.append(_finding("missing-caption", opened, missing, n_rows))


def _finding(
    kind: Literal["missing-label", "missing-caption"],
    opened: Sequence[_Opened],
    rows: npt.NDArray[np.int64],
    n_rows: int,
) -> Finding:
    starts = np.cumsum([0, *(shard.n_rows for shard, _ in opened)])
    first = []
    for row in rows[:_SHOWN]:
        number = int(np.searchsorted(starts, row, side="right")) - 1
        shard, index = opened[number]
        first.append(f"{shard.name.name}/{index.table.column('key')[int(row - starts[number])]}")
    return Finding(kind=kind, count=len(rows), total=n_rows, first=tuple(first))
