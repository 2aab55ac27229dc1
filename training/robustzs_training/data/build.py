"""From the ``data`` part of a recipe to a source of examples."""

from __future__ import annotations

from pathlib import Path

from robustzs.errors import DatasetNotFoundError, RecipeError
from robustzs_training.data.base import SampleSource
from robustzs_training.data.captions_table import read_captions
from robustzs_training.data.folders import open_folder
from robustzs_training.data.recaption import recaption, with_captions
from robustzs_training.recipe import DataPart

_FOLDERS = ("folder", "wnid-folder")


def build_source(part: DataPart, *, cache: Path, seed: int = 0) -> SampleSource:
    """Open what a recipe trains on.

    Args:
        part: What the recipe says.
        cache: Where downloads and indexes are kept.
        seed: Of the run; only shuffled captions depend on it.

    Raises:
        RecipeError: A path or name is missing, or one that has no meaning is given.
        DatasetNotFoundError: No such folder, file or dataset.
        DataError: The data cannot be used.
    """
    source = _opened(part, cache)
    if part.captions is not None and part.source not in _FOLDERS:
        source = with_captions(source, read_captions(_path(part.captions)))
    return recaption(source, part.caption_mode, template=part.template, seed=seed)


def _opened(part: DataPart, cache: Path) -> SampleSource:
    _check(part)
    if part.source in _FOLDERS:
        return open_folder(
            _path(part.path or ""),
            split=part.split,
            captions=_path(part.captions) if part.captions is not None else None,
            by_wnid=part.source == "wnid-folder",
        )
    if part.source == "webdataset":
        from robustzs_training.data.webdataset import open_webdataset

        return open_webdataset(part, cache=cache)
    if part.source == "torchvision":
        from robustzs_training.data.named import open_torchvision

        return open_torchvision(part, cache=cache)
    if part.source == "huggingface":
        from robustzs_training.data.named import open_huggingface

        return open_huggingface(part, cache=cache)
    from robustzs_training.data.openmoji import open_openmoji

    return open_openmoji(part, cache=cache)


def _check(part: DataPart) -> None:
    by_path = part.source in (*_FOLDERS, "webdataset")
    by_name = part.source in ("torchvision", "huggingface")
    if by_path and not part.path:
        raise RecipeError(
            f"data.source {part.source!r} needs a path", hint="add data.path=/where/the/images/are"
        )
    if by_name and not part.name and not (part.source == "huggingface" and part.path):
        raise RecipeError(
            f"data.source {part.source!r} needs the name of a dataset", hint="add data.name=NAME"
        )
    if part.source == "openmoji" and part.name not in (None, "kinds"):
        raise RecipeError(
            f"data.name {part.name!r} is not what OpenMoji's drawings can be sorted by",
            hint="data.name=kinds for kinds of things; without a name, every thing is a class",
        )
    if part.name and not by_name and part.source != "openmoji":
        raise RecipeError(
            f"data.name {part.name!r} has no meaning for data.source {part.source!r}",
            hint="use data.path, or the source torchvision or huggingface",
        )


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise DatasetNotFoundError(
            f"{text!r} names no home folder: {error}", hint="give the whole path"
        ) from error
