"""Looking at files, apart from reading them."""

from __future__ import annotations

import os
from pathlib import Path


def is_closed(path: str | Path) -> bool:
    """Whether a folder on the way to ``path`` does not let us see if there is such a file.

    ``os.path.exists`` says that there is none, which would send people to look for a typing error.
    """
    try:
        os.lstat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):  # not there, or not a name that a file can have
        pass
    return False
