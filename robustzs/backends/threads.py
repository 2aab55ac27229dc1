"""How many CPU threads this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_cpus(
    cgroup_root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """CPUs that this process may really use, at least 1.

    The smaller of its CPU affinity and the CPU quotas of its control groups, which a container or
    a systemd unit sets and which ``os.cpu_count`` does not see.

    Args:
        cgroup_root: where control groups are mounted.
        membership: the file that names the process's own groups.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quotas = [_quota(group) for group in _groups(cgroup_root, membership)]
    return max(1, min([count, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _groups(root: Path, membership: Path) -> list[Path]:
    """Folders of the process's control group and of those above it, version 2 and version 1."""
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    folders = [root, root / "cpu"]
    for line in lines:
        _, controllers, name = [*line.split(":", 2), "", ""][:3]
        if controllers == "" or "cpu" in controllers.split(","):
            base = root if controllers == "" else root / "cpu"
            own = base / name.strip("/")
            folders += [own, *(up for up in own.parents if base in up.parents)]
    return folders


def _quota(group: Path) -> float | None:
    """CPUs that one control group grants, or ``None`` when it does not limit them."""
    try:
        if (group / "cpu.max").exists():
            granted, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            granted = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(granted) / int(period) if int(granted) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max", or no such controller: no limit to respect
