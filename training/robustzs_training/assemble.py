"""Everything that a run stands on, put together once: for the run itself and for its plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from robustzs.bundle.manifest import BundleManifest
from robustzs.errors import DataError, RecipeError, UsageError
from robustzs.hierarchy.load import LoadedHierarchy
from robustzs.hierarchy.tree import Hierarchy
from robustzs.settings import cache_dir
from robustzs_training.adapter import ClipAdapter
from robustzs_training.caption_features import (
    CaptionFeatures,
    caption_features,
    distinct_captions,
)
from robustzs_training.data.base import SampleSource
from robustzs_training.data.build import build_source
from robustzs_training.data.loader import ExampleLoader
from robustzs_training.data.resolve import unresolved_names
from robustzs_training.data.trouble import Trouble
from robustzs_training.export.sources import SourceModel
from robustzs_training.factory import (
    ToBatch,
    adapter_of,
    build_objective,
    load_model,
    start_from,
    tokenizer_for,
)
from robustzs_training.loop.optim import total_steps
from robustzs_training.objective_options import CAPTIONED, TREED
from robustzs_training.objectives import Objective
from robustzs_training.recipe import Recipe
from robustzs_training.trees import load_trees

Say = Callable[[str], None]
Report = Callable[[int, int], None]


@dataclass
class Clock:
    """Seconds by what they went into."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def counts(self, what: str) -> Iterator[None]:
        """Add the time of the block to ``what``."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - start


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which process this is, and where its tensors live."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A run before its first step.

    Attributes:
        recipe: What was asked for.
        source: The model's origin; its ``model`` is the one that trains.
        start: Of the bundle whose image tower trains on, if one does.
        model: The same, as objectives see it.
        data: The examples.
        loader: Their batches.
        objective: What trains.
        to_batch: Makes batches of examples.
        steps: Of the whole run.
        captions: Kept features of captions, where it pays.
        trees: Those that stand over the classes; none where nothing asks for them.
        notes: What people should be told.
    """

    recipe: Recipe
    source: SourceModel
    start: BundleManifest | None
    model: ClipAdapter
    data: SampleSource
    loader: ExampleLoader
    objective: Objective
    to_batch: ToBatch
    steps: int
    captions: CaptionFeatures | None
    trees: tuple[Hierarchy, ...]
    notes: tuple[str, ...]


def open_data(recipe: Recipe) -> SampleSource:
    """The recipe's examples.

    Raises:
        RobustZSError: Whatever :func:`build_source` raises.
    """
    return build_source(recipe.data, cache=cache_dir() / "data", seed=recipe.run.seed)


def open_loader(
    recipe: Recipe,
    source: SourceModel,
    data: SampleSource,
    place: Place,
    trees: LoadedHierarchy | None = None,
) -> ExampleLoader:
    """This process's batches.

    Args:
        recipe: The run.
        source: Of the model, which says how an image becomes pixels.
        data: The examples.
        place: This process.
        trees: Over the classes, where siblings or the objective want them.

    Raises:
        UsageError: The batch cannot be shared out.
        RobustZSError: Whatever :class:`ExampleLoader` raises.
    """
    run, part = recipe.run, recipe.data
    shares = place.world_size * run.accumulation
    if run.batch_size % shares:
        raise UsageError(
            f"run.batch_size {run.batch_size} cannot be shared out to {place.world_size} "
            f"process(es) in {run.accumulation} part(s) each",
            hint=f"take a multiple of {shares}",
        )
    size = part.augment.image_size
    trouble = Trouble(part.max_bad_fraction)
    if trees is not None:
        trouble.found(unresolved_names(trees.resolutions))
    return ExampleLoader(
        data,
        batch_size=run.batch_size // place.world_size,
        augment=part.augment,
        image_size=source.preprocess.image_size if size is None else (size, size),
        resize=source.preprocess,
        seed=run.seed,
        n_workers=part.n_workers,
        rank=place.rank,
        world_size=place.world_size,
        siblings=part.siblings,
        hierarchy=None if trees is None else trees.hierarchy,
        trouble=trouble,
    )


def assemble(
    recipe: Recipe,
    place: Place,
    *,
    clock: Clock,
    keep_captions: bool = True,
    report: Report | None = None,
    own: type[Objective] | None = None,
) -> Workshop:
    """Open data and model, and build what trains.

    Args:
        recipe: What was asked for.
        place: This process.
        clock: Told of the time that data take.
        keep_captions: Encode the captions beforehand, where that pays.
        report: Told of captions that are encoded, and of how many.
        own: A class to train with instead of the recipe's objective; see :func:`build_objective`.

    Raises:
        RobustZSError: Something is missing, or does not fit.
    """
    _check_own(recipe, own)
    with clock.counts("data"):
        data = open_data(recipe)
        trees = _open_trees(recipe, data, own)
    source = load_model(recipe.model, seed=recipe.run.seed)
    with clock.counts("data"):
        loader = open_loader(recipe, source, data, place, trees)
    model = adapter_of(source).to(place.device)
    tokenizer = tokenizer_for(source)
    steps = total_steps(recipe.schedule, loader.steps_per_epoch)
    captions: CaptionFeatures | None = None
    if own is None and recipe.objective.name in CAPTIONED:
        with clock.counts("data"):
            texts = _need_captions(recipe, data)
            if keep_captions and len(texts) <= steps * recipe.run.batch_size:
                folder = cache_dir() / "caption-features"
                captions = caption_features(model, tokenizer, data, folder, report=report)
    grown = None if trees is None else trees.hierarchy
    objective, to_batch = build_objective(
        recipe, model, tokenizer, data.labels, trees=grown, captions=captions, own=own
    )
    name = recipe.model.start
    start = None if name is None else start_from(model, name)
    return Workshop(
        recipe=recipe,
        source=source,
        start=start,
        model=model,
        data=data,
        loader=loader,
        objective=objective,
        to_batch=to_batch,
        steps=steps,
        captions=captions,
        trees=() if trees is None else trees.trees,
        notes=(*source.notes, *(() if trees is None else trees.warnings)),
    )


def _check_own(recipe: Recipe, own: type[Objective] | None) -> None:
    if recipe.own_objective is not None and own is None:
        raise RecipeError(
            f"this recipe was trained with {recipe.own_objective}, which is no objective of ours",
            hint="start it from the program that has that class (docs/training.md), or take "
            "own_objective out",
        )


def _open_trees(
    recipe: Recipe, data: SampleSource, own: type[Objective] | None
) -> LoadedHierarchy | None:
    """The recipe's trees, where the objective learns from them or batches bring siblings."""
    is_treed = own is None and recipe.objective.name in TREED
    if data.labels is None or not (is_treed or recipe.data.siblings > 1):
        return None
    return load_trees(recipe.data.hierarchy, data.labels)


def _need_captions(recipe: Recipe, data: SampleSource) -> list[str]:
    texts, _ = distinct_captions(data)
    if texts == [""]:
        raise DataError(
            f"the objective {recipe.objective.name} needs captions, and the data has none",
            hint="write some with `robustzs caption`, give data.captions=TABLE, or set "
            "data.caption_mode=names-and-properties",
        )
    return texts
