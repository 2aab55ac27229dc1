"""What a run that starts from a bundle with an int8 image encoder leaves of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from robustzs_training.data.folders import open_folder
from robustzs_training.export.bundle import ImagePrecisions
from robustzs_training.export.calibration_pictures import read_calibration_folder
from robustzs_training.finish import _image_precisions, _with_int8

from robustzs.errors import ExportError, ExportParityError
from robustzs.images.config import PreprocessConfig

RULE = PreprocessConfig(image_size=(16, 16))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(20):
            values = generator.integers(0, 256, (20, 16, 3), dtype=np.uint8)
            Image.fromarray(values).save(root / name / f"{number:02}.png")
    return root


def source(*precisions: str, default: str = "fp32") -> Any:
    manifest = SimpleNamespace(
        image_encoders=dict.fromkeys(precisions, "file"), default_image_precision=default
    )
    return SimpleNamespace(manifest=manifest, preprocess=RULE)


def test_it_is_calibrated_on_what_the_run_trained_on(folder: Path) -> None:
    data = open_folder(folder)
    assert _image_precisions(source("fp32"), data) is None
    assert _image_precisions(source("fp32", "int8"), None) is None
    made = _image_precisions(source("fp32", "int8", default="int8"), data)
    assert made is not None
    assert set(made.quantisers) == {"int8"}
    assert made.default == "int8"
    assert made.probes.shape == (5, 3, 16, 16)
    np.testing.assert_array_equal(made.probes, read_calibration_folder(folder, RULE)[-5:])


def test_a_precision_that_does_not_come_out_well_costs_no_training(folder: Path) -> None:
    asked: list[ImagePrecisions | None] = []
    said: list[str] = []

    def export(precisions: ImagePrecisions | None) -> None:
        asked.append(precisions)
        if precisions is not None:
            raise ExportParityError("image encoder in int8: the cosine to float32 is 0.2")

    _with_int8(export, source("fp32", "int8"), open_folder(folder), said.append)
    assert [each is None for each in asked] == [False, True]
    assert said == ["the bundle has no int8 image encoder: image encoder in int8: the cosine to "
                    "float32 is 0.2"]  # fmt: skip


def test_other_troubles_of_an_export_are_told(folder: Path) -> None:
    def export(precisions: ImagePrecisions | None) -> None:
        raise ExportError("torch cannot export the tower")

    for precisions in (("fp32",), ("fp32", "int8")):
        with pytest.raises(ExportError, match="torch cannot"):
            _with_int8(export, source(*precisions), open_folder(folder), None)
