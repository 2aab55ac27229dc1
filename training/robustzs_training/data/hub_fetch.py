"""Getting a Hugging Face dataset: from the Hub, its cache, or a local folder. No code is run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import datasets
import httpx
import pyarrow as pa
from datasets import packaged_modules
from huggingface_hub import constants as hub_constants
from huggingface_hub.errors import HfHubHTTPError

from robustzs.errors import DataError, DatasetNotFoundError
from robustzs_training.recipe import DataPart

_PART = r"\w[\w.-]*"
_NAME = re.compile(
    rf"(?P<repo>{_PART}(?:/{_PART})?)(?:@(?P<revision>[\w./-]+))?(?::(?P<config>[\w.+ -]+))?",
    re.ASCII,
)
_READERS = ("parquet", "arrow", "imagefolder")
_CACHED = "cache"  # what one of these prepared earlier, when the Hub is out of reach
_HUB_TIMEOUT = httpx.Timeout(10.0)
_OUT_OF_REACH: tuple[type[Exception], ...] = (
    ConnectionError,
    # The Hub's client stands on requests, httpx or httpx2, by its version.
    *(
        base
        for base in HfHubHTTPError.__mro__
        if issubclass(base, Exception)
        and base.__module__.partition(".")[0] in ("requests", "httpx", "httpx2")
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What to ask ``datasets`` for."""

    path: str
    config: str | None = None
    revision: str | None = None
    is_local: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A dataset that is here.

    Attributes:
        dataset: Map-style.
        name: For keys.
        folders: Where files may lie that rows name instead of holding their bytes; keys are
            relative to the first.
    """

    dataset: datasets.Dataset
    name: str
    folders: tuple[Path, ...]


def prepare(part: DataPart, cache: Path) -> Prepared:
    """Fetch and prepare what a recipe names.

    Raises:
        DatasetNotFoundError: No such dataset or split, or the Hub cannot be reached.
        DataError: It needs code of its own, or is of another format.
    """
    wanted = _wanted(part)
    origin = repr(part.path or part.name)
    with _reachable(wanted):
        builder = _builder(wanted, origin, cache)
        _check_reader(builder, origin)
        dataset = _prepare(builder, part.split, origin)
    folders = (Path(wanted.path),) if wanted.is_local else (cache, Path(hub_constants.HF_HUB_CACHE))
    name = f"{Path(os.path.abspath(wanted.path)).name}/{part.split}"
    return Prepared(dataset=dataset, name=name, folders=folders)


def _wanted(part: DataPart) -> _Wanted:
    if part.path:
        if part.name:
            raise DataError(
                "a huggingface source has a name or a path, not both",
                hint="data.name=REPO:CONFIG for the Hub, data.path=DIR for a local folder",
            )
        folder = os.path.expanduser(part.path)
        if not os.path.isdir(folder):
            raise DatasetNotFoundError(f"there is no folder {part.path!r}", hint="check the path")
        return _Wanted(path=folder, is_local=True)
    match = _NAME.fullmatch(part.name or "")
    if match is None or match["repo"] in packaged_modules._PACKAGED_DATASETS_MODULES:
        raise DataError(
            f"{part.name!r} is not the name of a Hugging Face dataset",
            hint="write data.name=uoft-cs/cifar10 or data.name=REPO:CONFIG; a local folder is "
            "data.path=DIR",
        )
    if os.path.exists(match["repo"]):
        raise DataError(
            f"{match['repo']!r} is both a name on the Hub and a file or folder here",
            hint=f"write data.path={match['repo']} for the local one, else run from another folder",
        )
    return _Wanted(path=match["repo"], config=match["config"], revision=match["revision"])


@contextmanager
def _reachable(wanted: _Wanted) -> Iterator[None]:
    """Ask once whether the Hub answers; when not, only its cache is looked at.

    The package itself would try six times for each of several files.
    """
    before = datasets.config.HF_HUB_OFFLINE
    try:
        if not wanted.is_local and not before:
            try:
                httpx.head(hub_constants.ENDPOINT, timeout=_HUB_TIMEOUT)
            except httpx.TransportError:
                datasets.config.HF_HUB_OFFLINE = True
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _builder(wanted: _Wanted, origin: str, cache: Path) -> datasets.DatasetBuilder:
    try:
        return datasets.load_dataset_builder(
            wanted.path,
            name=wanted.config,
            revision=wanted.revision,
            cache_dir=str(cache / "huggingface"),
        )
    except _OUT_OF_REACH as error:
        raise DatasetNotFoundError(
            f"the dataset {origin} is not in the cache, and {hub_constants.ENDPOINT} cannot be "
            "reached",
            hint="check the network; or copy its Parquet files here and set data.path=DIR",
        ) from error
    except FileNotFoundError as error:  # also what the package raises for unknown names
        raise DatasetNotFoundError(
            f"the dataset {origin} cannot be found: {_first_line(error)}", hint="check the name"
        ) from error
    except RuntimeError as error:
        if "script" not in str(error):
            raise DataError(f"{origin} cannot be opened: {_first_line(error)}") from error
        raise DataError(
            f"{origin} needs a loading script, which is somebody's code; robustzs never runs it",
            hint="use a Parquet copy: many repositories have one as revision refs/convert/parquet "
            "(data.name=REPO@refs/convert/parquet)",
        ) from error
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{origin} cannot be opened: {_first_line(error)}",
            hint="a configuration is chosen as data.name=REPO:CONFIG",
        ) from error


def _check_reader(builder: datasets.DatasetBuilder, origin: str) -> None:
    """Let only those of the package's readers work that run and unpickle nothing."""
    module = type(builder).__module__
    if module in {f"datasets.packaged_modules.{each}.{each}" for each in (*_READERS, _CACHED)}:
        return
    kind = module.rsplit(".", 1)[-1]
    shards = "for .tar shards use data.source=webdataset; " if kind == "webdataset" else ""
    raise DataError(
        f"{origin} is read by {kind!r}; robustzs takes {', '.join(_READERS)}",
        hint=f"{shards}other data are saved as Parquet with a column 'image'",
    )


def _prepare(builder: datasets.DatasetBuilder, split: str, origin: str) -> datasets.Dataset:
    try:
        builder.download_and_prepare()
    except _OUT_OF_REACH as error:
        raise DatasetNotFoundError(
            f"{origin} could not be fetched: {_first_line(error)}",
            hint="check the network, and start again: what has come is kept",
        ) from error
    except (datasets.exceptions.DatasetsError, OSError, ValueError, pa.ArrowException) as error:
        reason = _first_line(error.__cause__ or error)
        raise DataError(
            f"{origin} cannot be read: {reason}", hint="a file may be damaged: fetch it again"
        ) from error
    known = sorted(str(each) for each in builder.info.splits or ())
    if split not in known:
        raise DatasetNotFoundError(
            f"{origin} has no split {split!r}", hint=f"data.split is one of {', '.join(known)}"
        )
    dataset: datasets.Dataset = builder.as_dataset(split=split)
    if not len(dataset):
        raise DataError(f"the split {split!r} of {origin} is empty")
    return dataset


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
