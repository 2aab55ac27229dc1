"""Settings from the environment, read when they are needed and never at import."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder for text features: ``ROBUSTZS_CACHE``, else ``$XDG_CACHE_HOME/robustzs``."""
    override = os.environ.get("ROBUSTZS_CACHE")
    if override:
        return Path(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robustzs"


def models_dir() -> Path:
    """Folder of the user's bundles: ``ROBUSTZS_MODELS``, else one in the data home."""
    override = os.environ.get("ROBUSTZS_MODELS")
    if override:
        return Path(override)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "robustzs" / "models"
