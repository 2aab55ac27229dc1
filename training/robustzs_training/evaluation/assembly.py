"""From a request to what is measured: the bundle, its victims, the pictures, the attacks."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from robustzs import settings
from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.errors import BundleWeightsMissingError, UsageError
from robustzs.labels import LabelSet
from robustzs.labels.templates import get_templates
from robustzs.threat import ThreatModel, parse_size
from robustzs_training.adapter import ClipAdapter
from robustzs_training.evaluation.place import find_device
from robustzs_training.evaluation.precisions import check_threats, choose_variants
from robustzs_training.evaluation.presets import (
    Preset,
    get_preset,
    missing_text,
    open_preset_set,
    present,
    templates_for,
)
from robustzs_training.evaluation.request import EvaluateRequest
from robustzs_training.evaluation.scenes import AttackPlan, Exhibit, Scene, Stage, scene_of
from robustzs_training.evaluation.sets import open_set
from robustzs_training.export.sources import SourceRequest, load_source
from robustzs_training.factory import adapter_of, tokenizer_for

Say = Callable[[str], None]
OWN: Literal["own"] = "own"
_N_TO_TRY = "fewer pictures than the protocol asks for: these numbers are not the paper's"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything of one request.

    Attributes:
        bundle: The bundle.
        model: Its modules.
        scenes: A set each.
        device: Where the victim is.
        machine: For timings.
        sentences: For the card's protocol.
    """

    bundle: Bundle
    model: ClipAdapter
    scenes: tuple[Scene, ...]
    device: torch.device
    machine: str
    sentences: tuple[str, ...] = ()


def assemble(request: EvaluateRequest, *, say: Say) -> Bench:
    """Load the bundle and open the pictures.

    Raises:
        BundleWeightsMissingError: The bundle cannot be attacked.
        RobustZSError: Whatever cannot be read.
    """
    device = find_device(request.device)
    bundle = Bundle.load(resolve_model(request.model))
    manifest = bundle.manifest
    if manifest.weights is None or manifest.open_clip_config is None:
        raise BundleWeightsMissingError(
            f"the bundle {manifest.name} carries no weights: nothing can be attacked from inside",
            hint="export its checkpoint again with `robustzs export --weights`",
        )
    if choose_variants(bundle, request.precisions):
        check_threats(request.threats if request.preset is None else ())
    source = load_source(SourceRequest(model=str(bundle.path)))
    stage = Stage(
        bundle=bundle,
        model=adapter_of(source).to(device),
        tokenizer=tokenizer_for(source),
        seed=request.seed,
        hierarchy=request.hierarchy,
        depths=request.depths,
        precisions=tuple(request.precisions),
        n_steps=request.n_steps,
        n_queries=request.n_queries,
        batch_size=request.batch_size,
    )
    preset = None if request.preset is None else get_preset(request.preset)
    shown = _named_sets(request, bundle) if preset is None else _preset_sets(request, preset, stage)
    scenes = []
    for exhibit in shown:
        images = exhibit.images
        say(f"{images.name}: {len(images.keys)} pictures, {len(images.labels)} labels")
        scenes.append(scene_of(stage, exhibit))
    _check_names(scenes)
    return Bench(
        bundle=bundle,
        model=stage.model,
        scenes=tuple(scenes),
        device=device,
        machine=_machine(device),
        sentences=() if preset is None else _said_of(preset, request),
    )


def _named_sets(request: EvaluateRequest, bundle: Bundle) -> Iterator[Exhibit]:
    labels: LabelSet | Literal["own"] | None = None
    if request.labels is not None:
        labels = "own" if request.labels == OWN else LabelSet.parse(request.labels)
    plans = tuple(
        AttackPlan(
            name=name,
            threats=request.threats,
            n_steps=request.n_steps,
            n_queries=request.n_queries,
            ensemble=request.ensemble,
            captions=request.captions,
            prompts=request.prompts,
        )
        for name in request.attacks
    )
    for spec in request.data:
        images = open_set(
            spec,
            preprocess=bundle.manifest.preprocess,
            cache=settings.cache_dir() / "evaluation",
            labels=labels,
            n=request.n,
            seed=request.seed,
            resolution="native" if request.native else "model",
        )
        templates = get_templates(request.templates or bundle.manifest.templates)
        yield Exhibit(images=images, templates=templates, attacks=plans)


def _preset_sets(request: EvaluateRequest, preset: Preset, stage: Stage) -> Iterator[Exhibit]:
    if request.root is None:
        raise UsageError(
            f"where are the data sets of the preset {preset.name}?",
            hint="--root DIR, the folder that they lie in",
        )
    found, missing = present(preset, request.root)
    if missing and not request.skip_missing:
        raise UsageError(
            f"{len(missing)} data sets of the preset {preset.name} are not in {request.root}:\n"
            f"{missing_text(missing)}",
            hint="--skip-missing measures those that are there",
        )
    plans = tuple(
        AttackPlan(
            name=setting.name,
            threats=tuple(ThreatModel.parse(eps) for eps in setting.eps),
            n_steps=setting.n_steps,
            n_restarts=setting.n_restarts,
            step_size=None if setting.step_size is None else parse_size(setting.step_size),
            momentum=setting.momentum,
            rescale=setting.rescale,
            ensemble=setting.ensemble or "fare",
        )
        for setting in preset.attacks
    )
    for here in found:
        images = open_preset_set(
            preset,
            here,
            preprocess=stage.bundle.manifest.preprocess,
            cache=settings.cache_dir() / "evaluation",
            n=request.n,
        )
        yield Exhibit(images=images, templates=templates_for(preset, here), attacks=plans)


def _said_of(preset: Preset, request: EvaluateRequest) -> tuple[str, ...]:
    sentences = [f"Protocol of {preset.paper}.", *(f"{note}." for note in preset.notes)]
    trained = ", ".join(preset.not_zero_shot)
    if trained:
        sentences.append(
            f"Not zero-shot for models of this line, and not in its average: {trained}."
        )
    if request.n is not None and (preset.n is None or request.n < preset.n):
        sentences.append(f"{request.n} pictures of each set, {_N_TO_TRY}.")
    return tuple(sentences)


def _check_names(scenes: Sequence[Scene]) -> None:
    names = [scene.images.name for scene in scenes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"two sets are called {', '.join(twice)}", hint="rename a folder, or measure them apart"
        )


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {torch.get_num_threads()} threads"
