"""Models by name: the embedded ones, the user's own, or any folder.

An embedded bundle is a folder of ``robustzs/models``; a user's bundle is a folder of
``settings.models_dir()``. A name that both have means the embedded one, and so does an alias of an
embedded one; the user's bundle of that name is then found by its path alone.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustzs import settings
from robustzs.bundle.manifest import MANIFEST_NAME
from robustzs.bundle.store import Bundle
from robustzs.errors import ModelNotFoundError, RobustZSError
from robustzs.files import is_closed

# Until a hardened model ships, the default is the clean one.
ALIASES = {"robustzs-lite": "robustzs-lite-clean"}

LocationKind = Literal["embedded", "user"]


@dataclass(frozen=True)
class ModelInfo:
    """One line of the list of models.

    Attributes:
        name: What to pass as ``model``: the folder's name, or its path where an embedded model has
            that name.
        aliases: Other names of it.
        kind: Where it lies.
        path: Its folder.
        version: From its record; like the rest ``None`` when the bundle is broken.
        digest: Of its record.
        size: Bytes of all its files.
        description: From its record.
        robustness: The card's own one-line summary (``card.json``, ``robustness``), if it has one.
        error: Why it is broken, or ``None``.
    """

    name: str
    aliases: tuple[str, ...]
    kind: LocationKind
    path: Path
    version: str | None = None
    digest: str | None = None
    size: int | None = None
    description: str = ""
    robustness: str | None = None
    error: RobustZSError | None = None


def embedded_dir() -> Path:
    """The folder of the bundles that the package carries."""
    return Path(__file__).parent.parent / "models"


def resolve_model(name_or_path: str | Path) -> Path:
    """The folder of a model.

    A known name wins over a folder of that name in the working folder; ``./name`` means the
    folder.

    Args:
        name_or_path: A name of ``list_models``, an alias, or the path of a bundle.

    Raises:
        ModelNotFoundError: there is no such model; the message offers similar names.
    """
    text = str(name_or_path)
    folders = _folders()
    if not isinstance(name_or_path, Path):
        found = folders.get(text) or folders.get(ALIASES.get(text, text))
        if found is not None:
            return found[1]
    path = Path(text)
    if text and is_closed(path):
        raise ModelNotFoundError(f"the folder {text!r} cannot be opened: permission denied")
    if path.name == MANIFEST_NAME and path.is_file():
        return path.parent
    if text and path.is_dir():
        return path
    if "/" in text or "\\" in text or isinstance(name_or_path, Path):
        raise ModelNotFoundError(
            f"there is no bundle {text!r}: no such folder",
            hint="`robustzs models list` shows the models that are here",
        )
    known = sorted({*folders, *(alias for alias, name in ALIASES.items() if name in folders)})
    close = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    offer = f"did you mean {' or '.join(close)}? " if close else ""
    raise ModelNotFoundError(
        f"there is no model {text!r}",
        hint=f"{offer}`robustzs models list` shows the models that are here, "
        "`robustzs export` makes one from an open_clip model or a checkpoint",
    )


def list_models(*, verify: bool = False) -> list[ModelInfo]:
    """Every embedded and user's bundle, sorted by name; a broken one carries its error.

    Args:
        verify: Hash every file of every bundle, too.
    """
    return [
        _describe(name, kind, path, verify=verify)
        for name, (kind, path) in sorted(_folders().items())
    ]


def _folders() -> dict[str, tuple[LocationKind, Path]]:
    """What to pass as ``model`` -> where it lies, for every bundle."""
    found: dict[str, tuple[LocationKind, Path]] = {
        path.name: ("embedded", path) for path in _folders_of(embedded_dir())
    }
    taken = {*found, *(alias for alias, name in ALIASES.items() if name in found)}
    for path in _folders_of(settings.models_dir()):
        found[str(path.absolute()) if path.name in taken else path.name] = ("user", path)
    return found


def _folders_of(place: Path) -> list[Path]:
    try:
        entries = sorted(place.iterdir())
    except OSError:  # no such folder, or none that we may read: no models there
        return []
    return [path for path in entries if not path.name.startswith((".", "_")) and path.is_dir()]


def _describe(name: str, kind: LocationKind, path: Path, *, verify: bool) -> ModelInfo:
    aliases = tuple(sorted(alias for alias, target in ALIASES.items() if target == name))
    try:
        bundle = Bundle.load(path, verify=verify)
        card = bundle.card() or {}
    except RobustZSError as error:
        return ModelInfo(name, aliases, kind, path, error=error)
    robustness = card.get("robustness")
    return ModelInfo(
        name,
        aliases,
        kind,
        path,
        version=bundle.manifest.version,
        digest=bundle.digest,
        size=bundle.size,
        description=bundle.manifest.description,
        robustness=robustness if isinstance(robustness, str) else None,
    )
