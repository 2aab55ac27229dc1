"""One model on the study's three sets: a card of each, and clean counts beside them.

The parts are those of ``robustzs evaluate``; what differs is which attack meets which set, so that
a row costs minutes: labels everywhere, captions, features and superclasses on photographs alone.
Every batch is on the disk before the next one starts.
"""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from robustzs import settings
from robustzs.bundle.store import Bundle
from robustzs.cards import schema
from robustzs.labels import LabelSet
from robustzs.labels.templates import get_templates
from robustzs.metrics.verdicts import cut_at
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.assembly import Bench
from robustzs_training.evaluation.checking import checks_after, checks_before
from robustzs_training.evaluation.evaluate_command import identity_of, judged_of
from robustzs_training.evaluation.publish import Circumstances, card_of, in_sentences
from robustzs_training.evaluation.request import EvaluateRequest
from robustzs_training.evaluation.run import Measurement
from robustzs_training.evaluation.scenes import (
    AttackPlan,
    Exhibit,
    Scene,
    Stage,
    load_tree,
    scene_of,
)
from robustzs_training.evaluation.sets import SourceSet, open_set
from robustzs_training.evaluation.state import EvaluationState, forget
from robustzs_training.export.sources import SourceRequest, load_source
from robustzs_training.factory import adapter_of, tokenizer_for
from robustzs_training.study.photographs import caption_photographs
from robustzs_training.study.protocol import (
    CAPTIONS,
    CONCEPTS,
    FASHION,
    FEATURES,
    FULL,
    LABELS,
    PHOTOGRAPHS,
    Protocol,
)

Say = Callable[[str], None]
Progress = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
STATE = "state"


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where the sets lie.

    Attributes:
        data: The study's folder, with ``held_out.csv``.
        photographs: A table ``path,label`` of the held-out photographs.
    """

    data: Path
    photographs: Path


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came out.

    Attributes:
        cards: By set; without results where a check refuses the model there.
        clean: Set -> pictures that are right before any attack, and all; also where refused.
    """

    cards: dict[str, schema.Card]
    clean: dict[str, tuple[int, int]]


def measure(
    model: Path,
    pictures: Pictures,
    protocol: Protocol,
    output: Path,
    *,
    say: Say,
    progress: Progress,
    resume: bool = True,
) -> Measured:
    """Measure a bundle; an interrupted measurement goes on where it was.

    Args:
        model: The bundle's folder.
        pictures: Where the sets lie.
        protocol: How.
        output: Keeps what is found on the way.
        say: Takes a line for people.
        progress: Shows how far an attack is.
        resume: Go on with what ``output`` has.

    Raises:
        RobustZSError: Whatever cannot be read or measured.
    """
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    bench = _bench(model, pictures, protocol, output)
    if not resume:
        forget(output / STATE)
    # The state is that of this very measurement: pictures, attacks, versions.
    request = EvaluateRequest(
        model=str(model), data=("study",), threats=_threats(protocol), seed=protocol.seed
    )
    scenes = bench.scenes
    with EvaluationState(output / STATE, identity_of(request, bench)) as state:
        found = [_one(bench, scene, state, protocol, started, say, progress) for scene in scenes]
    return Measured(
        cards={scene.images.name: card for scene, (card, _) in zip(scenes, found, strict=True)},
        clean={scene.images.name: clean for scene, (_, clean) in zip(scenes, found, strict=True)},
    )


def _one(
    bench: Bench,
    scene: Scene,
    state: EvaluationState,
    protocol: Protocol,
    started: str,
    say: Say,
    progress: Progress,
) -> tuple[schema.Card, tuple[int, int]]:
    """One set: its card, and how many are right before any attack, of how many."""
    measurement = Measurement(
        images=scene.images,
        targets=scene.targets,
        state=state,
        batch_size=protocol.batch_size,
        progress=progress,
        scorer=scene.scorer,
    )
    checks = _attack(bench, scene, measurement, say)
    judged = judged_of(scene, measurement)
    checks += checks_after([measurement], [judged])
    questions = [measurement.question(target) for target in scene.targets]
    questions += [measurement.question(trial.target, trial) for trial in scene.trials]
    parts = {question: round(state.seconds(question), 3) for question in questions}
    about = Circumstances(
        manifest=bench.bundle.manifest,
        checks=checks,
        protocol=_sentences(scene),
        timings=schema.Timings(
            seconds=round(sum(parts.values()), 3),
            started=started,
            machine=bench.machine,
            parts=parts,
        ),
    )
    clean = (len(measurement.standing(scene.targets[0])), len(scene.images.keys))
    return card_of([judged], about), clean


def _attack(bench: Bench, scene: Scene, measurement: Measurement, say: Say) -> list[schema.Check]:
    """Clean verdicts, checks, and all attacks unless a check refuses the model."""
    started = time.monotonic()
    measurement.clean()
    name, n = scene.images.name, len(scene.images.keys)
    say(f"  {name}: {len(measurement.standing(scene.targets[0]))} of {n} right before attacks")
    checks = checks_before(bench, scene, measurement)
    failed = [check.name for check in checks if not check.passed]
    if failed:
        say(f"  {name}: refused by {', '.join(failed)}")
        return checks
    for trial in scene.trials:
        measurement.attack(trial)
        verdicts = measurement.verdicts(trial)
        if verdicts is not None:
            on = "" if trial.target.depth is None else f" on {trial.target.name}"
            say(
                f"  {name}: {int(verdicts.robust.sum())} of {n} stand under "
                f"{trial.attack.name} {trial.threat}{on} ({verdicts.seconds:.0f} s)"
            )
    say(f"  {name}: {time.monotonic() - started:.0f} s")
    return checks


# ---- what is measured ----------------------------------------------------------------------------


def _bench(model: Path, pictures: Pictures, protocol: Protocol, output: Path) -> Bench:
    bundle = Bundle.load(model)
    source = load_source(SourceRequest(model=str(model)))
    stage = Stage(
        bundle=bundle,
        model=adapter_of(source),
        tokenizer=tokenizer_for(source),
        seed=protocol.seed,
        depths=tuple(str(depth) for depth in protocol.depths),
        n_steps=protocol.n_steps,
        batch_size=protocol.batch_size,
    )
    scenes = (
        _concepts(stage, pictures, protocol),
        _photographs(stage, pictures, protocol, output),
        _fashion(stage, protocol),
    )
    return Bench(
        bundle=bundle,
        model=stage.model,
        scenes=scenes,
        device=torch.device("cpu"),
        machine=f"{platform.machine()}, {torch.get_num_threads()} threads",
    )


def _concepts(stage: Stage, pictures: Pictures, protocol: Protocol) -> Scene:
    """Drawings of things that no training picture shows, among these things."""
    images = _open(str(pictures.data / "held_out.csv"), CONCEPTS, stage, protocol, labels="own")
    # Severity needs a tree, and a tree a depth to ask at; no superclass is attacked here.
    depths = () if protocol.full else _where_it_branches(images.labels)
    return _scene(replace(stage, depths=depths), images, _on_labels(protocol))


def _where_it_branches(labels: LabelSet) -> tuple[str, ...]:
    """A depth in the middle of WordNet's tree over labels, or the next one with two nodes."""
    tree = load_tree("wordnet", labels)
    height = int(tree.depth.max())
    found = (d for d in range(max(1, height // 2), height) if len(cut_at(tree, d)) > 1)
    return tuple(str(depth) for depth in itertools.islice(found, 1))


def _photographs(stage: Stage, pictures: Pictures, protocol: Protocol, output: Path) -> Scene:
    """Photographs of things among ImageNet's classes; the one set that meets every attack."""
    images = _open(str(pictures.photographs), PHOTOGRAPHS, stage, protocol)
    if protocol.full:
        return _scene(replace(stage, depths=()), images, _on_labels(protocol))
    captions = caption_photographs(pictures.photographs, output / "photographs.jsonl")
    first = _threats(protocol)[:1]
    plans = (
        *_on_labels(protocol),
        AttackPlan(name=CAPTIONS, threats=first, n_steps=protocol.n_steps, captions=captions),
        AttackPlan(name=FEATURES, threats=first, n_steps=protocol.n_steps),
    )
    return _scene(stage, images, plans, superclasses=first[0])


def _fashion(stage: Stage, protocol: Protocol) -> Scene:
    """Clothes in grey, 28 pixels a side; its own ten names, which are in no tree."""
    spec = FASHION if protocol.fashion is None else f"{FASHION}:{protocol.fashion}"
    images = _open(spec, FASHION, stage, protocol)
    return _scene(replace(stage, depths=()), images, _on_labels(protocol))


def _open(
    spec: str, name: str, stage: Stage, protocol: Protocol, *, labels: str | None = None
) -> SourceSet:
    return open_set(
        spec,
        preprocess=stage.bundle.manifest.preprocess,
        cache=settings.cache_dir() / "evaluation",
        labels="own" if labels == "own" else None,
        n=protocol.n_photographs if name == PHOTOGRAPHS else protocol.n_images,
        seed=protocol.seed,
        name=name,
    )


def _scene(
    stage: Stage,
    images: SourceSet,
    plans: tuple[AttackPlan, ...],
    *,
    superclasses: ThreatModel | None = None,
) -> Scene:
    """A set with its attacks: superclasses are attacked on their labels, within one radius."""
    templates = get_templates(stage.bundle.manifest.templates)
    scene = scene_of(stage, Exhibit(images=images, templates=templates, attacks=plans))
    trials = [
        trial
        for trial in scene.trials
        if trial.target.depth is None
        or (trial.attack.name == LABELS and trial.threat == superclasses)
    ]
    return replace(scene, trials=tuple(trials))


def _on_labels(protocol: Protocol) -> tuple[AttackPlan, ...]:
    threats = _threats(protocol)
    if protocol.full:
        return (AttackPlan(name=FULL, threats=threats),)
    return (AttackPlan(name=LABELS, threats=threats, n_steps=protocol.n_steps),)


def _threats(protocol: Protocol) -> tuple[ThreatModel, ...]:
    return tuple(ThreatModel.parse(size) for size in protocol.eps)


# ---- what came out -------------------------------------------------------------------------------


def _sentences(scene: Scene) -> list[str]:
    return [
        "Verdicts are of the torch image tower in float32 on the CPU, in evaluation mode.",
        "A picture that is wrong before an attack counts as wrong under it.",
        "A picture that an attack broke within a smaller radius is not attacked again by it within "
        "a larger one.",
        *in_sentences([trial.attack for trial in scene.trials]),
        *scene.sentences,
    ]
