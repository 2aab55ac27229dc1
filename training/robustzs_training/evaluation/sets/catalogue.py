"""The data sets of the papers: what they are called, where they may lie, and how to get them.

Below one folder each may lie as CLIP-Benchmark's shards (``wds_vtab-cifar10/test/*.tar`` with
``classnames.txt``), as torchvision keeps it, or as one folder for each class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustzs.errors import DatasetNotFoundError

_HUB = "clip-benchmark"
_SPLITS = ("test", "val", "validation")


@dataclass(frozen=True, kw_only=True)
class NamedDataset:
    """A data set that papers measure on.

    Attributes:
        name: As CLIP-Benchmark has it where it does.
        shards: Name of its shards on the Hub; ``None`` where there are none.
        torchvision: The class that reads it from disk; ``None`` where none does without pickles.
        marker: What then lies below the root.
        folders: Other names of its folder.
        key: Of its templates in CLIP-Benchmark.
        names_key: Of its class names there; ``None``: the data set's own are used.
        split: What torchvision calls the part that is measured on.
        source: Where it can be had, if not as shards.
    """

    name: str
    shards: str | None = None
    torchvision: str | None = None
    marker: str | None = None
    folders: tuple[str, ...] = ()
    key: str = "imagenet1k"
    names_key: str | None = None
    split: str = "test"
    source: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """Folders below the root that it may lie in, best first."""
        hub = () if self.shards is None else (self.shards, self.shards.removeprefix("wds_"))
        return tuple(dict.fromkeys((*hub, self.name, *self.folders)))

    @property
    def how_to_get(self) -> str:
        """One line for whoever lacks it."""
        if self.shards is not None:
            return (
                f"hf download --repo-type dataset {_HUB}/{self.shards} "
                f"--local-dir ROOT/{self.shards}"
            )
        return f"{self.source}; put it into ROOT/{self.places[0]}, one folder for each class"

    def locate(self, root: Path) -> str | None:
        """What :func:`open_set` opens it by; ``None`` where it is not below ``root``."""
        for place in self.places:
            folder = root / place
            if _holds_shards(folder):
                return f"webdataset:{folder}"
        if self.marker is not None and (root / self.marker).exists():
            return f"torchvision:{self.torchvision}:{root}"
        for place in self.places:
            if _holds_folders(root / place):
                return f"folder:{root / place}"
        return None


def _holds_shards(folder: Path) -> bool:
    below = (folder, *(folder / split for split in _SPLITS))
    return any(next(each.glob("*.tar"), None) is not None for each in below)


def _holds_folders(folder: Path) -> bool:
    return folder.is_dir() and any(
        each.is_dir() and not each.name.startswith(".") for each in folder.iterdir()
    )


def check_root(root: Path) -> None:
    """Make sure that there is such a folder.

    Raises:
        DatasetNotFoundError: There is none.
    """
    if not root.is_dir():
        raise DatasetNotFoundError(
            f"there is no folder {str(root)!r}",
            hint="--root is the folder that the data sets lie in, each in its own",
        )


_IMAGENET = "image-net.org, for registered users"
_ALL = (
    NamedDataset(name="cifar10", shards="wds_vtab-cifar10", key="cifar10"),
    NamedDataset(name="cifar100", shards="wds_vtab-cifar100", key="cifar100"),
    NamedDataset(
        name="stl10", shards="wds_stl10", torchvision="STL10", marker="stl10_binary", key="stl10"
    ),
    NamedDataset(
        name="sun397", shards="wds_sun397", torchvision="SUN397", marker="SUN397", key="sun397"
    ),
    NamedDataset(
        name="cars",
        shards="wds_cars",
        torchvision="StanfordCars",
        marker="stanford_cars",
        folders=("stanford-cars",),
        key="cars",
    ),
    NamedDataset(
        name="food101",
        shards="wds_food101",
        torchvision="Food101",
        marker="food-101",
        key="food101",
    ),
    NamedDataset(
        name="pets",
        shards="wds_vtab-pets",
        torchvision="OxfordIIITPet",
        marker="oxford-iiit-pet",
        key="pets",
        names_key="pets",
    ),
    NamedDataset(
        name="flowers",
        shards="wds_vtab-flowers",
        torchvision="Flowers102",
        marker="flowers-102",
        folders=("flowers102",),
        key="flowers",
        names_key="flowers",
    ),
    NamedDataset(
        name="country211",
        shards="wds_country211",
        torchvision="Country211",
        marker="country211",
        key="country211",
        names_key="country211",
    ),
    NamedDataset(
        name="dtd", shards="wds_vtab-dtd", torchvision="DTD", marker="dtd/dtd/labels", key="dtd"
    ),
    NamedDataset(
        name="eurosat",
        shards="wds_vtab-eurosat",
        torchvision="EuroSAT",
        marker="eurosat/2750",
        key="eurosat",
        names_key="eurosat",
    ),
    NamedDataset(
        name="fgvc_aircraft",
        shards="wds_fgvc_aircraft",
        torchvision="FGVCAircraft",
        marker="fgvc-aircraft-2013b",
        key="fgvc_aircraft",
    ),
    NamedDataset(
        name="pcam",
        shards="wds_vtab-pcam",
        torchvision="PCAM",
        marker="pcam/camelyonpatch_level_2_split_test_x.h5",
        key="pcam",
        names_key="pcam",
    ),
    NamedDataset(
        name="hateful_memes",
        folders=("hateful-memes",),
        source="hatefulmemeschallenge.com, which gives it no more: keep to a copy that you have",
    ),
    NamedDataset(
        name="caltech101",
        shards="wds_vtab-caltech101",
        torchvision="Caltech101",
        marker="caltech101/101_ObjectCategories",
        key="caltech101",
        names_key="caltech101",
    ),
    NamedDataset(
        name="caltech256",
        torchvision="Caltech256",
        marker="caltech256/256_ObjectCategories",
        key="caltech101",
        source="data.caltech.edu/records/nyy15-4j048",
    ),
    NamedDataset(
        name="imagenet1k",
        shards="wds_imagenet1k",
        folders=("imagenet", "ImageNet", "ILSVRC2012"),
        source=_IMAGENET,
    ),
    NamedDataset(
        name="imagenetv2",
        shards="wds_imagenetv2",
        folders=("imagenetv2-matched-frequency-format-val", "imagenet-v2"),
    ),
    NamedDataset(name="imagenet-r", shards="wds_imagenet-r"),
    NamedDataset(
        name="imagenet_sketch", shards="wds_imagenet_sketch", folders=("imagenet-sketch", "sketch")
    ),
    NamedDataset(name="imagenet-a", shards="wds_imagenet-a"),
    NamedDataset(name="imagenet-o", shards="wds_imagenet-o"),
)
CATALOGUE = {dataset.name: dataset for dataset in _ALL}
"""All data sets by name."""
