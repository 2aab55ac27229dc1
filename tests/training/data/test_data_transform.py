from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robustzs_training.data.transform import (
    ImageTransform,
    center_pixels,
    random_box,
    resized_rule,
)
from robustzs_training.recipe import AugmentPart
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as tv

from robustzs.errors import ImageTooLargeError
from robustzs.images.preprocess import PreprocessConfig, preprocess
from tests.training.data.picture_folders import CENTER, RANDOM, RULE, picture

RULES = [
    PreprocessConfig(image_size=(32, 32)),
    PreprocessConfig(image_size=(28, 28), resize_size=32),
    PreprocessConfig(image_size=(32, 24)),
    PreprocessConfig(image_size=(32, 32), resize_mode="longest", fill_color=(9, 8, 7)),
    PreprocessConfig(image_size=(20, 32), resize_mode="squash", interpolation="bilinear"),
]


@given(st.sampled_from(RULES), st.integers(1, 90), st.integers(1, 90), st.integers(0, 99))
def test_center_is_bit_for_bit_what_the_deployed_model_sees(
    rule: PreprocessConfig, width: int, height: int, seed: int
) -> None:
    image = picture(seed, (width, height))
    pixels = center_pixels(image, rule)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels.float() / 255.0, torch.from_numpy(preprocess(image, rule)))


def test_center_leaves_epoch_and_index_alone() -> None:
    transform = ImageTransform(augment=CENTER, rule=RULE, seed=3)
    first = transform(picture(1), epoch=0, index=0)
    assert torch.equal(first, transform(picture(1), epoch=7, index=9))
    assert torch.equal(first, center_pixels(picture(1), RULE))


def test_random_crops_follow_from_seed_epoch_and_index() -> None:
    image = picture(1, (200, 150))

    def crop(seed: int, epoch: int, index: int) -> torch.Tensor:
        return ImageTransform(augment=RANDOM, rule=RULE, seed=seed)(image, epoch=epoch, index=index)

    first = crop(0, 0, 0)
    assert first.shape == (3, 32, 32)
    np.random.seed(1)  # noqa: NPY002  (what must not matter)
    torch.manual_seed(5)
    assert torch.equal(first, crop(0, 0, 0))
    for other in (crop(1, 0, 0), crop(0, 1, 0), crop(0, 0, 1)):
        assert not torch.equal(first, other)


def test_flips_are_half_of_all_and_exact() -> None:
    transform = ImageTransform(augment=AugmentPart(flip=True), rule=RULE, seed=0)
    image = picture(1)
    plain = center_pixels(image, RULE)
    flipped = 0
    for index in range(200):
        pixels = transform(image, epoch=0, index=index)
        is_flipped = torch.equal(pixels, plain.flip(-1))
        assert is_flipped or torch.equal(pixels, plain)
        flipped += is_flipped
    assert 75 < flipped < 125
    assert pixels.is_contiguous()


def test_a_random_crop_is_torchvisions_of_the_same_box() -> None:
    rule = PreprocessConfig(image_size=(32, 24))
    image = picture(5, (90, 70))
    for index in range(20):
        transform = ImageTransform(
            augment=AugmentPart(crop="random-resized", scale=(0.3, 1.0)), rule=rule, seed=0
        )
        from robustzs_training.data.randomness import generator

        left, top, right, bottom = random_box(
            image.size, (0.3, 1.0), generator("augmentation", 0, 2, index)
        )
        wanted = tv.resized_crop(
            image, top, left, bottom - top, right - left, [32, 24], tv.InterpolationMode.BICUBIC
        )
        assert torch.equal(transform(image, epoch=2, index=index), tv.pil_to_tensor(wanted))


@pytest.mark.parametrize("size", [(100, 80), (300, 20), (20, 300), (1, 1), (500, 1)])
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    image = picture(0, size)
    ours, theirs = [], []
    for _ in range(600):
        left, top, right, bottom = random_box(size, (0.2, 1.0), rng)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        ours.append((left, top, right - left, bottom - top))
        y, x, h, w = RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3])
        theirs.append((x, y, w, h))
    # 600 draws: the standard error of a mean is at most 0.3 / sqrt(600) of the side.
    scale = np.array([size[0], size[1], size[0], size[1]])
    difference = (np.mean(ours, axis=0) - np.mean(theirs, axis=0)) / scale
    assert np.abs(difference).max() < 0.08 if max(size) > 1 else (difference == 0).all()


@pytest.mark.parametrize(
    ("rule", "size", "resize_size"),
    [
        (PreprocessConfig(image_size=(224, 224), resize_size=256), (128, 128), 146),
        (PreprocessConfig(image_size=(224, 224), resize_size=256), (224, 224), 256),
        (PreprocessConfig(image_size=(224, 224)), (128, 128), None),
        (PreprocessConfig(image_size=(224, 224), resize_mode="squash"), (160, 96), None),
    ],
)
def test_another_size_keeps_the_share_that_is_cropped(
    rule: PreprocessConfig, size: tuple[int, int], resize_size: int | None
) -> None:
    scaled = resized_rule(rule, size)
    assert (scaled.image_size, scaled.resize_size) == (size, resize_size)
    assert scaled.resize_mode == rule.resize_mode


def test_a_sliver_that_cannot_be_resized_is_a_bad_image() -> None:
    rule = PreprocessConfig(image_size=(64, 64))
    with pytest.raises(ImageTooLargeError):
        center_pixels(picture(0, (30_000, 2)), rule)
