"""What may be wrong with images, labels and templates."""

from __future__ import annotations

from collections.abc import Sequence

from robustzs.errors.base import RobustZSError


class ImageError(RobustZSError):
    """Something is wrong with an image."""

    code = "image"


class ImageFormatError(ImageError):
    """Not an image, or a format that is not allowed."""

    code = "image-format"


class ImageTruncatedError(ImageError):
    """The file ends before the picture does."""

    code = "image-truncated"


class ImageTooLargeError(ImageError):
    """More pixels, bytes, frames or metadata than the limits allow."""

    code = "image-too-large"


class ImageDecodeError(ImageError):
    """The content is damaged."""

    code = "image-decode"


class ImageSourceError(ImageError):
    """Not a regular file, not readable, or nothing matched."""

    code = "image-source"


class LabelError(RobustZSError):
    """Something is wrong with the labels.

    Args:
        message: What is wrong.
        hint: What to do about it.
        problems: Every single problem with its place, where there can be several.
    """

    code = "label"

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class LabelFileError(LabelError):
    """A label file cannot be read or parsed."""

    code = "label-file"


class DuplicateLabelError(LabelError):
    """Two labels share an id or a prompt."""

    code = "label-duplicate"


class TemplateError(LabelError):
    """Unknown template set, or a template without a literal ``{}``."""

    code = "template"
