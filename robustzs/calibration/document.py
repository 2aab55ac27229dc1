"""``calibration.json``: thresholds, what they were set on, and what they are valid for.

The JSON Schema in ``robustzs/schemas/calibration.schema.json`` is generated from
``CalibrationDocument`` (``python -m robustzs.schemas``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from robustzs.answer import Digest, HierarchyRef, ModelRef, Probability, StopRule, Strategy
from robustzs.bundle.manifest import Geometry, Positive, Precision
from robustzs.bundle.store import canonical_json, describe_problems, read_json_object
from robustzs.errors import (
    BundleError,
    CalibrationError,
)
from robustzs.images.config import PreprocessConfig
from robustzs.threat import Norm

SCHEMA_VERSION = 1
FILE_NAME = "calibration.json"
MAX_BYTES = 1_000_000

Alpha = Annotated[float, Field(gt=0.0, lt=1.0)]
_SAME_TARGET = 1e-9

GUARANTEE = (
    "On average over draws of the calibration images, an answer to a further image is right with "
    "at least the target accuracy, if that image is exchangeable with them: of the same kind of "
    "data, {attack}. It is no promise for each class."
)
SYNTHETIC = (
    "The calibration images are synthetic or composited: there is no guarantee on other data."
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Binding(_Frozen):
    """Everything that a threshold depends on; a difference in any of it makes it worthless."""

    image_encoder: dict[str, Digest] = Field(description="sha256 of its files, by name")
    image_precision: Precision
    decode_mode: Literal["full"] = Field("full", description="images are decoded at full size")
    preprocess: PreprocessConfig
    text_features: Digest = Field(description="of text tower, templates, prompts")
    templates: Digest
    geometry: Geometry
    logit_scale: Positive
    temperature: Positive
    strategy: Strategy
    n_hyponyms: int | None = Field(None, description="of strategy hyponyms alone")
    rule: StopRule
    root: str | None = Field(None, description="id of the node that answers were confined to")
    hierarchy: Digest

    def differences(self, in_use: Binding) -> list[str]:
        """Each field that differs, as ``field is ... here, ... in the calibration``."""
        return [
            f"{name} is {_short(getattr(in_use, name))} here, "
            f"{_short(getattr(self, name))} in the calibration"
            for name in type(self).model_fields
            if getattr(self, name) != getattr(in_use, name)
        ]


class HeldOut(_Frozen):
    """What came out on images that set neither temperature nor theta."""

    n: int = Field(ge=1)
    hierarchical_accuracy: Probability
    low: Probability = Field(description="Wilson's interval, 95%")
    high: Probability
    specificity: Probability


class Target(_Frozen):
    """One threshold."""

    alpha: Alpha = Field(description="1 - target accuracy")
    theta: Probability
    n: int = Field(ge=1, description="images that theta was set on")
    rank: int = Field(ge=1, description="theta is the score of this rank, ascending")
    heldout: HeldOut | None = None

    @property
    def accuracy(self) -> float:
        """The target hierarchical accuracy."""
        return 1.0 - self.alpha


class TemperatureRecord(_Frozen):
    """Where the temperature comes from."""

    source: Literal["fitted", "model", "user"]
    n: int = Field(0, ge=0, description="images that it was fitted on")
    nll_before: float | None = Field(None, description="nats, at temperature 1")
    nll_after: float | None = None


class DataRecord(_Frozen):
    """The calibration images."""

    name: str
    digest: Digest = Field(description="of the images' sha256 and labels, in order")
    n: int = Field(ge=1, description="images that could be read")
    n_unreadable: int = Field(0, ge=0)
    n_repeated: int = Field(0, ge=0, description="of n: the same file again")
    synthetic: bool = False
    seed: int = Field(0, ge=0, description="of the split")


class ThreatRecord(_Frozen):
    """The attack that the calibration images suffered."""

    norm: Norm
    eps: Positive = Field(description="in units of pixels in [0, 1]")
    attack: str
    n_steps: int | None = Field(None, ge=0)
    how: str | None = Field(None, description="on what and until when, where robustzs made it")


class CalibrationDocument(_Frozen):
    """A calibration file."""

    kind: Literal["robustzs-calibration"] = "robustzs-calibration"
    schema_version: Literal[1] = 1
    model: ModelRef
    hierarchy: HierarchyRef
    binding: Binding
    temperature: TemperatureRecord
    targets: tuple[Target, ...] = Field(min_length=1, description="ascending in accuracy")
    data: DataRecord
    threat: ThreatRecord | None = Field(None, description="null: clean images")
    guarantee: str
    created_with: str

    @model_validator(mode="after")
    def _consistent(self) -> CalibrationDocument:
        if self.hierarchy.digest != self.binding.hierarchy:
            raise ValueError("hierarchy.digest and binding.hierarchy differ")
        alphas = [target.alpha for target in self.targets]
        if alphas != sorted(set(alphas), reverse=True):
            raise ValueError("targets do not ascend in accuracy")
        thetas = [target.theta for target in self.targets]
        if thetas != sorted(thetas):
            raise ValueError("a higher target accuracy has a lower theta")
        if (self.binding.strategy == "hyponyms") != (self.binding.n_hyponyms is not None):
            raise ValueError("n_hyponyms belongs to strategy hyponyms, and to it alone")
        return self

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()

    def choose(self, target_accuracy: float | None) -> Target:
        """The threshold for an accuracy; without one, the only threshold.

        Raises:
            CalibrationError: Nothing was calibrated for that accuracy, or several are to choose of.
        """
        has = ", ".join(f"{target.accuracy:g}" for target in self.targets)
        if target_accuracy is None:
            if len(self.targets) > 1:
                raise CalibrationError(
                    f"the calibration has several target accuracies: {has}",
                    hint="name one of them as target accuracy",
                )
            return self.targets[0]
        for target in self.targets:
            if abs(target.accuracy - target_accuracy) < _SAME_TARGET:
                return target
        raise CalibrationError(
            f"the calibration has no target accuracy {target_accuracy:g}; it has {has}",
            hint="choose one of these, or run `robustzs calibrate` for yours",
        )

    def to_json(self) -> str:
        """The file's text: sorted keys, indented, one newline at the end."""
        return self.model_dump_json(indent=2) + "\n"


def read_calibration(path: str | Path) -> CalibrationDocument:
    """Read a calibration file.

    Raises:
        CalibrationError: It cannot be read, is not JSON, or violates the schema; every problem is
            listed.
    """
    target = Path(path).resolve()  # what a caller names may be a link
    hint = "`robustzs calibrate` makes such files"
    try:
        document = read_json_object(target, target.name, MAX_BYTES)
    except BundleError as error:
        raise CalibrationError(error.message, hint=hint) from error
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise CalibrationError(
            f"{target} has schema version {version}; this robustzs reads up to {SCHEMA_VERSION}",
            hint="upgrade robustzs to read it",
        )
    try:
        return CalibrationDocument.model_validate(document)
    except ValidationError as error:
        raise CalibrationError(
            f"{target} is no calibration file: {describe_problems(error)}", hint=hint
        ) from error


def guarantee_text(*, synthetic: bool, threat: ThreatRecord | None) -> str:
    """What the thresholds promise, in words."""
    if threat is None:
        attack = "and not attacked"
    else:
        attack = f"and attacked alike ({threat.attack}, {threat.norm}, eps {threat.eps:g})"
    text = GUARANTEE.format(attack=attack)
    return f"{SYNTHETIC} {text}" if synthetic else text


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_none=True)
    text = str(value)
    return text[:12] if len(text) == 64 else text
