"""Where the held-out pictures lie on this machine, and the packages that they come from."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "ROBUSTZS_HELDOUT"
DEBIAN_PACKAGES = ("dataset-fashion-mnist", "gcompris-qt-data", "opencv-doc")
SCIKIT_IMAGE = "scikit-image"
SCIKIT_IMAGE_VERSION = "0.26.0"
FETCH_COMMAND = "python -m benchmarks.heldout_photos.fetch"


class HeldoutError(RuntimeError):
    """The held-out pictures cannot be fetched or read; the message says what to do."""


def cache_root(cache: Path | None = None) -> Path:
    """The folder that is asked for, else ``$ROBUSTZS_HELDOUT``, else one in the user's cache."""
    if cache is not None:
        return cache
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "robustzs" / "heldout"


def package_folder(package: str, cache: Path | None = None) -> Path:
    """Where ``package`` is unpacked."""
    return cache_root(cache) / "packages" / package
