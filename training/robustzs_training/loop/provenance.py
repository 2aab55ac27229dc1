"""What a run says of itself, beside its weights: provenance.json and recipe.yaml."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from robustzs_training.loop.identity import Identity
from robustzs_training.recipe import Recipe

PROVENANCE, RECIPE = "provenance.json", "recipe.yaml"
_PACKAGES = (
    "robustzs",
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "transformers",
    "accelerate",
    "safetensors",
    "numpy",
    "pillow",
)


def versions() -> dict[str, str]:
    """Python and the packages that a result depends on; without those that are not installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """What the run computes on, without names that tell whose it is."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": _cpu_name(),
        "cpu_threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
    }


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def git_revision(folder: Path) -> str | None:
    """The commit of the code in ``folder``, with ``-dirty``; ``None`` outside a repository."""
    questions = (
        ["ls-files", "--error-unmatch", str(Path(__file__))],  # not a checkout around the packages
        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    )
    answer = ""
    for question in questions:
        command = ["git", "-C", str(folder), *question]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        answer = found.stdout.strip()
    return answer or None


def write_provenance(
    output: Path,
    recipe: Recipe,
    identity: Identity,
    extra: Mapping[str, Any],
    *,
    n_processes: int,
) -> dict[str, Any]:
    """Write both files, or add another start to those of an interrupted run; gives the document.

    Raises:
        OSError: The folder refuses.
    """
    path = output / PROVENANCE
    before = read_provenance(output) or {}
    start = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_revision": git_revision(Path(__file__).parent),
        "versions": versions(),
        "hardware": hardware(),
        "processes": n_processes,
    }
    document = {
        "schema_version": 1,
        "run_id": before.get("run_id", uuid.uuid4().hex),
        "seed": recipe.run.seed,
        "identity": identity.to_dict(),
        "starts": [*before.get("starts", []), start],
        **extra,
    }
    settings = recipe.model_dump(mode="json")
    _replace(output / RECIPE, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    _replace(path, json.dumps(document, indent=1))
    return document


def read_provenance(output: Path) -> dict[str, Any] | None:
    """The document that a run left in ``output``; ``None`` where there is none that can be read."""
    try:
        found = json.loads((output / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
