"""The folder that worker processes share their numbers through (prometheus_client's way)."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

FOLDER = "ROBUSTZS_METRICS_DIR"
_PROMETHEUS = "PROMETHEUS_MULTIPROC_DIR"


def share_metrics() -> Path:
    """Choose the folder, in the first process that asks, for it and those that it starts.

    Must come before prometheus_client's first import: the library decides there. BentoML's folder
    lies in its home, and a second service on the machine would empty it: so ours is another.
    """
    chosen = os.environ.get(FOLDER)
    if chosen is None:
        chosen = os.environ[FOLDER] = tempfile.mkdtemp(prefix="robustzs-metrics-")
        atexit.register(shutil.rmtree, chosen, ignore_errors=True)
    folder = Path(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[_PROMETHEUS] = str(folder)
    return folder


def shared_folder() -> Path | None:
    """The folder in use; ``None`` where one process counts alone."""
    chosen = os.environ.get(FOLDER)
    return Path(chosen) if chosen and os.environ.get(_PROMETHEUS) == chosen else None


def forget_dead_workers(folder: Path) -> None:
    """Remove the gauges of processes that are gone; counters stay, so that sums never fall."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and not _alive(int(pid)):
            file.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
