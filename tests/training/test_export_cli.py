from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from robustzs.bundle.store import Bundle
from robustzs.settings import models_dir
from tests.training.tiny_clip import TINY, TINY_QUICK, make_clip, openai_scalars, write_config


def robustzs(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "robustzs", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_checkpoint_becomes_a_model_that_classifies(tmp_path: Path) -> None:
    model = make_clip(TINY)
    path = tmp_path / "clip.pt"
    torch.save({**model.state_dict(), **openai_scalars()}, path)
    config = write_config(tmp_path, TINY)
    done = robustzs(
        "export", config, "--pretrained", path, "--licence", "MIT", "--templates", "a {}.",
        "--weights",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = models_dir() / "tiny-clip"
    assert done.stdout == f"{folder}\n"
    notes = done.stderr.splitlines()
    assert len(notes) == 2
    assert notes[0].startswith("QuickGELU, because clip.pt is an OpenAI state dict")
    assert notes[1].startswith("largest differences to torch: image raw ")
    manifest = Bundle.load(folder).manifest
    assert manifest.templates == "a {}."
    assert [licence.name for licence in manifest.licences] == ["MIT"]
    assert manifest.weights == "weights.safetensors"
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.png")
    done = robustzs(
        "classify", tmp_path / "photo.png", "--model", "tiny-clip", "--labels", "cat,dog",
        "--hierarchy", "flat", "--format", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cat" in done.stdout


def test_errors_are_two_lines_and_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(make_clip(TINY).state_dict(), path)
    wide = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "width": 96}}
    output = tmp_path / "out"
    done = robustzs("export", write_config(tmp_path, wide), "-p", path, "-o", output)
    assert done.returncode == 1
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("error: the weights do not fit the architecture")
    assert second.startswith("  try: ")
    assert not output.exists()


def test_to_another_library_needs_a_folder() -> None:
    done = robustzs("export", "ViT-B-32", "--to", "open-clip")
    assert done.returncode == 2
    assert "--output" in done.stderr


def test_without_the_extra_the_error_names_it() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from robustzs.cli.main import main\n"
        "main(['export', 'ViT-B-32', '--pretrained', 'openai'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "robustzs[train]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_repository_of_the_hub_from_its_cache(tmp_path: Path) -> None:
    """What `hf-hub:` needs of the hub is two files; here they are already in the hub's cache."""
    repository = tmp_path / "hub" / "models--someone--robust-clip"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    model = make_clip(TINY_QUICK)
    save_file(model.state_dict(), snapshot / "open_clip_model.safetensors")
    settings = {"model_cfg": TINY_QUICK, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (snapshot / "open_clip_config.json").write_text(json.dumps(settings))
    output = tmp_path / "bundle"
    done = robustzs(
        "export", "hf-hub:someone/robust-clip", "-o", output,
        HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = Bundle.load(output).manifest
    assert manifest.name == "robust-clip"
    assert manifest.mean == (0.5, 0.5, 0.5)
    assert manifest.source.pretrained == "hf-hub:someone/robust-clip"
    done = robustzs(
        "export", "hf-hub:someone/another", "-o", tmp_path / "other",
        HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be fetched" in done.stderr
