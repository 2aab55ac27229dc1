"""Every pixel format that a decoder may give becomes 8-bit RGB, by one written rule each.

- 16 bits: the high byte, for grey as for colour. Nothing is clipped.
- Transparency: over white. An opaque image is exactly what dropping the alpha channel gives.
- 32-bit float: values in [0, 1] scaled to 255; other values have no agreed meaning and are refused,
  like 32-bit integers.
- Colour profiles are ignored, as in the training of the models.
"""

from __future__ import annotations

import numpy as np

from robustzs.errors import ImageFormatError, MissingExtraError

try:
    from PIL import Image
except ImportError as error:
    raise MissingExtraError("pillow", "cpu") from error

__all__ = ["Image", "to_rgb"]  # the one place that knows what to say when Pillow is missing

_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_OPAQUE = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})


def to_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB image without transparency; the same object when it already is one.

    Raises:
        ImageFormatError: a pixel format without an agreed meaning.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        return _from_16_bit(image).convert("RGB")
    if mode == "F":
        return _from_float(image).convert("RGB")
    if mode in _WITH_ALPHA or (mode in ("1", "L", "P", "RGB") and "transparency" in image.info):
        return _over_white(image)
    if mode not in _OPAQUE:
        raise ImageFormatError(
            f"the image has the pixel format {mode!r}, whose range is not known",
            hint="save it with 8 or 16 bits per channel",
        )
    return image if mode == "RGB" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    order = ">" if image.mode.endswith("B") else "<"
    values = np.frombuffer(image.tobytes(), dtype=f"{order}u2").reshape(image.height, image.width)
    return Image.fromarray((values >> 8).astype(np.uint8))


def _from_float(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float32)
    if not (values.min() >= 0.0 and values.max() <= 1.0):  # also refuses NaN
        raise ImageFormatError(
            "the image has 32-bit float pixels outside [0, 1]",
            hint="scale it to [0, 1], or save it with 8 or 16 bits per channel",
        )
    return Image.fromarray(np.rint(values * np.float32(255.0)).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    lowest, _ = rgba.getchannel("A").getextrema()
    if lowest == 255:
        return rgba.convert("RGB")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")
