"""One set of pictures, and all that is done to it: victim, questions, attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustzs.bundle.store import Bundle
from robustzs.classifier.options import DEFAULT_THETA
from robustzs.errors import UsageError
from robustzs.hierarchy.load import load_hierarchy
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from robustzs.labels.templates import TemplateSet, get_templates
from robustzs.threat import ThreatModel
from robustzs_training.adapter import ClipAdapter
from robustzs_training.evaluation.attacks import Ensemble, build_attack
from robustzs_training.evaluation.base import Attack, EvaluationSet, Victim
from robustzs_training.evaluation.deployed import DeployedSettings, DeployedVariant
from robustzs_training.evaluation.hierarchical.scores import Scorer
from robustzs_training.evaluation.hierarchical.targets import depth_targets
from robustzs_training.evaluation.precisions import Precisions, choose_variants, precisions_of
from robustzs_training.evaluation.sets import SourceSet, resize_inside
from robustzs_training.evaluation.trials import BoolArray, Target, Trial, ladder
from robustzs_training.evaluation.victim import victim_of
from robustzs_training.factory import Tokenize

_LABELS_ALONE = ("prompts",)


@dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """An attack within several radii, as ``build_attack`` takes it.

    ``captions`` is a table of the pictures' captions, ``prompts`` a template that makes another
    prompt of each label's.
    """

    name: str
    threats: tuple[ThreatModel, ...]
    n_steps: int | None = None
    n_restarts: int | None = None
    step_size: float | None = None
    momentum: float | None = None
    rescale: bool = True
    n_queries: int = 5000
    ensemble: Ensemble = "fare"
    captions: Path | None = None
    prompts: str | None = None


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """Pictures, the templates of their labels' prompts, and what attacks them."""

    images: SourceSet
    templates: TemplateSet
    attacks: tuple[AttackPlan, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What all sets have in common.

    Attributes:
        bundle: The bundle.
        model: Its modules, where they are attacked.
        tokenizer: The model's.
        seed: Of all attacks.
        hierarchy: The tree that depths count in; ``None`` for wordnet.
        depths: Where to ask; none for flat top-1 alone.
        precisions: Of the deployed encoders, to be attacked, too; none for the torch model alone.
        n_steps: Of gradient attacks on these.
        n_queries: Of Square on these.
        batch_size: Pictures that are attacked together.
    """

    bundle: Bundle
    model: ClipAdapter
    tokenizer: Tokenize
    seed: int = 0
    hierarchy: str | None = None
    depths: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    n_steps: int | None = None
    n_queries: int = 5000
    batch_size: int = 32


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One set of pictures and all that is done to it.

    Attributes:
        images: The pictures.
        templates: Of the labels' prompts.
        victim: The model that chooses among their labels.
        targets: What they are judged by: flat top-1 first, the deployed precisions last.
        trials: Attacks, in their order.
        scorer: Asks at depths of a tree.
        theta: Threshold of the bundle's answers.
        native: Whether the perturbation lives in the pictures before the resize.
        text: Precision of the text encoder whose features the victim compares with.
        sentences: For the card's protocol.
    """

    images: EvaluationSet
    templates: TemplateSet
    victim: Victim
    targets: tuple[Target, ...]
    trials: tuple[Trial, ...]
    scorer: Scorer | None = None
    theta: float = DEFAULT_THETA
    native: bool = False
    text: str = "fp32"
    sentences: tuple[str, ...] = ()

    @property
    def hierarchy(self) -> str | None:
        """Digest of the tree that depths count in."""
        return None if self.scorer is None else self.scorer.tree.digest


def scene_of(stage: Stage, exhibit: Exhibit) -> Scene:
    """Make the victim, its questions and its attacks.

    Raises:
        RobustZSError: Labels, tree or attack do not fit.
    """
    images, manifest = exhibit.images, stage.bundle.manifest
    victim = victim_of(
        stage.model,
        stage.tokenizer,
        images.labels,
        exhibit.templates,
        manifest.geometry,
        logit_scale=manifest.logit_scale,
    )
    text = manifest.default_text_precision
    if text != "fp32":  # what is attacked compares with the texts that are deployed
        default = DeployedVariant(stage.bundle, images.labels, exhibit.templates)
        victim = default.text_for(victim)
    right = np.array(images.right, np.bool_)  # a copy: torch takes none that is read-only
    precisions = _precisions(stage, exhibit, right, victim)
    size = images.inside_resize
    if size is not None:
        victim = resize_inside(victim, size)
    scorer = None
    if stage.depths:
        tree = load_tree(stage.hierarchy or "wordnet", images.labels)
        depths = ",".join(stage.depths)
        scorer = Scorer(tree, images.labels, depths, temperature=manifest.temperature)
    targets = [Target(victim=victim, right=right)]
    if scorer is not None:
        targets = depth_targets(scorer, victim, right)
    theta = manifest.theta
    return Scene(
        images=images,
        templates=exhibit.templates,
        victim=victim,
        targets=(*targets, *precisions.targets),
        trials=(*_trials(stage, exhibit, targets), *precisions.trials),
        scorer=scorer,
        theta=DEFAULT_THETA if theta is None else theta.value,
        native=size is not None,
        text=text,
        sentences=(
            *_said_of(images, None if scorer is None else scorer.tree),
            f"Texts of {images.name} are compared as the bundle's own text graph of {text} "
            "encodes them."
            if text != "fp32"
            else f"Texts of {images.name} are encoded by torch in float32.",
            *precisions.sentences,
        ),
    )


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


def _precisions(stage: Stage, exhibit: Exhibit, right: BoolArray, victim: Victim) -> Precisions:
    """The deployed encoders; those that were asked for are attacked within all radii."""
    threats = dict.fromkeys(threat for plan in exhibit.attacks for threat in plan.threats)
    settings = DeployedSettings(
        n_steps=stage.n_steps or 100,
        n_queries=stage.n_queries,
        seed=stage.seed,
        batch_size=stage.batch_size,
    )
    return precisions_of(
        stage.bundle,
        exhibit.images,
        exhibit.templates,
        right,
        victim,
        attacked=choose_variants(stage.bundle, stage.precisions),
        threats=sorted(threats, key=lambda threat: (threat.norm, threat.eps)),
        settings=settings,
    )


def _trials(stage: Stage, exhibit: Exhibit, targets: Sequence[Target]) -> list[Trial]:
    trials: list[Trial] = []
    for plan in exhibit.attacks:
        captions = _captions(plan, exhibit.images) if plan.name == "captions" else None
        prompts = _prompts(plan, exhibit.images.labels) if plan.name == "prompts" else None

        def build(
            name: str,
            threat: ThreatModel,
            plan: AttackPlan = plan,
            captions: Sequence[str] | None = captions,
            prompts: Sequence[str] | None = prompts,
        ) -> Attack:
            return build_attack(
                name,
                threat,
                n_steps=plan.n_steps,
                n_restarts=plan.n_restarts,
                step_size=plan.step_size,
                momentum=plan.momentum,
                rescale=plan.rescale,
                n_queries=plan.n_queries,
                seed=stage.seed,
                ensemble=plan.ensemble,
                captions=captions,
                prompts=prompts,
            )

        for target in targets:
            # A text for each label says nothing about inner nodes.
            if target.depth is None or plan.name not in _LABELS_ALONE:
                trials += ladder([plan.name], plan.threats, target, build)
    # All attacks on one question, then the next question.
    order = {target.name: place for place, target in enumerate(targets)}
    return sorted(trials, key=lambda trial: order[trial.target.name])


def _captions(plan: AttackPlan, images: EvaluationSet) -> list[str]:
    """The caption of each picture; empty where there is none."""
    from robustzs_training.data.captions_table import read_captions
    from robustzs_training.data.strings import StringColumn

    if plan.captions is None:
        raise UsageError(
            "the attack 'captions' needs the pictures' captions",
            hint="--captions FILE, made by `robustzs caption`; or attack by 'features'",
        )
    table = read_captions(plan.captions)
    rows = table.rows_of(StringColumn.of(images.keys))
    return [table.captions[row] if row >= 0 else "" for row in rows.tolist()]


def _prompts(plan: AttackPlan, labels: LabelSet) -> list[str]:
    """Another prompt of each label."""
    if plan.prompts is None:
        raise UsageError(
            "the attack 'prompts' needs other prompts than the labels' own",
            hint='--prompts "a blurry drawing of a {}"',
        )
    templates = get_templates(plan.prompts)
    if len(templates) != 1:
        raise UsageError(
            f"{plan.prompts!r} are {len(templates)} templates", hint="one prompt for each label"
        )
    return [templates.fill(label.prompt)[0] for label in labels]


def _said_of(images: EvaluationSet, tree: Hierarchy | None) -> tuple[str, ...]:
    said = images.description
    sentences = [
        f"{images.name}: {said.get('source')}, {said.get('n')} of {said.get('n_available')} "
        f"pictures drawn by seed {said.get('seed')} ({said.get('sampling')}); perturbed: "
        f"{said.get('perturbed')}; {said.get('trained_on')}."
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
            "best. Each depth is attacked on its own loss, and then asked at all others."
        )
    return tuple(sentences)
