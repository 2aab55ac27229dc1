"""Settings from the environment, read when they are needed and never at import."""

from __future__ import annotations

import os
from pathlib import Path

from robustzs.errors import UsageError

DEFAULT_CACHE_MAX_BYTES = 1 << 30


def cache_dir() -> Path:
    """Folder for text features: ``ROBUSTZS_CACHE``, else ``$XDG_CACHE_HOME/robustzs``."""
    override = os.environ.get("ROBUSTZS_CACHE")
    if override:
        return Path(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robustzs"


def cache_max_bytes() -> int:
    """Largest size of the cache: ``ROBUSTZS_CACHE_MAX_BYTES``, else 1 GiB; 0 turns it off.

    Raises:
        UsageError: the variable is not a whole number >= 0.
    """
    text = os.environ.get("ROBUSTZS_CACHE_MAX_BYTES")
    if not text:
        return DEFAULT_CACHE_MAX_BYTES
    if not text.isascii() or not text.isdecimal():
        raise UsageError(
            f"ROBUSTZS_CACHE_MAX_BYTES is {text!r}, not a number of bytes",
            hint="write a whole number, such as 1073741824; 0 turns the cache off",
        )
    return int(text)


def models_dir() -> Path:
    """Folder of the user's bundles: ``ROBUSTZS_MODELS``, else one in the data home."""
    override = os.environ.get("ROBUSTZS_MODELS")
    if override:
        return Path(override)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "robustzs" / "models"
