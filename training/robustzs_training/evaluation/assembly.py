"""From a request to what is measured: the bundle, its victim, the pictures, the attacks."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from robustzs import settings
from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.errors import BundleWeightsMissingError, UsageError
from robustzs.features import TextFeatureCache, TextFeatures
from robustzs.hierarchy.load import load_hierarchy
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from robustzs.labels.templates import TemplateSet, get_templates
from robustzs.scoring import similarities
from robustzs.threat import ThreatModel
from robustzs.tokenizer import Tokenizer
from robustzs_training.adapter import ClipAdapter
from robustzs_training.evaluation.attacks import build_attack
from robustzs_training.evaluation.base import Attack, EvaluationSet, Victim
from robustzs_training.evaluation.hierarchical.cuts import choose_depths
from robustzs_training.evaluation.hierarchical.questions import DepthMeaning, Question
from robustzs_training.evaluation.place import find_device
from robustzs_training.evaluation.request import EvaluateRequest
from robustzs_training.evaluation.run import Deployed, Target, Trial, ladder
from robustzs_training.evaluation.sets import SourceSet, open_set, resize_inside
from robustzs_training.evaluation.sets.native import upsample
from robustzs_training.evaluation.victim import victim_of
from robustzs_training.export.sources import SourceRequest, load_source
from robustzs_training.factory import Tokenize, adapter_of, tokenizer_for

Say = Callable[[str], None]
OWN: Literal["own"] = "own"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One set of pictures and all that is done to it.

    Attributes:
        images: The pictures.
        victim: The model that chooses among their labels.
        targets: What they are judged by, flat top-1 first.
        trials: Attacks, in their order.
        deployed: The bundle's own verdict on clean pictures.
        hierarchy: Digest of the tree that depths count in.
        native: Whether the perturbation lives in the pictures before the resize.
        sentences: For the card's protocol.
    """

    images: EvaluationSet
    victim: Victim
    targets: tuple[Target, ...]
    trials: tuple[Trial, ...]
    deployed: Deployed | None
    hierarchy: str | None = None
    native: bool = False
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything of one request.

    Attributes:
        bundle: The bundle.
        templates: Of the labels' prompts.
        scenes: A set each.
        device: Where the victim is.
        machine: For timings.
    """

    bundle: Bundle
    templates: TemplateSet
    scenes: tuple[Scene, ...]
    device: torch.device
    machine: str


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
    source = load_source(SourceRequest(model=str(bundle.path)))
    model, tokenizer = adapter_of(source).to(device), tokenizer_for(source)
    templates = get_templates(request.templates or manifest.templates)
    scenes = []
    for images in _open_sets(request, bundle):
        say(f"{images.name}: {len(images.keys)} pictures, {len(images.labels)} labels")
        scenes.append(_scene(request, bundle, model, tokenizer, templates, images))
    _check_names(scenes)
    return Bench(
        bundle=bundle,
        templates=templates,
        scenes=tuple(scenes),
        device=device,
        machine=_machine(device),
    )


def _open_sets(request: EvaluateRequest, bundle: Bundle) -> Sequence[SourceSet]:
    labels: LabelSet | Literal["own"] | None = None
    if request.labels is not None:
        labels = "own" if request.labels == OWN else LabelSet.parse(request.labels)
    return [
        open_set(
            spec,
            preprocess=bundle.manifest.preprocess,
            cache=settings.cache_dir() / "evaluation",
            labels=labels,
            n=request.n,
            seed=request.seed,
            resolution="native" if request.native else "model",
        )
        for spec in request.data
    ]


def _scene(
    request: EvaluateRequest,
    bundle: Bundle,
    model: ClipAdapter,
    tokenizer: Tokenize,
    templates: TemplateSet,
    images: SourceSet,
) -> Scene:
    manifest = bundle.manifest
    victim = victim_of(
        model,
        tokenizer,
        images.labels,
        templates,
        manifest.geometry,
        logit_scale=manifest.logit_scale,
    )
    deployed = deployed_of(bundle, images.labels, templates)
    size = images.inside_resize
    if size is not None:
        victim = resize_inside(victim, size)
        deployed = _resized(deployed, size)
    targets, tree = _targets(request, bundle, victim, images)

    def build(name: str, threat: ThreatModel) -> Attack:
        return build_attack(
            name,
            threat,
            n_steps=request.n_steps,
            n_queries=request.n_queries,
            seed=request.seed,
            ensemble=request.ensemble,
        )

    trials = [
        trial
        for target in targets
        for trial in ladder(request.attacks, request.threats, target, build)
    ]
    return Scene(
        images=images,
        victim=victim,
        targets=targets,
        trials=tuple(trials),
        deployed=deployed,
        hierarchy=None if tree is None else tree.digest,
        native=size is not None,
        sentences=_said_of(images, tree),
    )


def _targets(
    request: EvaluateRequest, bundle: Bundle, victim: Victim, images: EvaluationSet
) -> tuple[tuple[Target, ...], Hierarchy | None]:
    """Flat top-1, and the depths that were asked for, each in both meanings."""
    right = np.asarray(images.right, np.bool_)
    flat = Target(victim=victim, right=right)
    if not request.depths:
        return (flat,), None
    tree = load_tree(request.hierarchy or "wordnet", images.labels)
    targets = [flat]
    for depth in choose_depths(tree, ",".join(request.depths)):
        for meaning in get_args(DepthMeaning):
            asked = Question(
                tree, images.labels, depth, meaning, temperature=bundle.manifest.temperature
            )
            targets.append(
                Target(
                    depth=depth,
                    meaning=meaning,
                    victim=asked.victim(victim),
                    right=asked.right(torch.from_numpy(right.copy())).numpy(),
                )
            )
    return tuple(targets), tree


def load_tree(spec: str, labels: LabelSet) -> Hierarchy:
    """The one tree that depths count in.

    Raises:
        UsageError: Several trees.
        HierarchyError: None, or not over these labels.
    """
    trees = load_hierarchy(spec, labels).trees
    if len(trees) != 1:
        raise UsageError(f"{spec!r} are {len(trees)} trees", hint="depths count in one")
    return trees[0]


def _said_of(images: EvaluationSet, tree: Hierarchy | None) -> tuple[str, ...]:
    said = images.description
    sentences = [
        f"{images.name}: {said.get('source')}, {said.get('n')} of {said.get('n_available')} "
        f"pictures drawn by seed {said.get('seed')}; perturbed: {said.get('perturbed')}; "
        f"{said.get('trained_on')}."
    ]
    left_out = said.get("without_a_right_label")
    if isinstance(left_out, Mapping):
        sentences.append(
            f"{left_out.get('n')} pictures of {images.name} are left out: no label is right for "
            "them."
        )
    if tree is not None:
        sentences.append(
            f"Depths of {images.name} count in the tree {tree.name}. rollup: the node with the "
            "most probability, summed up from the labels; prompt: the node whose own text fits "
            "best. Each depth is attacked on its own loss."
        )
    return tuple(sentences)


def deployed_of(bundle: Bundle, labels: LabelSet, templates: TemplateSet) -> Deployed:
    """What the bundle's ONNX graphs answer, as they are deployed: ``pixels`` to labels ``[B]``."""
    from robustzs.backends.onnx import OnnxBackend

    backend = OnnxBackend(bundle)
    text = TextFeatures(
        bundle.manifest, backend, lambda: Tokenizer.from_bundle(bundle), TextFeatureCache()
    )
    classes = text.classes(labels.prompts, templates)

    def answers(pixels: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        features = backend.encode_image(pixels.cpu().contiguous().numpy())
        found = similarities(features, classes, bundle.manifest.geometry)
        return found.argmax(axis=1).astype(np.int64)

    return answers


def _resized(deployed: Deployed, size: tuple[int, int]) -> Deployed:
    return lambda pixels: deployed(upsample(pixels, size).clamp(0.0, 1.0))


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
