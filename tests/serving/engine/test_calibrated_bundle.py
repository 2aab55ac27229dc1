"""A target accuracy in a request is answered by the calibration that travels in the bundle."""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from robustzs_serving.engine import Engine
from robustzs_serving.ingest.calls import ClassifyCall, ImagePart
from robustzs_serving.settings import ServiceSettings

from robustzs.answer import Answer
from robustzs.calibration.document import FILE_NAME, read_calibration
from robustzs.classifier import Options
from robustzs.errors import CalibrationError, CalibrationMismatchError
from robustzs.hierarchy.formats import read_hierarchy
from tests.factories import COLOURS, make_bundle, picture_bytes, write_manifest

LEAVES = ("labrador", "poodle", "tabby", "siamese", "ambulance", "jeep")


def _photos(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(120):
        word = LEAVES[number % len(LEAVES)]
        colour = np.clip(np.asarray(COLOURS[word]) + rng.normal(0.0, 0.25, 3), 0.0, 1.0)
        pixels = np.full((8, 8, 3), colour * 255.0).astype(np.uint8)
        pixels[0, 0] = number  # no two alike
        (folder / word).mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        (folder / word / f"{number}.png").write_bytes(stream.getvalue())
    return folder


def test_a_target_accuracy_takes_the_bundles_own_calibration(
    tmp_path: Path, tree_file: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    made = tmp_path / FILE_NAME
    command = ["calibrate", "--data", str(_photos(tmp_path / "photos")), "-o", str(made)]
    command += ["--model", str(bundle), "--hierarchy", str(tree_file), "--templates", "name"]
    command = [sys.executable, "-m", "robustzs", *command, "--target-accuracy", "0.8"]
    subprocess.run(command, check=True, capture_output=True)
    shutil.copy(made, bundle / FILE_NAME)
    write_manifest(bundle)
    document = read_calibration(made)
    tree = read_hierarchy(tree_file)

    def call(target: float, **changes: object) -> ClassifyCall:
        return ClassifyCall(
            images=(ImagePart(picture_bytes("jeep")),),
            options=Options(target_accuracy=target),
            **{"hierarchy": (tree,), "templates": "name", **changes},  # type: ignore[arg-type]
        )

    async def ask() -> None:
        engine = Engine(ServiceSettings(model=str(bundle), threads=1, decoders=1))
        await engine.start()
        try:
            deadline = time.monotonic() + 60.0
            (answer,) = await engine.classify(call(0.8), deadline=deadline)
            assert isinstance(answer, Answer)
            assert answer.stop.source == "calibration"
            assert answer.stop.theta == document.choose(0.8).theta
            assert answer.stop.calibration == document.digest
            with pytest.raises(CalibrationError, match=r"0\.95"):
                await engine.classify(call(0.95), deadline=deadline)
            with pytest.raises(CalibrationMismatchError):
                await engine.classify(call(0.8, templates="{}!"), deadline=deadline)
        finally:
            await engine.close()

    asyncio.run(ask())
