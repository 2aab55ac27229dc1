"""Class names and templates as published with CLIP-Benchmark, read from its package.

The package (MIT) is the extra ``evaluate``. Only two of its JSON files are read; none of its
modules is imported. What lies beside shards (``zeroshot_classification_templates.txt``) goes first,
since it is what the shards were measured with.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path

from robustzs.errors import DataError, MissingExtraError, TemplateError
from robustzs.labels import LabelSet
from robustzs.labels.templates import TemplateSet

PACKAGE = "clip-benchmark"
EXTRA = "evaluate"
_NAMES = "clip_benchmark/datasets/en_classnames.json"
_TEMPLATES = "clip_benchmark/datasets/en_zeroshot_classification_templates.json"
_BESIDE = "zeroshot_classification_templates.txt"
_BACKGROUND = "background"


def published_templates(key: str, *, beside: Path | None = None) -> TemplateSet:
    """The templates of a data set.

    Args:
        key: The data set's, as in the package.
        beside: A folder of shards that may bring its own.

    Raises:
        MissingExtraError: The package is not installed.
        TemplateError: It has none for this data set, or they are no templates.
    """
    own = _beside(beside)
    if own is not None:
        texts = [line.strip() for line in own.read_text(encoding="utf-8-sig").splitlines()]
        texts = [text for text in texts if text]
    else:
        texts = _table(_TEMPLATES).get(key, [])
    if not texts:
        raise TemplateError(
            f"{PACKAGE} has no templates for {key!r}", hint="use --templates with a sentence"
        )
    return TemplateSet(
        f"clip-benchmark:{key}", tuple(dict.fromkeys(text.replace("{c}", "{}") for text in texts))
    )


def _beside(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    for each in (folder, folder.parent):
        if (each / _BESIDE).is_file():
            return each / _BESIDE
    return None


def with_published_names(labels: LabelSet, key: str) -> LabelSet:
    """The classes under their published names, in the same order.

    Raises:
        MissingExtraError: The package is not installed.
        DataError: It has another number of names.
    """
    names = _table(_NAMES).get(key, [])
    if len(names) == len(labels) + 1:  # Caltech's background is no class to torchvision
        names = [name for name in names if name != _BACKGROUND]
    if len(names) != len(labels):
        raise DataError(
            f"{PACKAGE} has {len(names)} class names for {key!r}, and the data {len(labels)}",
            hint="this copy of the data set is another one than it names",
        )
    return _renamed(labels, names)


def as_tecoa(labels: LabelSet) -> LabelSet:
    """Names as TeCoA's code refines them: lower case, and spaces for ``_``, ``-`` and ``/``."""
    table = str.maketrans("_-/", "   ")
    return _renamed(labels, [label.prompt.lower().translate(table) for label in labels])


def _renamed(labels: LabelSet, names: list[str]) -> LabelSet:
    return LabelSet(
        tuple(
            replace(label, name=name, prompt=name)
            for label, name in zip(labels, names, strict=True)
        )
    )


@cache
def _table(path: str) -> dict[str, list[str]]:
    try:
        found = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(PACKAGE, EXTRA) from error
    try:
        document = json.loads(Path(str(found.locate_file(path))).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{PACKAGE} {found.version} does not have {path}: {error}",
            hint=f"pip install --force-reinstall {PACKAGE}",
        ) from error
    return {key: [str(text) for text in texts] for key, texts in document.items()}


def package_version() -> str | None:
    """Of the package, for cards; ``None`` where it is not installed."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
