"""From a recipe to what trains: the model, its classes and trees, the objective and its batches.

::

    source = load_model(recipe.model)
    model = adapter_of(source).to(device)
    tokenizer = tokenizer_for(source)
    objective, to_batch = build_objective(recipe, model, tokenizer, data.labels)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel

from robustzs.bundle.manifest import BundleManifest, SourceRecord
from robustzs.errors import RecipeError, UsageError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy
from robustzs.images.config import PreprocessConfig
from robustzs.labels import LabelSet
from robustzs.labels.templates import TemplateSet, get_templates
from robustzs.tokenizer import Tokenizer
from robustzs_training.adapter import ClipAdapter
from robustzs_training.caption_features import CaptionFeatures
from robustzs_training.data.base import Examples
from robustzs_training.export.activation import Activation
from robustzs_training.export.origins import architecture_config
from robustzs_training.export.sources import SourceModel, SourceRequest, load_source
from robustzs_training.export.tokenizers import tokenizer_of
from robustzs_training.models import build_model, read_model_config
from robustzs_training.objective_options import (
    ANY_CLASSES,
    CAPTIONED,
    CLASS_OBJECTIVES,
    FEATURE_OBJECTIVES,
    LABELLED,
    TREED,
    options_model,
)
from robustzs_training.objectives import (
    Batch,
    Hierarchical,
    HierarchicalOptions,
    Objective,
    QtAft,
    QtAftHierarchical,
)
from robustzs_training.objectives.tecoa import ClassObjective
from robustzs_training.recipe import ModelPart, Recipe
from robustzs_training.trees import load_trees

Tokenize = Callable[[list[str]], Any]
"""Texts -> int64 ``[N, T]``: too long ones are cut, an empty one is a text like any other."""
ToBatch = Callable[[Examples, torch.device], Batch]
RANDOM = "random"
IMAGENET = "imagenet-1k"


# ---- model ---------------------------------------------------------------------------------------


def load_model(part: ModelPart, *, seed: int = 0) -> SourceModel:
    """Load what a recipe trains: a bundle, a checkpoint, an architecture with a tag.

    Args:
        part: ``pretrained: random`` builds an architecture of open_clip, or a configuration file,
            with random weights: for trying a recipe out without a download.
        seed: Of random weights.

    Raises:
        RobustZSError: Whatever :func:`load_source` raises.
    """
    if part.pretrained != RANDOM:
        return load_source(
            SourceRequest(
                model=part.source,
                pretrained=part.pretrained,
                base=part.base,
                activation=part.activation,
                resize=part.resize,
            )
        )
    return _random_model(part, seed)


@torch.no_grad()
def start_from(model: ClipAdapter, bundle: str) -> BundleManifest:
    """Give the image tower the weights of another bundle's; frozen copies stay as they are.

    Args:
        model: After the objective was built over it.
        bundle: Name or folder, of the same architecture: a run's result that is to go on, perhaps
            at another resolution, held to what it was held to before.

    Returns:
        The bundle's record.

    Raises:
        RecipeError: It is no bundle, or its image tower is another one.
        RobustZSError: Whatever :func:`load_source` raises.
    """
    source = load_source(SourceRequest(model=bundle))
    if source.manifest is None:
        raise RecipeError(
            f"model.start {bundle!r} is no bundle", hint="name what `robustzs train` left"
        )
    tower = cast(torch.nn.Module, source.model.visual)
    given, wanted = tower.state_dict(), model.visual.state_dict()
    if {n: t.shape for n, t in given.items()} != {n: t.shape for n, t in wanted.items()}:
        raise RecipeError(
            f"model.start {bundle!r} has another image tower than model.source",
            hint="name a bundle that was trained from that source",
        )
    model.visual.load_state_dict(given)
    return source.manifest


def _random_model(part: ModelPart, seed: int) -> SourceModel:
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    path = Path(part.source)
    is_file = path.suffix == ".json" and path.is_file()
    config = read_model_config(path) if is_file else architecture_config(part.source)
    config = {
        **config,
        "vision_cfg": dict(config["vision_cfg"]),
        "text_cfg": dict(config["text_cfg"]),
    }
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    if part.activation != "auto":
        config["quick_gelu"] = cast(Activation, part.activation) == "quickgelu"
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = build_model(config)
    size = getattr(model.visual, "image_size", 224)
    height, width = size if isinstance(size, tuple | list) else (size, size)
    wide = part.resize == "qt-aft"
    return SourceModel(
        model=model,
        config=config,
        tokenizer=tokenizer_of(config),
        preprocess=PreprocessConfig(
            image_size=(height, width),
            resize_size=round(min(height, width) * 256 / 224) if wide else None,
            interpolation="bilinear" if wide else "bicubic",
        ),
        mean=OPENAI_DATASET_MEAN,
        std=OPENAI_DATASET_STD,
        source=SourceRecord(
            description=f"random weights, seed {seed}", architecture=part.source, pretrained=RANDOM
        ),
        notes=("the weights are random: nothing that comes out of this run is of use",),
    )


def adapter_of(source: SourceModel) -> ClipAdapter:
    """The model as objectives see it.

    Raises:
        UsageError: A model whose text tower is of another kind (CoCa).
    """
    return ClipAdapter(source.model, source.mean, source.std)


def tokenizer_for(source: SourceModel) -> Tokenize:
    """What turns texts into the model's tokens; that of the bundle which the run will leave."""
    tokenizer: Tokenize = Tokenizer(source.tokenizer.config, source.tokenizer.content)
    return tokenizer


# ---- classes -------------------------------------------------------------------------------------


def class_features(
    model: ClipAdapter, tokenizer: Tokenize, labels: LabelSet, templates: TemplateSet
) -> torch.Tensor:
    """Unit text features ``[C, D]`` of ``labels``, on the model's device."""
    prompts = [text for label in labels for text in templates.fill(label.prompt)]
    ids = torch.as_tensor(tokenizer(prompts)).reshape(len(labels), len(templates), -1)
    return model.class_features(ids.to(device_of(model)))


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device


# ---- objective -----------------------------------------------------------------------------------


def objective_options(recipe: Recipe) -> BaseModel:
    """The objective's options, checked.

    Raises:
        RecipeError: An unknown option, or a wrong value.
    """
    from robustzs_training.recipe_problems import option_problems

    part = recipe.objective
    problems = option_problems({"name": part.name, **part.options})
    if problems:
        raise RecipeError("\n".join(problems), hint="docs/objectives.md lists the options")
    return options_model(part.name).model_validate(part.options)


def build_objective(
    recipe: Recipe,
    model: ClipAdapter,
    tokenizer: Tokenize,
    labels: LabelSet | None,
    *,
    trees: Hierarchy | Forest | None = None,
    captions: CaptionFeatures | None = None,
    own: type[Objective] | None = None,
) -> tuple[Objective, ToBatch]:
    """The recipe's objective over ``model``, and what turns examples into its batches.

    Args:
        recipe: The recipe.
        model: As it is before training, on the device where it will train.
        tokenizer: The model's.
        labels: The data's classes, in the order that its labels count through.
        trees: Over the same labels, in any order; ``None``: the recipe's own.
        captions: Features of all captions of the data, where they are kept; ``None``: captions
            are encoded at every step.
        own: A class to train with instead of the recipe's objective: called with the model, and
            for a ``ClassObjective`` with the text features of the classes. Its batches have all
            that the data has.

    Raises:
        RecipeError: Wrong options.
        UsageError: The data lacks what the objective needs.
        RobustZSError: No such template or hierarchy.
    """
    if own is not None:
        return _own_objective(own, recipe, model, tokenizer, labels)
    name = recipe.objective.name
    options = objective_options(recipe)
    values = options.model_dump()
    other = values.pop("classes", None)
    if other is not None:
        labels = LabelSet.imagenet1k() if other == IMAGENET else LabelSet.parse(other)
    if labels is None and (name in LABELLED or name in CLASS_OBJECTIVES):
        raise UsageError(
            f"the objective {name} needs classes, and the data has none",
            hint="sort the images into one folder for each class, or choose fare, sim-clip or "
            "qt-aft" + (", or name others: objective.classes=imagenet-1k" * (name in ANY_CLASSES)),
        )
    batches = _Batches(
        wants_labels=name in LABELLED,
        tokenizer=tokenizer if name in CAPTIONED else None,
        captions=captions if name in CAPTIONED else None,
    )
    objective: Objective
    if name in FEATURE_OBJECTIVES:
        objective = FEATURE_OBJECTIVES[name](model, **values)
    elif name == "qt-aft":
        objective = QtAft(model, **values)
    elif name in TREED and labels is not None:
        found = trees if trees is not None else load_trees(recipe.data.hierarchy, labels).hierarchy
        objective = _treed(recipe, model, tokenizer, found, options)
        batches = batches.in_order_of(labels, found.labels)
    else:
        templates = get_templates(recipe.data.template)
        classes = class_features(model, tokenizer, cast(LabelSet, labels), templates)
        objective = CLASS_OBJECTIVES[name](model, classes, **values)
    return objective.to(device_of(model)), batches


def _own_objective(
    own: type[Objective],
    recipe: Recipe,
    model: ClipAdapter,
    tokenizer: Tokenize,
    labels: LabelSet | None,
) -> tuple[Objective, ToBatch]:
    objective: Objective
    if issubclass(own, ClassObjective):
        if labels is None:
            raise UsageError(
                f"{own.__name__} needs classes, and the data has none",
                hint="sort the images into one folder for each class",
            )
        templates = get_templates(recipe.data.template)
        objective = own(model, class_features(model, tokenizer, labels, templates))
    else:
        objective = own(model)
    batches = _Batches(wants_labels=labels is not None, tokenizer=tokenizer)
    return objective.to(device_of(model)), batches


def _treed(
    recipe: Recipe,
    model: ClipAdapter,
    tokenizer: Tokenize,
    trees: Hierarchy | Forest,
    options: BaseModel,
) -> Objective:
    joint = recipe.objective.name == "qt-aft-hierarchical"
    values = options.model_dump()
    templates = get_templates(recipe.data.template)
    if len(templates) != 1 or templates.article:
        raise RecipeError(
            f"data.template {recipe.data.template!r} is no single sentence",
            hint="the hierarchical objective perturbs one prompt for each class: take `paper`, or "
            "a sentence with {}",
        )
    on = device_of(model)
    tree = Hierarchical.from_hierarchy(
        model,
        trees,
        lambda texts: torch.as_tensor(tokenizer(texts)).to(on),
        template=templates.templates[0],
        options=HierarchicalOptions(**(values["tree"] if joint else values)),
    )
    if not joint:
        return tree
    captions = QtAft(model, **values["captions"])
    return QtAftHierarchical(captions, tree, tree_weight=values["tree_weight"])


@dataclass(frozen=True, kw_only=True)
class _Batches:
    """Examples -> batches of one objective; see :data:`ToBatch`."""

    wants_labels: bool
    tokenizer: Tokenize | None = None
    captions: CaptionFeatures | None = None
    columns: torch.Tensor | None = None

    def in_order_of(self, labels: LabelSet, leaves: LabelSet) -> _Batches:
        """For an objective whose classes are ``leaves``, of data whose classes are ``labels``."""
        columns = torch.tensor([leaves.index(label_id) for label_id in labels.ids])
        return replace(self, columns=columns)

    def __call__(self, examples: Examples, device: torch.device) -> Batch:
        """Pixels, and what else the objective reads, on ``device``."""
        pixels = examples.pixels.to(device, non_blocking=True)
        if not pixels.is_floating_point():
            pixels = pixels.float() / 255.0
        labels = examples.labels if self.wants_labels else None
        if labels is not None:
            labels = (labels if self.columns is None else self.columns[labels]).to(device)
        ids: torch.Tensor | None = None
        features: torch.Tensor | None = None
        if self.captions is not None:
            features = self.captions[examples.indices].to(device, non_blocking=True)
        elif self.tokenizer is not None and examples.captions is not None:
            ids = torch.as_tensor(self.tokenizer(list(examples.captions))).to(device)
        return Batch(pixels=pixels, labels=labels, caption_ids=ids, caption_features=features)
