"""Whatever holds an image goes out as the file it is, or as a PNG that loses nothing."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from robustzs_client import NamedImage
from robustzs_client._images import read_image

from robustzs.classifier.inputs import image_name, to_pixels
from robustzs.images.config import PreprocessConfig
from robustzs.images.limits import DEFAULT_LIMITS
from tests.factories import picture_bytes

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "coffee.jpg"
CONFIG = PreprocessConfig(image_size=(64, 64))


def test_files_go_out_as_they_are(tmp_path: Path) -> None:
    data = picture_bytes("jeep")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as stream:
        assert read_image(stream) == NamedImage(str(path), data)
    for image, name in (
        (path, str(path)),
        (str(path), str(path)),
        (data, "bytes"),
        (bytearray(data), "bytes"),
        (memoryview(data), "bytes"),
        (io.BytesIO(data), "BytesIO"),
        (NamedImage("mine", data), "mine"),
    ):
        assert read_image(image) == NamedImage(name, data)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_an_array_comes_back_from_its_png(array: np.ndarray[Any, Any]) -> None:
    with Image.open(io.BytesIO(read_image(array).data)) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), array)


def test_an_array_need_not_lie_in_one_piece() -> None:
    array = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)[::2, ::-1]
    with Image.open(io.BytesIO(read_image(array).data)) as image:
        assert np.array_equal(np.asarray(image), array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused_with_a_remedy(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"\(255 \* pixels\)\.round\(\)"):
        read_image(array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_what_the_service_sees_is_what_a_classifier_here_sees(mode: str) -> None:
    with Image.open(PHOTO) as photo:
        small = photo.resize((80, 60))
    image = small.convert("L").convert("I;16") if mode == "I;16" else small.convert(mode)
    sent = read_image(image).data
    here = to_pixels(image, CONFIG, DEFAULT_LIMITS)
    assert np.array_equal(to_pixels(sent, CONFIG, DEFAULT_LIMITS), here)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_opened_with_pil_stays_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    with Image.open(PHOTO) as photo:
        photo.resize((80, 60)).save(file, "PNG", exif=exif)
    with Image.open(file) as image:
        sent = read_image(image).data
    whole = to_pixels(file.getvalue(), CONFIG, DEFAULT_LIMITS)
    assert np.array_equal(to_pixels(sent, CONFIG, DEFAULT_LIMITS), whole)


@pytest.mark.parametrize("mode", ["CMYK", "F", "YCbCr", "HSV"])
def test_modes_that_no_png_has_are_refused_with_a_remedy(mode: str) -> None:
    with pytest.raises(ValueError, match=r'convert\("RGB"\)'):
        read_image(Image.new(mode, (4, 4)))


def test_names_are_those_of_the_classifier_here() -> None:
    with Image.open(PHOTO) as opened, PHOTO.open("rb") as stream:
        for image in (opened, stream, str(PHOTO), b"x", io.BytesIO(b"x")):
            name = image_name(image)
            if hasattr(image, "seek"):
                image.seek(0)
            assert read_image(image).name == name
    new = Image.new("RGB", (2, 2))
    assert read_image(new).name == image_name(new)


@pytest.mark.parametrize("wrong", [None, 7, ["a"], {"a": 1}, io.StringIO("text")])
def test_what_holds_no_image_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError):
        read_image(wrong)


def test_neither_pil_nor_numpy_is_imported_until_given() -> None:
    code = (
        "import sys, io, robustzs_client as r; from robustzs_client._images import read_image;"
        "c = r.Client('http://127.0.0.1:1'); read_image(b'x'); read_image(io.BytesIO(b'x'));"
        "found = [m for m in ('PIL', 'numpy', 'robustzs', 'yaml', 'typer', 'torch') "
        "if m in sys.modules]; assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
