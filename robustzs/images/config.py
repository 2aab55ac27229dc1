"""How an image is resized and cropped: a value object that is part of ``bundle.json``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_SIDE = 4096


class PreprocessConfig(BaseModel):
    """How a decoded RGB image becomes ``pixels`` ``[3, H, W]`` in [0, 1]; never normalised.

    ``shortest`` and a ``resize_size`` of its own is torchvision's ``Resize(256)``,
    ``CenterCrop(224)``; open_clip's own transform has ``resize_size == image_size``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: tuple[int, int] = Field(description="height, width of the model's input")
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    resize_size: int | None = Field(
        None, ge=1, le=MAX_SIDE, description="target of the resize; null: image_size"
    )
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill_color: tuple[int, int, int] = Field((0, 0, 0), description="padding of `longest`")

    @field_validator("image_size")
    @classmethod
    def _size_in_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 1 or max(value) > MAX_SIDE:
            raise ValueError(f"image_size {value} is not within 1..{MAX_SIDE}")
        return value

    @field_validator("fill_color")
    @classmethod
    def _color_in_range(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(value) < 0 or max(value) > 255:
            raise ValueError(f"fill_color {value} is not within 0..255")
        return value

    @model_validator(mode="after")
    def _resize_size_applies(self) -> PreprocessConfig:
        if self.resize_size is not None and self.resize_mode != "shortest":
            raise ValueError(f"resize_size has no meaning with resize_mode {self.resize_mode!r}")
        return self
