"""torchvision's datasets by name.

Nothing is downloaded, and nothing is unpickled: a class whose module imports ``pickle``
(``CIFAR10`` and ``CIFAR100`` read pickled batches, ``LSUN`` a pickled index) is refused. Where a
dataset lets us choose who decodes its files, that is :func:`robustzs.images.decode.decode_image`
with its limits.
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import os
import pickle
import struct
import sys
import tempfile
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision import datasets as torchvision_datasets

from robustzs.errors import DataError, DatasetNotFoundError, ImageDecodeError
from robustzs.images.color import to_rgb
from robustzs.images.decode import decode_image
from robustzs.images.sources import ImageSource
from robustzs.labels import LabelSet
from robustzs_training.data.base import Sample
from robustzs_training.data.resolve import labels_of_wnids
from robustzs_training.data.shards.classes import class_labels
from robustzs_training.recipe import DataPart

_TRAIN = {"train": True, "test": False, "val": False, "validation": False}
_FILLED = ("root", "split", "train", "download", "loader")
_IDX_STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_MAX_IDX_BYTES = 2 << 30
_REFUSED = {
    "ImageNet": "use data.source=wnid-folder on its train or val folder",
    "DatasetFolder": "use data.source=folder",
}
_CONSTRUCTION_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    OSError,
    EOFError,
    LookupError,
    struct.error,
)


class TorchvisionSource:
    """The examples of a torchvision dataset. Make one with :func:`open_torchvision`.

    Args:
        name: Of the class.
        split: Of the dataset.
        root: Its folder.
        dataset: Picklable; gives ``(image, class)``.
        labels: The classes.
        places: int64 ``[n]``, in the dataset's order.
    """

    def __init__(
        self,
        name: str,
        split: str,
        root: Path,
        *,
        dataset: Any,
        labels: LabelSet,
        places: npt.NDArray[np.int64],
    ) -> None:
        self._stem = f"{name}/{split}"
        self._root = root
        self._dataset = dataset
        self._labels = labels
        self._order = np.arange(len(places), dtype=np.int64)
        if len(places) and self._file(0) is not None:
            # Some list files in the order of the disk, which another machine does not have.
            keys = [self.key_of(index) for index in range(len(places))]
            self._order = np.asarray(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
        self._places = places[self._order]

    def __len__(self) -> int:
        return len(self._places)

    @property
    def labels(self) -> LabelSet:
        """The dataset's classes, in its order."""
        return self._labels

    @property
    def label_of(self) -> torch.Tensor:
        """int64 ``[n]``."""
        return torch.from_numpy(self._places)

    @property
    def library_order(self) -> npt.NDArray[np.int64]:
        """int64 ``[n]``: the place of each example in torchvision's own order."""
        return self._order

    @cached_property
    def digest(self) -> str:
        """Over names and sizes of files, or over pixels that are held in memory; and classes."""
        total = hashlib.sha256(f"{self._stem}\n{self._labels.digest}\n".encode())
        total.update(self._places.astype("<i8").tobytes())
        data = getattr(self._dataset, "data", None)
        if isinstance(data, (torch.Tensor, np.ndarray)):
            total.update(np.ascontiguousarray(np.asarray(data)).tobytes())
            return total.hexdigest()
        for index in range(len(self)):
            path = self._file(index)
            size = path.stat().st_size if path is not None and path.is_file() else 0
            total.update(f"{self.key_of(index)}\0{size}\n".encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def key_of(self, index: int) -> str:
        """The file below the dataset's folder, or its number."""
        path = self._file(index)
        if path is None:
            return f"{self._stem}/{index:06d}"
        return Path(os.path.relpath(path, self._root)).as_posix()

    def caption_of(self, index: int) -> None:
        """These datasets have none."""
        return None

    def read(self, index: int) -> Sample:
        """Read one example.

        Raises:
            ImageError: It cannot be used.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        key = self.key_of(index)
        try:
            image = self._dataset[int(self._order[index])][0]
            if not isinstance(image, Image.Image):
                raise ImageDecodeError(f"{key!r} is no image but {type(image).__name__}")
            rgb = to_rgb(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ImageDecodeError(f"{key!r} cannot be decoded: {error}") from error
        return Sample(key=key, image=rgb, label=int(self._places[index]))

    def _file(self, index: int) -> Path | None:
        for attribute in ("samples", "_samples", "imgs", "_image_files", "_images"):
            items = getattr(self._dataset, attribute, None)
            if items is None:
                continue
            item = items[int(self._order[index])]
            path = item[0] if isinstance(item, tuple) else item
            if isinstance(path, (str, Path)):
                return Path(path)
        return None


def open_torchvision(part: DataPart, *, cache: Path) -> TorchvisionSource:
    """Open a torchvision dataset that is on this machine.

    Args:
        part: ``name`` is the class (``Food101``, ``FashionMNIST``), ``path`` the folder that it
            calls ``root``, ``split`` what it calls so (for ``train=``: ``train`` or ``test``). For
            MNIST and its kin ``path`` may also be the folder of the four ``*-ubyte(.gz)`` files,
            such as Debian's ``/usr/share/datasets/fashion-mnist``.
        cache: Keeps unpacked files.

    Raises:
        DatasetNotFoundError: No such dataset, or it is not in ``path``.
        DataError: One that unpickles, has no classes, or cannot be opened.
    """
    name = part.name or ""
    kind = _find(name)
    if not part.path:
        raise DataError(
            f"torchvision's {name} needs data.path: the folder that it calls root",
            hint=_how_to_get(name),
        )
    root = Path(os.path.expanduser(part.path))
    if not root.is_dir():
        raise DatasetNotFoundError(f"there is no folder {part.path!r}", hint=_how_to_get(name))
    if issubclass(kind, torchvision_datasets.MNIST):
        root = _idx_root(name, root, cache)
    elif name == "ImageFolder" and (root / part.split).is_dir():
        root = root / part.split
    dataset = _construct(kind, name, root, part.split)
    labels, places = _classes(dataset, name)
    return TorchvisionSource(name, part.split, root, dataset=dataset, labels=labels, places=places)


def _find(name: str) -> type:
    known = sorted(torchvision_datasets.__all__)
    kind = getattr(torchvision_datasets, name, None) if name in known else None
    if not isinstance(kind, type):
        near = get_close_matches(name, known, n=1)
        raise DatasetNotFoundError(
            f"torchvision has no dataset {name!r}",
            hint=f"did you mean {near[0]}?" if near else "data.name is a class such as Food101",
        )
    if name in _REFUSED:
        raise DataError(
            f"torchvision's {name} is not used: robustzs reads such folders itself",
            hint=_REFUSED[name],
        )
    if unpickles(kind):
        raise DataError(
            f"torchvision's {name} unpickles its files, which can run code; robustzs never does",
            hint="use data.source=huggingface with a Parquet copy of it, or save its images into "
            "a folder for each class and use data.source=folder",
        )
    needed = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and parameter.name not in _FILLED
    ]
    if needed or "root" not in inspect.signature(kind).parameters:
        raise _unsuitable(name, f"it cannot be made from a folder and a split alone: {needed}")
    return kind


def unpickles(kind: type) -> bool:
    """Whether a module that the class is made of imports ``pickle``."""
    modules = [
        sys.modules[base.__module__]
        for base in kind.__mro__
        if base.__module__.startswith("torchvision.")
    ]
    return any(value is pickle for module in modules for value in vars(module).values())


def _construct(kind: type, name: str, root: Path, split: str) -> Any:
    accepted = inspect.signature(kind).parameters
    options: dict[str, Any] = {"root": str(root)}
    if "split" in accepted:
        options["split"] = split
    elif "train" in accepted:
        if split not in _TRAIN:
            raise DataError(
                f"torchvision's {name} has no split {split!r}", hint="it has train and test"
            )
        options["train"] = _TRAIN[split]
    if "download" in accepted:
        options["download"] = False
    if "loader" in accepted:
        options["loader"] = load_file
    try:
        return kind(**options)
    except ModuleNotFoundError as error:
        raise DataError(
            f"torchvision's {name} needs the package {error.name!r}",
            hint=f"pip install {error.name}",
        ) from error
    except _CONSTRUCTION_ERRORS as error:
        text = str(error) or type(error).__name__
        if "not found" in text.lower() or isinstance(error, FileNotFoundError):
            raise DatasetNotFoundError(
                f"torchvision finds no {name} in {str(root)!r}: {text}", hint=_how_to_get(name)
            ) from error
        raise DataError(
            f"torchvision's {name} cannot be opened in {str(root)!r}: {text}",
            hint="check data.split and the files",
        ) from error


def load_file(path: str | Path) -> Image.Image:
    """Decode a file for a torchvision dataset.

    Raises:
        ImageError: It cannot be used.
    """
    return decode_image(ImageSource(str(path)).read())


def _classes(dataset: Any, name: str) -> tuple[LabelSet, npt.NDArray[np.int64]]:
    places = _places(dataset, name)
    wnids = getattr(dataset, "wnids", None)
    classes = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if wnids:
        labels = labels_of_wnids(wnids)[0]
    elif classes:
        texts = [each if isinstance(each, str) else ", ".join(each) for each in classes]
        labels = class_labels(texts, f"torchvision's {name}")
    else:
        raise _unsuitable(name, "it does not say what its classes are called")
    if len(places) == 0 or places.min() < 0 or places.max() >= len(labels):
        raise _unsuitable(name, "this split has examples without a class")
    return labels, places


def _places(dataset: Any, name: str) -> npt.NDArray[np.int64]:
    for attribute in ("targets", "_labels", "labels", "y"):
        values = getattr(dataset, attribute, None)
        if values is not None and len(values) == len(dataset):
            return _whole(values, name)
    for attribute in ("samples", "_samples", "imgs"):
        pairs = getattr(dataset, attribute, None)
        if pairs and isinstance(pairs[0], tuple):
            return _whole([pair[1] for pair in pairs], name)
    raise _unsuitable(name, "it does not tell the classes of its examples without reading them")


def _whole(values: Sequence[int], name: str) -> npt.NDArray[np.int64]:
    try:
        places = np.asarray(values)
    except ValueError as error:
        raise _unsuitable(name, "its targets are no class numbers") from error
    if places.ndim != 1 or places.dtype.kind not in "iu":
        raise _unsuitable(name, "its targets are no class numbers")
    return places.astype(np.int64)


def _idx_root(name: str, root: Path, cache: Path) -> Path:
    """Where MNIST's files lie as torchvision wants them: plain, in ``NAME/raw``."""
    if (root / name).is_dir():
        return root
    found = {stem: root / f"{stem}-ubyte" for stem in _IDX_STEMS}
    for stem, path in found.items():
        if not path.is_file():
            found[stem] = root / f"{stem}-ubyte.gz"
    if not all(path.is_file() for path in found.values()):
        return root  # torchvision says what it misses
    stamps = [f"{path.absolute()}\n{path.stat().st_mtime_ns}" for path in found.values()]
    place = hashlib.sha256("\n".join(stamps).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target = cache / "torchvision" / place
    raw = target / name / "raw"
    try:
        raw.mkdir(parents=True, exist_ok=True)
        for stem, path in found.items():
            _unpack(path, raw / f"{stem}-ubyte")
    except (OSError, EOFError) as error:
        raise DataError(f"{str(root)!r} cannot be unpacked to {str(raw)!r}: {error}") from error
    return target


def _unpack(source: Path, target: Path) -> None:
    if target.exists():
        return
    opener = gzip.open if source.suffix == ".gz" else open
    handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
    try:
        n_bytes = 0
        with os.fdopen(handle, "wb") as written, opener(source, "rb") as packed:
            while piece := packed.read(1 << 20):
                n_bytes += len(piece)
                if n_bytes > _MAX_IDX_BYTES:
                    raise DataError(f"{str(source)!r} unpacks to more than {_MAX_IDX_BYTES} bytes")
                written.write(piece)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _unsuitable(name: str, why: str) -> DataError:
    return DataError(
        f"torchvision's {name} is of no use here: {why}",
        hint="save its images into a folder for each class and use data.source=folder",
    )


def _how_to_get(name: str) -> str:
    return (
        f'get it with: python -c "from torchvision.datasets import {name}; '
        f'{name}(ROOT, download=True)", and set data.path=ROOT'
    )
