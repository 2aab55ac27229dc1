"""A recipe: everything that decides a training run, as one checked document.

Files are read by :mod:`robustzs_training.recipe_files`. ``threat``, ``attack`` and the objective's
options are handed to the classes that define them; sizes such as ``4/255`` are read here, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from robustzs.bundle.store import canonical_json
from robustzs.errors import UsageError
from robustzs.threat import AttackConfig, Norm, Start, ThreatModel, parse_size


def _size(value: object) -> float:
    # An error of ours would end the validation; as a ValueError it is listed with the others.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("a size is a number such as 0.0157, or a quotient such as 4/255")
    try:
        return parse_size(value)
    except UsageError as error:
        raise ValueError(str(error)) from error


Size = Annotated[float, BeforeValidator(_size)]
ObjectiveName = Literal[
    "tecoa",
    "fare",
    "fare-kl",
    "pmg-aft",
    "tga-zsr",
    "sim-clip",
    "agft",
    "qt-aft",
    "hierarchical",
    "qt-aft-hierarchical",
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_yes_for_numbers(cls, data: Any) -> Any:
        # pydantic takes true for 1, which nobody means.
        if isinstance(data, Mapping):
            for name, value in data.items():
                field = cls.model_fields.get(str(name))
                if isinstance(value, bool) and field is not None and field.annotation is not bool:
                    raise ValueError(f"{name} is {str(value).lower()}, where no yes or no belongs")
        return data


class ModelPart(_Part):
    """What is trained: whatever `robustzs export` can load."""

    source: str = Field(description="open_clip architecture, hf-hub:NAME, folder, or a bundle")
    pretrained: str | None = Field(
        None, description="tag or checkpoint file; `random`: random weights, to try a recipe out"
    )
    base: str | None = Field(None, description="what a visual encoder was trained from")
    start: str | None = Field(
        None, description="bundle whose image tower trains on; what is frozen stays the source's"
    )
    activation: Literal["auto", "gelu", "quickgelu"] = Field("auto", description="as in export")
    resize: Literal["auto", "open-clip", "qt-aft"] = Field(
        "auto", description="before the crop; qt-aft: to 256 for 224, bilinear"
    )


class AugmentPart(_Part):
    """How a training image becomes pixels."""

    image_size: int | None = Field(None, ge=16, description="null: the model's own")
    crop: Literal["center", "random-resized"] = "center"
    scale: tuple[float, float] = Field((0.5, 1.0), description="area that random crops keep")
    flip: bool = False

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> AugmentPart:
        low, high = self.scale
        if not 0.0 < low <= high <= 1.0:
            raise ValueError(f"scale is [{low:g}, {high:g}]: 0 < low <= high <= 1")
        return self


class TreePart(_Part):
    """A tree over the classes, perhaps cut; a name alone is a tree as it is."""

    tree: str = Field("wordnet", description="wordnet, flat, or a file")
    other_parents: bool = Field(False, description="nodes below their second hypernym")
    depths: tuple[int, ...] | None = Field(None, description="inner nodes that are kept")
    classes: tuple[int, ...] | None = Field(None, description="levels of so many classes")

    @model_validator(mode="after")
    def _one_cut(self) -> TreePart:
        if self.depths is not None and self.classes is not None:
            raise ValueError("depths and classes exclude each other: give one of them")
        return self

    @property
    def is_cut(self) -> bool:
        """Whether it is another tree than the one that is named."""
        return self.other_parents or self.depths is not None or self.classes is not None


def _trees(value: object) -> object:
    """Names and parts, one or several, as a list of parts."""
    several = value if isinstance(value, list | tuple) else [value]
    return [{"tree": each} if isinstance(each, str) else each for each in several]


Trees = Annotated[tuple[TreePart, ...], BeforeValidator(_trees), Field(min_length=1)]


class DataPart(_Part):
    """What is trained on."""

    source: Literal["folder", "wnid-folder", "webdataset", "torchvision", "huggingface", "openmoji"]
    path: str | None = Field(None, description="folder, or shards as PATH/{0000..0009}.tar")
    name: str | None = Field(
        None, description="dataset, for torchvision and huggingface; `kinds` for openmoji"
    )
    split: str = "train"
    captions: str | None = Field(None, description="caption table, .parquet or .jsonl")
    caption_mode: Literal["as-is", "names", "names-and-properties", "shuffled"] = "as-is"
    hierarchy: Trees = Field(
        (TreePart(),), description="a tree over the classes, or several as a list"
    )
    template: str = Field(
        "This is a photo of a {}", description="a sentence with {}, or a set of templates"
    )
    augment: AugmentPart = AugmentPart()
    siblings: int = Field(1, ge=1, description="classes of one parent brought into a batch")
    max_bad_fraction: float = Field(0.01, ge=0.0, le=1.0, description="then the run stops")
    n_workers: int = Field(0, ge=0)


class ObjectivePart(BaseModel):
    """The objective and its own options (see `docs/objectives.md`)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: ObjectiveName

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name; see :mod:`robustzs_training.objective_options`."""
        return dict(self.model_extra or {})


class ThreatPart(_Part):
    """What the attacker may do."""

    norm: Norm = "Linf"
    eps: Size

    @model_validator(mode="after")
    def _is_one(self) -> ThreatPart:
        try:
            self.build()
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> ThreatModel:
        """The value object."""
        return ThreatModel(norm=self.norm, eps=self.eps)


class AttackPart(_Part):
    """How the training attack searches."""

    n_steps: int = Field(ge=0)
    step_size: Size
    n_restarts: int = Field(1, ge=1)
    start: Start = "uniform"
    momentum: float = Field(0.0, ge=0.0)

    def build(self, seed: int) -> AttackConfig:
        """The value object."""
        return AttackConfig(seed=seed, **self.model_dump())


class OptimizerPart(_Part):
    """AdamW or SGD."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(gt=0.0)
    weight_decay: float = Field(0.0, ge=0.0)
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = Field(0.0, ge=0.0, lt=1.0)
    clip_grad_norm: float | None = Field(None, gt=0.0)
    ema_decay: float | None = Field(None, gt=0.0, lt=1.0)
    layer_decay: float | None = Field(
        None, gt=0.0, le=4.0, description="factor of lr per layer, counted from the last"
    )

    @model_validator(mode="after")
    def _betas_below_one(self) -> OptimizerPart:
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas is {list(self.betas)}: both from 0 to below 1")
        return self


class SchedulePart(_Part):
    """Linear warm-up, then cosine to zero or a constant rate. Give epochs or steps."""

    name: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    epochs: float | None = Field(None, gt=0.0)
    steps: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_length(self) -> SchedulePart:
        if (self.epochs is None) == (self.steps is None):
            given = "both" if self.steps is not None else "neither"
            raise ValueError(f"{given} of epochs and steps given: give one of them")
        return self


class RunPart(_Part):
    """How the machine is used, and how many images an in-batch contrast sees: a part of a batch."""

    batch_size: int = Field(ge=1, description="images of one optimiser step, over all processes")
    accumulation: int = Field(1, ge=1, description="parts that each process splits its share into")
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    compile: bool = False
    channels_last: bool = True
    seed: int = Field(0, ge=0)
    checkpoint_every: int = Field(500, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1)
    log_every: int = Field(10, ge=1, description="steps")
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    divergence_factor: float = Field(
        20.0,
        gt=1.0,
        description="stop when the loss is so many times its running average; of a loss that has "
        "been zero or below: so many of its usual steps above it",
    )


class EvaluatePart(_Part):
    """The check before and after: APGD-CE from outside, float32, white-box."""

    eps: Size = 1.0 / 255.0
    n_steps: int = Field(20, ge=1)
    n_images: int | None = Field(None, ge=1, description="a seeded subset; null: all")
    batch_size: int = Field(32, ge=1)
    path: str | None = Field(None, description="labelled folder; null: what the data holds out")


class ExportPart(_Part):
    """The bundle that the run leaves."""

    templates: str | None = Field(None, description="default prompt templates; null: the source's")
    licence: str | None = None
    enabled: bool = True


# They change what is written, shown or measured, or where data lies (its content has a digest of
# its own), and no weight.
_WITHOUT_INFLUENCE: dict[str, Any] = {
    "name": True,
    "summary": True,
    "source": True,
    "evaluate": True,
    "export": True,
    "data": {"path", "captions", "n_workers", "max_bad_fraction"},
    "run": {
        "checkpoint_every",
        "keep_checkpoints",
        "log_every",
        "trackers",
        "divergence_factor",
    },
}


class Recipe(_Part):
    """One training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    summary: str = ""
    source: str = Field("", description="where the settings come from, and how sure each is")
    model: ModelPart
    data: DataPart
    objective: ObjectivePart
    own_objective: str | None = Field(
        None, description="written by a program that trained with a class of its own instead"
    )
    threat: ThreatPart
    attack: AttackPart
    optimizer: OptimizerPart
    schedule: SchedulePart
    run: RunPart
    evaluate: EvaluatePart | None = None
    export: ExportPart = ExportPart()

    @property
    def objective_name(self) -> str:
        """What trains, for people."""
        return self.own_objective or self.objective.name

    def document(self) -> dict[str, Any]:
        """The whole recipe as JSON values, defaults written out."""
        return self.model_dump(mode="json")

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the weights, as JSON values; a run goes on only under them.

        Texts, places of data, logging, the evaluation and the export do not count.
        """
        found = self.model_dump(mode="json", exclude=_WITHOUT_INFLUENCE)
        if self.model.start is None:  # came later: runs from before it go on
            del found["model"]["start"]
        return found

    @property
    def digest(self) -> str:
        """Sha256 of :meth:`decisive`."""
        return hashlib.sha256(canonical_json(self.decisive())).hexdigest()
