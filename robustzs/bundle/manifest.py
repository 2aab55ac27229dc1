"""``bundle.json``: what a bundle says of itself.

The JSON Schema in ``robustzs/schemas/bundle.schema.json`` is generated from ``BundleManifest``
(``python -m robustzs.schemas``). Unknown keys are refused, so that a misspelt one is found; a file
with a higher ``schema_version`` is refused before anything else in it is looked at.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robustzs.images.config import PreprocessConfig

SCHEMA_VERSION = 1
MANIFEST_NAME = "bundle.json"
MAX_FILES = 256

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Strict):
    """Size and digest of one file in the bundle."""

    sha256: Digest
    size: int = Field(ge=0, description="bytes")


class Geometry(_Strict):
    """How features are compared.

    ``cosine``: ``logits = logit_scale * cos(image_features, text_features)``.
    ``poincare``: features are scaled, lifted by ``exp_0`` into the ball of curvature ``-curvature``
    and ``logits = -logit_scale * distance``.
    """

    kind: Literal["cosine", "poincare"] = "cosine"
    curvature: Positive | None = None
    image_scale: Positive | None = Field(
        None, description="factor on raw image features before exp_0"
    )
    text_scale: Positive | None = Field(
        None, description="factor on raw text features before exp_0"
    )

    @model_validator(mode="after")
    def _complete(self) -> Geometry:
        values = (self.curvature, self.image_scale, self.text_scale)
        if self.kind == "poincare" and None in values:
            raise ValueError("poincare geometry needs curvature, image_scale and text_scale")
        if self.kind == "cosine" and any(value is not None for value in values):
            raise ValueError("cosine geometry has no curvature and no scales")
        return self


class TokenizerConfig(_Strict):
    """What turns prompts into ``token_ids``; the vocabulary is in ``tokenizer.json``."""

    kind: Literal["clip-bpe", "wordpiece"]
    context_length: int = Field(ge=1, le=8192)
    fixed_length: bool = Field(
        description="true: the text graph takes exactly context_length tokens"
    )
    pad_id: int = Field(ge=0)
    lowercase: bool = True
    strip_sep_token: bool = Field(
        False, description="the end token becomes 0, as in open_clip's CLIPA models"
    )


class Threshold(_Strict):
    """A number that decides something, and where it comes from."""

    value: Finite
    source: str = Field(description="data, n and rule that it was set with")


class SourceRecord(_Strict):
    """The checkpoint that the bundle was made from."""

    description: str
    architecture: str | None = None
    pretrained: str | None = None
    sha256: Digest | None = Field(None, description="of the checkpoint file, where there is one")


class BackboneRecord(_Strict):
    """A frozen backbone that ``weights.safetensors`` does not repeat."""

    name: str
    source: str = Field(description="package and version that carries it")
    sha256: Digest
    prefix: str = Field(description="parameters under this prefix come from it")


class LicenceRecord(_Strict):
    """A licence and what it covers."""

    name: str = Field(description="SPDX identifier where there is one")
    covers: str
    url: str | None = None


class BundleManifest(_Strict):
    """The record of a bundle."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str = Field("1", pattern=r"^[0-9A-Za-z._-]{1,32}$")
    description: str = ""
    created_with: str = Field(description="robustzs version that wrote it")
    source: SourceRecord
    embed_dim: int = Field(ge=1, le=65536)
    preprocess: PreprocessConfig
    mean: tuple[Finite, Finite, Finite] = Field(
        description="normalisation inside the graph, for the record"
    )
    std: tuple[Positive, Positive, Positive]
    logit_scale: Positive = Field(description="the factor itself, exponential already taken")
    temperature: Positive = 1.0
    geometry: Geometry = Geometry()
    tokenizer: TokenizerConfig
    templates: str | tuple[str, ...] = Field(
        "single", description="default template set or templates"
    )
    image_encoders: dict[Precision, str] = Field(description="precision -> file name")
    text_encoders: dict[Precision, str]
    default_image_precision: Precision = "fp32"
    default_text_precision: Precision = "fp32"
    opset: int = Field(ge=17, le=30)
    theta: Threshold | None = Field(None, description="default stop threshold, else 0.65")
    low_confidence: Threshold | None = Field(
        None, description="an answer whose flat top-1 probability is below it is flagged"
    )
    rejection: Threshold | None = Field(
        None, description="similarity below which `none of these` is the answer, when asked for"
    )
    weights: str | None = Field(None, description="safetensors of what was trained")
    open_clip_config: str | None = None
    backbones: tuple[BackboneRecord, ...] = ()
    training: dict[str, Any] | None = Field(None, description="training record")
    licences: tuple[LicenceRecord, ...] = Field(min_length=1)
    files: dict[str, FileRecord] = Field(
        max_length=MAX_FILES, description="every file but bundle.json itself"
    )

    @model_validator(mode="after")
    def _references_exist(self) -> BundleManifest:
        named = [*self.image_encoders.values(), *self.text_encoders.values(), "tokenizer.json"]
        named += [name for name in (self.weights, self.open_clip_config) if name is not None]
        missing = sorted({name for name in named if name not in self.files})
        if missing:
            raise ValueError(f"files named but not recorded: {', '.join(missing)}")
        if self.default_image_precision not in self.image_encoders:
            raise ValueError(f"no image encoder of precision {self.default_image_precision}")
        if self.default_text_precision not in self.text_encoders:
            raise ValueError(f"no text encoder of precision {self.default_text_precision}")
        return self
