"""Preprocessing is that of the models' origins, to the last bit."""

import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from skimage import data
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

from robustzs.errors import ImageTooLargeError
from robustzs.images.preprocess import PreprocessConfig, preprocess

SIDES = st.integers(1, 400)
PHOTOS = ["chelsea", "astronaut", "coffee", "rocket"]
MODES = ["shortest", "longest", "squash"]
TARGETS = [(224, 224), (96, 160), (33, 32)]
INTERPOLATIONS = ["bicubic", "bilinear"]


def noise(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def open_clip_pixels(image, config):
    transform = open_clip.image_transform(
        config.image_size,
        is_train=False,
        resize_mode=config.resize_mode,
        interpolation=config.interpolation,
        fill_color=config.fill_color[0],
    )
    assert type(transform.transforms[-1]).__name__ == "Normalize"
    return Compose(transform.transforms[:-1])(image).numpy()


def torchvision_pixels(image, resize_size, crop, interpolation=InterpolationMode.BICUBIC):
    return Compose([Resize(resize_size, interpolation), CenterCrop(crop), ToTensor()])(
        image
    ).numpy()


def assert_same(ours, theirs):
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_photos_are_prepared_as_by_open_clip(photo, mode, target, interpolation):
    image = Image.fromarray(getattr(data, photo)())
    config = PreprocessConfig(image_size=target, resize_mode=mode, interpolation=interpolation)
    assert_same(preprocess(image, config), open_clip_pixels(image, config))


@given(SIDES, SIDES, st.sampled_from(MODES), st.sampled_from(TARGETS))
@settings(max_examples=150, deadline=None)
def test_any_size_is_prepared_as_by_open_clip(width, height, mode, target):
    config = PreprocessConfig(image_size=target, resize_mode=mode, fill_color=(7, 7, 7))
    image = noise(width, height)
    try:
        theirs = open_clip_pixels(image, config)
    except ValueError:  # open_clip's `longest` rounds a side of a very thin image to nothing
        assert mode == "longest"
        assert preprocess(image, config).shape == (3, *target)
        return
    assert_same(preprocess(image, config), theirs)


@given(SIDES, SIDES, st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
@settings(max_examples=150, deadline=None)
def test_any_size_is_prepared_as_by_torchvision(width, height, resize_size, crop_h, crop_w):
    config = PreprocessConfig(image_size=(crop_h, crop_w), resize_size=resize_size)
    image = noise(width, height)
    assert_same(preprocess(image, config), torchvision_pixels(image, resize_size, (crop_h, crop_w)))


@pytest.mark.parametrize("photo", PHOTOS)
def test_photos_are_prepared_as_by_resize_256_and_center_crop_224(photo):
    image = Image.fromarray(getattr(data, photo)())
    config = PreprocessConfig(image_size=(224, 224), resize_size=256)
    assert_same(preprocess(image, config), torchvision_pixels(image, 256, 224))


def test_every_level_is_divided_as_by_totensor():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([levels, levels.T, 255 - levels], axis=-1))
    config = PreprocessConfig(image_size=(16, 16))
    assert_same(preprocess(image, config), ToTensor()(image).numpy())


def test_grey_images_are_prepared_as_by_open_clip():
    image = Image.fromarray(data.camera())
    config = PreprocessConfig(image_size=(224, 224))
    assert image.mode == "L"
    assert_same(preprocess(image, config), open_clip_pixels(image, config))


@pytest.mark.parametrize("size", [(60000, 1), (1, 60000), (50_000, 3)])
def test_a_thin_strip_is_refused_before_it_is_blown_up(size):
    with pytest.raises(ImageTooLargeError, match=f"{size[0]} x {size[1]}"):
        preprocess(Image.new("RGB", size), PreprocessConfig(image_size=(224, 224)))


@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": (0, 224)},
        {"image_size": (224, 5000)},
        {"image_size": (224, 224), "resize_size": 0},
        {"image_size": (224, 224), "resize_size": 256, "resize_mode": "squash"},
        {"image_size": (224, 224), "interpolation": "nearest"},
        {"image_size": (224, 224), "fill_color": (0, 0, 256)},
        {"image_size": (224, 224), "colour": "red"},
    ],
)
def test_a_rule_that_means_nothing_is_refused(fields):
    with pytest.raises(ValidationError):
        PreprocessConfig(**fields)
