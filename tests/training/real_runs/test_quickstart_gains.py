"""What the quickstart promises, by the very command, on pictures of things it never trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from robustzs import Classifier

pytestmark = [pytest.mark.training, pytest.mark.timeout(3600)]

_PHOTO = Path(__file__).parents[3] / "examples/photos/chelsea.png"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_quickstart_hardens_visibly(seed: int, tmp_path: Path) -> None:
    output = tmp_path / "hardened"
    command = ["train", "--recipe", "quickstart", "--output", str(output), "--seed", str(seed)]
    subprocess.run([sys.executable, "-m", "robustzs", *command], check=True, cwd=tmp_path)

    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert summary["after"]["n"] >= 200
    assert summary["gain"]["robust_accuracy"] >= 0.08
    assert summary["gain"]["interval"][0] > 0.04
    assert summary["gain"]["clean_kept"] >= 0.8
    with Classifier.load(output, hierarchy="wordnet") as classifier:
        assert classifier.classify(_PHOTO).model.digest == summary["bundle"]["digest"]
