"""Every full-size recipe: two steps at its true architecture, export, and a photo classified.

Random weights, pictures of noise, and the commands that people type. Batches, steps and iterations
are few; architecture, objective, precision and optimiser are the recipe's own. Each takes minutes
and gigabytes, so each command is a process of its own, and its peak memory has a limit.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from robustzs_training.objective_options import CAPTIONED, TREED
from robustzs_training.recipe_files import builtin_names, load_recipe

from robustzs.bundle.store import Bundle

pytestmark = [pytest.mark.slow, pytest.mark.full_size, pytest.mark.timeout(1800)]
RECIPES = [name for name in builtin_names() if name != "quickstart"]  # which tests run in full
# Siblings in pairs: trees have something to contrast at every level. Enough kinds of things that
# all five trees of the forest can be made and differ.
CLASSES = {
    "n01440764": "tench",
    "n01443537": "goldfish",
    "n01530575": "brambling",
    "n01531178": "goldfinch",
    "n02099601": "golden retriever",
    "n02099712": "labrador retriever",
    "n02123045": "tabby cat",
    "n02123159": "tiger cat",
    "n02930766": "taxicab",
    "n03100240": "convertible",
    "n03417042": "garbage truck",
    "n04467665": "semi-trailer truck",
}
FOREST = (
    "wordnet",
    "wordnet-other-parents",
    "wordnet-depths-2-4-6-8",
    "wordnet-depths-3-5-7-9",
    "wordnet-classes-6",
)
EMBED_DIM = {"ViT-B-32": 512, "ViT-B-16": 512, "ViT-L-14": 768}
MAX_PEAK_GB = 13.0
PHOTO = Path("examples/photos/chelsea.png").resolve()


def make_pictures(folder: Path, per_class: int, seed: int) -> None:
    """``WNID/0.png``, ... of coarse noise."""
    rng = np.random.default_rng(seed)
    for wnid in CLASSES:
        (folder / wnid).mkdir(parents=True)
        for number in range(per_class):
            coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
            picture = coarse.resize((320, 240), Image.Resampling.BICUBIC)
            picture.save(folder / wnid / f"{number}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train`` and ``held-out`` pictures, and ``captions.jsonl`` for the former."""
    folder = tmp_path_factory.mktemp("data")
    make_pictures(folder / "train", per_class=2, seed=0)
    make_pictures(folder / "held-out", per_class=1, seed=1)
    rows = [
        {
            "key": path.relative_to(folder / "train").as_posix(),
            "caption": f"A {CLASSES[path.parent.name]}, number {path.stem}, on a blurred ground.",
        }
        for path in sorted((folder / "train").rglob("*.png"))
    ]
    table = folder / "captions.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def command(folder: Path, *arguments: str) -> tuple[str, float]:
    """Run ``robustzs``; returns its standard output and its peak resident memory in GB."""
    with (folder / "out.txt").open("wb") as out, (folder / "err.txt").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "robustzs", *arguments], stdout=out, stderr=err
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "err.txt").read_text(errors="replace")[-4000:]
    return (folder / "out.txt").read_text(encoding="utf-8"), usage.ru_maxrss / 1e6


def settings(name: str, data: Path) -> list[str]:
    """What is changed so that two steps take minutes, and nothing else."""
    recipe = load_recipe(name)
    changes: dict[str, Any] = {
        "model.pretrained": "random",
        "model.activation": "quickgelu",
        "data.n_workers": 0,
        "run.batch_size": 2 if recipe.model.source == "ViT-L-14" else 4,
        "schedule.warmup_steps": 1,
        "attack.n_steps": min(recipe.attack.n_steps, 2),
        "evaluate.path": str(data / "held-out"),
        "evaluate.n_images": 2,
        "evaluate.n_steps": 1,
    }
    if recipe.objective.name in CAPTIONED:
        changes["data.captions"] = str(data / "captions.jsonl")
    return [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_then_a_photo(name: str, data: Path, tmp_path: Path) -> None:
    recipe, output = load_recipe(name), tmp_path / "out"
    _, peak = command(
        tmp_path, "train", "--recipe", name, "--output", str(output), "--data", str(data / "train"),
        "--steps", "2", *settings(name, data),
    )  # fmt: skip
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    print(f"{name}: peak {peak:.1f} GB; seconds {summary['seconds']}")
    assert peak < MAX_PEAK_GB
    assert summary["steps"] == 2
    assert summary["recipe"] == name
    assert summary["final"]
    assert all(math.isfinite(value) for value in summary["final"].values())
    assert 0.0 <= summary["after"]["robust_accuracy"] <= summary["after"]["clean_accuracy"] <= 1.0
    if recipe.objective.name in TREED:
        stands = FOREST if len(recipe.data.hierarchy) > 1 else FOREST[:1]
        assert tuple(summary["data"]["trees"]) == stands

    manifest = Bundle.load(output).manifest
    assert manifest.embed_dim == EMBED_DIM[recipe.model.source]
    wanted = "poincare" if recipe.objective.name in TREED else "cosine"
    assert manifest.geometry.kind == wanted

    names = ",".join(CLASSES.values())
    printed, _ = command(
        tmp_path, "classify", str(PHOTO), "--model", str(output), "--labels", names,
        "--format", "json",
    )  # fmt: skip
    answer = json.loads(printed)
    assert answer["model"]["digest"] == summary["bundle"]["digest"]
    assert answer["prediction"]["name"] in CLASSES.values()
    assert answer["prediction"]["probability"] >= 1.0 / len(CLASSES)
