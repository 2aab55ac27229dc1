"""Every accepted format and pixel format becomes upright RGB by one rule."""

import io
import struct
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from robustzs.errors import ImageFormatError, ImageTooLargeError
from robustzs.images.color import to_rgb
from robustzs.images.decode import DEFAULT_LIMITS, ImageLimits, decode_image
from robustzs.images.reduced import exif_orientation
from tests.images.samples import encode, every_format, photo, png, png_chunk, ramp_16

FORMATS = sorted(every_format())
OPAQUE_8_BIT = [
    name
    for name in FORMATS
    if name not in {"png-rgba", "webp-lossless", "tiff-deflate", "png-grey-16", "tiff-grey-16"}
]
WITH_ALPHA = ["png-rgba", "webp-lossless", "tiff-deflate"]


def pixels(image):
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image)


def by_pillow(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
        image.load()
        return image


def exif_block(value, *, order="<", kind=3, count=1):
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    layout, values = ("HH", (value, 0)) if kind == 3 else ("I", (value,))
    content = struct.pack(order + layout, *values)
    entry = struct.pack(f"{order}HHI", 0x0112, kind, count) + content
    return b"Exif\0\0" + head + struct.pack(f"{order}H", 1) + entry + bytes(4)


@pytest.mark.parametrize("name", OPAQUE_8_BIT)
def test_an_opaque_image_is_what_pillow_gives(name):
    data = every_format()[name]
    expected = ImageOps.exif_transpose(by_pillow(data)).convert("RGB")
    np.testing.assert_array_equal(pixels(decode_image(data)), np.asarray(expected))


@pytest.mark.parametrize("name", WITH_ALPHA)
def test_transparency_is_put_over_white(name):
    data = every_format()[name]
    rgba = by_pillow(data)
    white = Image.new("RGBA", rgba.size, "white")
    expected = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    decoded = pixels(decode_image(data))
    np.testing.assert_array_equal(decoded, expected)
    assert decoded[0].min() >= 250  # the gradient begins nearly transparent
    assert not (decoded == np.asarray(rgba.convert("RGB"))).all()


def test_an_opaque_alpha_channel_changes_nothing():
    image = photo()
    image.putalpha(255)
    expected = np.asarray(photo())
    np.testing.assert_array_equal(pixels(decode_image(encode(image, "PNG"))), expected)


@pytest.mark.parametrize("mode", ["P", "L", "1", "RGB"])
def test_a_transparent_colour_becomes_white(mode):
    image = Image.new(mode, (4, 4), 0)
    data = encode(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert (pixels(decode_image(data)) == 255).all()


def test_a_transparent_gif_becomes_white():
    data = encode(Image.new("P", (4, 4), 3), "GIF", transparency=3)
    assert (pixels(decode_image(data)) == 255).all()


@pytest.mark.parametrize("name", ["png-grey-16", "tiff-grey-16"])
def test_16_bit_grey_is_scaled_and_not_clipped(name):
    decoded = pixels(decode_image(every_format()[name]))
    np.testing.assert_array_equal(decoded, np.repeat((ramp_16() >> 8)[..., None], 3, axis=2))


def test_16_bit_grey_with_big_endian_words():
    words = ramp_16().astype(">u2").tobytes()
    image = Image.frombytes("I;16B", (256, 256), words)
    expected = np.repeat((ramp_16() >> 8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(pixels(to_rgb(image)), expected)
    np.testing.assert_array_equal(pixels(decode_image(encode(image, "TIFF"))), expected)


def test_16_bit_colour_takes_the_high_byte():
    rows = b"".join(b"\0" + struct.pack(">6H", 0, 255, 256, 32768, 65535, 4660) for _ in range(2))
    decoded = pixels(decode_image(png(2, 2, 16, 2, rows)))
    np.testing.assert_array_equal(decoded[0], [[0, 0, 1], [128, 255, 18]])


def test_float_tiff_in_unit_range_is_scaled():
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    decoded = pixels(decode_image(encode(Image.fromarray(values), "TIFF")))
    np.testing.assert_array_equal(decoded[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan"), float("inf")])
def test_float_tiff_without_an_agreed_range_is_refused(bad):
    values = np.full((4, 4), 0.5, dtype=np.float32)
    values[1, 2] = bad
    with pytest.raises(ImageFormatError, match="outside"):
        decode_image(encode(Image.fromarray(values), "TIFF"))


def test_32_bit_integers_are_refused():
    values = np.full((4, 4), 70000, dtype=np.int32)
    with pytest.raises(ImageFormatError, match="8 or 16 bits"):
        decode_image(encode(Image.fromarray(values), "TIFF"))


def test_cmyk_jpeg_has_the_colours_of_the_photo():
    decoded = pixels(decode_image(every_format()["jpeg-cmyk"])).astype(int)
    assert np.abs(decoded - np.asarray(photo())).mean() < 12


def test_lab_tiff_becomes_rgb():
    image = Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (255, 128, 128)])
    assert (pixels(decode_image(encode(image, "TIFF"))) > 240).all()


def test_a_phone_photo_with_further_pictures_is_its_first():
    data = every_format()["mpo"]
    assert by_pillow(data).format == "MPO"
    single = encode(photo(), "JPEG")
    np.testing.assert_array_equal(pixels(decode_image(data)), pixels(decode_image(single)))


@pytest.mark.parametrize("name", ["gif-animated", "apng", "webp-animated", "tiff-pages"])
def test_an_animation_is_its_first_frame(name):
    decoded = pixels(decode_image(every_format()[name])).astype(int)
    assert np.abs(decoded - np.asarray(photo())).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_upright(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(), format, exif=exif)
    # Some TIFF readers turn the image while loading it: then the transpose finds nothing to do.
    expected = ImageOps.exif_transpose(by_pillow(data)).convert("RGB")
    decoded = decode_image(data)
    assert decoded.size == ((80, 120) if orientation >= 5 else (120, 80))
    np.testing.assert_array_equal(pixels(decoded), np.asarray(expected))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_orientation_is_read_in_either_byte_order(order, kind):
    assert exif_orientation(exif_block(6, order=order, kind=kind)) == 6


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        exif_block(0),
        exif_block(9),
        exif_block(6, count=2),
        exif_block(6, kind=2),
        exif_block(6)[:-8],
    ],
)
def test_damaged_exif_leaves_the_image_as_it_is(exif):
    jpeg = encode(photo(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    decoded = decode_image(jpeg[:2] + segment + jpeg[2:])
    np.testing.assert_array_equal(pixels(decoded), pixels(decode_image(jpeg)))


@given(st.binary(max_size=80))
def test_orientation_of_anything_is_an_orientation(exif):
    assert 1 <= exif_orientation(b"Exif\0\0II*\0" + exif) <= 8


def test_a_broken_colour_profile_is_ignored():
    image = photo()
    data = encode(image, "PNG", icc_profile=b"not a profile")
    np.testing.assert_array_equal(pixels(decode_image(data)), np.asarray(image))


def test_the_format_is_told_by_content_and_trailing_bytes_do_not_matter():
    for name in ("jpeg", "png", "gif", "webp", "bmp", "tiff"):
        data = every_format()[name]
        polyglot = data + b"PK\3\4 an archive behind the picture"
        np.testing.assert_array_equal(pixels(decode_image(polyglot)), pixels(decode_image(data)))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"hello, world", "unknown kind"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x1cftypheic", "HEIC"),
        (b"\0\0\0\x1cftypisom", "video"),
        (b" <svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<!DOCTYPE html><p>not found", "web page"),
        (b"PK\3\4", "ZIP"),
        (b"P6 1 1 255 abc", "unknown kind"),
    ],
)
def test_what_is_not_an_image_is_named(data, what):
    with pytest.raises(ImageFormatError, match=what):
        decode_image(data)


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "bmp", "tiff"])
def test_the_pixel_limit_holds_before_decoding(name):
    data = every_format()[name]
    assert decode_image(data, ImageLimits(max_pixels=120 * 80)).size == (120, 80)
    with pytest.raises(ImageTooLargeError, match="120 x 80"):
        decode_image(data, ImageLimits(max_pixels=120 * 80 - 1))


def test_the_byte_limit_holds():
    data = every_format()["png"]
    with pytest.raises(ImageTooLargeError, match="bytes"):
        decode_image(data, ImageLimits(max_bytes=len(data) - 1))


@pytest.mark.parametrize("name", ["gif-animated", "apng", "webp-animated", "tiff-pages"])
def test_the_frame_limit_holds(name):
    data = every_format()[name]
    assert decode_image(data, ImageLimits(max_frames=3)).size == (120, 80)
    with pytest.raises(ImageTooLargeError, match="more than 2"):
        decode_image(data, ImageLimits(max_frames=2))


def test_little_text_is_fine_and_dropped():
    text = png_chunk(b"tEXt", b"Comment\0hello")
    assert pixels(decode_image(png(1, 1, 8, 0, b"\0\x80", text))).tolist() == [[[128] * 3]]


def test_the_default_limits_are_the_documented_ones():
    documented = {"max_bytes": 64 << 20, "max_pixels": 50_000_000, "max_frames": 1000}
    assert asdict(DEFAULT_LIMITS) == {**documented, "max_text_bytes": 4 << 20}


def test_compressions_with_untested_decoders_are_refused():
    for compression in ("tiff_ccitt", "group3", "group4", "lzma", "zstd"):
        mode = "RGB" if compression in ("lzma", "zstd") else "1"
        data = encode(photo().convert(mode), "TIFF", compression=compression)
        with pytest.raises(ImageFormatError, match="compression"):
            decode_image(data)
