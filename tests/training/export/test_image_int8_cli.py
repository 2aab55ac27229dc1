"""`robustzs export --image-precision int8`: what it asks for, and from which pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from robustzs_training.export.calibration_pictures import read_calibration_folder
from robustzs_training.export.command import ExportArguments, run_export
from robustzs_training.export.sources import SourceRequest

from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.errors import DatasetNotFoundError, TooManyBadSamplesError, UsageError
from robustzs.images.config import PreprocessConfig

RULE = PreprocessConfig(image_size=(16, 16))


def write_pictures(folder: Path, n: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(n):
        small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC).save(
            folder / f"{seed}-{number:03}.png"
        )
    return folder


def arguments(**changes: Any) -> ExportArguments:
    return ExportArguments(request=SourceRequest(model="robustzs-lite-clean"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_precision": "int8"}, "needs pictures to calibrate on"),
        ({"calibrate_on": Path("photos")}, "goes with --image-precision int8"),
        ({"default_image_precision": "int8"}, "no image encoder of int8"),
        (
            {"image_precision": "int8", "target": "open-clip", "output": Path("out")},
            "does not go with --to open-clip",
        ),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        run_export(arguments(**changes))
    assert caught.value.hint


def test_no_such_folder_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        run_export(arguments(image_precision="int8", calibrate_on=tmp_path / "nowhere"))


def test_a_folder_of_too_few_pictures(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="holds no images"):
        read_calibration_folder(tmp_path, RULE)
    write_pictures(tmp_path / "few", 31)
    with pytest.raises(DatasetNotFoundError, match="has 31 images, 32 are needed"):
        read_calibration_folder(tmp_path / "few", RULE)
    (tmp_path / "few" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(TooManyBadSamplesError, match=r"31 pictures to calibrate on, .*broken\.png"):
        read_calibration_folder(tmp_path / "few", RULE)


def test_a_draw_is_the_same_every_time_and_not_of_the_held_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train" / "a", 40)
    write_pictures(tmp_path / "val" / "a", 40, seed=1)
    drawn = read_calibration_folder(tmp_path, RULE, n=33)
    assert drawn.shape == (33, 3, 16, 16)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, read_calibration_folder(tmp_path, RULE, n=33))
    everything = read_calibration_folder(tmp_path / "train", RULE)
    assert len(everything) == 40
    known = {picture.tobytes() for picture in everything}
    assert all(picture.tobytes() in known for picture in drawn)


@pytest.mark.slow
def test_the_embedded_tower_in_int8(tmp_path: Path) -> None:
    """On soft blobs of colour; how near it comes on drawings and photographs is in docs."""
    photos = write_pictures(tmp_path / "photos", 40)
    outcome = run_export(
        arguments(
            image_precision="int8",
            calibrate_on=photos,
            default_image_precision="int8",
            output=tmp_path / "lite-int8",
        )
    )
    assert "image encoder in int8: cosine of at least" in outcome.notes[-1]
    bundle, original = Bundle.load(outcome.path), Bundle.load(resolve_model("robustzs-lite-clean"))
    assert set(bundle.manifest.image_encoders) == {"fp32", "int8"}
    assert bundle.manifest.default_image_precision == "int8"
    sizes = [
        each.file(each.manifest.image_encoders[precision]).stat().st_size
        for each, precision in ((bundle, "int8"), (original, "fp32"))
    ]
    assert sizes[0] < 0.5 * sizes[1]
