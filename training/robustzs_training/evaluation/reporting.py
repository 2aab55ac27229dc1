"""What a measurement has for its report: pictures that attacks turned, and curves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from robustzs.answer import Answer
from robustzs.bundle.store import Bundle
from robustzs.cards.schema import Card
from robustzs.classifier import Classifier
from robustzs.errors import HierarchyError
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels import LabelSet
from robustzs.metrics.curves import risk_coverage
from robustzs.threat import format_size
from robustzs_training.evaluation.hierarchical.scores import FLAT, Scores
from robustzs_training.evaluation.report import Curve, Example, PathStep, write_report
from robustzs_training.evaluation.run import Measurement
from robustzs_training.evaluation.scenes import Scene
from robustzs_training.evaluation.sets.native import upsample

_EXAMPLES_OF_EACH = 6


def report_of(
    card: Card,
    bundle: Bundle,
    scenes: tuple[Scene, ...],
    measurements: list[Measurement],
    output: Path,
) -> Path:
    """Write the report of a measurement; the page's path.

    A card without results, because the checks refuse them, is shown without pictures and curves.

    Raises:
        MissingExtraError: What it is drawn with is not installed.
        UsageError: The folder cannot be written.
    """
    examples: list[Example] = []
    curves: list[Curve] = []
    if card.results:
        for scene, measurement in zip(scenes, measurements, strict=True):
            examples += _examples(bundle, scene, measurement)
            curves += _curves(scene, measurement)
    return write_report(card, output, examples=examples, curves=curves)


def _examples(bundle: Bundle, scene: Scene, measurement: Measurement) -> list[Example]:
    """Pictures that flat top-1 was turned on, small radii first, with both ways down the tree."""
    found = list(_turned(scene, measurement))[:_EXAMPLES_OF_EACH]
    if not found:
        return []
    with _classifier(bundle, scene) as classifier:
        return [
            Example(
                key=str(scene.images.keys[row]),
                truth=_in_words(str(scene.images.truth[row]), scene.images.labels),
                clean=np.moveaxis(clean, 0, -1),
                adversarial=np.moveaxis(adversarial, 0, -1),
                clean_path=_path(classifier, clean),
                adversarial_path=_path(classifier, adversarial),
                dataset=scene.images.name,
                attack=attack,
                eps=eps,
            )
            for row, attack, eps, clean, adversarial in found
        ]


def _in_words(truth: str, labels: LabelSet) -> str:
    """What a picture shows, for people: a label's name, or that of a sense above the labels."""
    names = {label.id: label.name for label in labels}
    if truth in names:
        return names[truth]
    index = NounIndex.load()
    return index.get(truth).lemmas[0] if truth in index else truth


def _turned(
    scene: Scene, measurement: Measurement
) -> Iterator[tuple[int, str, str, np.ndarray, np.ndarray]]:
    seen: set[int] = set()
    for trial in scene.trials:
        verdicts = measurement.verdicts(trial) if trial.target.depth is None else None
        if verdicts is None:
            continue
        for row in measurement.order.tolist():
            if row in seen or row not in verdicts.by:
                continue
            adversarial = measurement.turned(trial, row)
            if adversarial is not None:
                seen.add(row)
                clean = scene.images.pixels(np.asarray([row], np.int64))[0].numpy()
                yield row, verdicts.by[row], format_size(trial.threat.eps), clean, adversarial


def _classifier(bundle: Bundle, scene: Scene) -> Classifier:
    """The deployed model over the tree that depths count in, WordNet's, or none at all."""
    labels = scene.images.labels
    if scene.scorer is not None:
        return Classifier.load(
            bundle.path, labels=labels, hierarchy=scene.scorer.tree, templates=scene.templates
        )
    try:
        return Classifier.load(
            bundle.path, labels=labels, hierarchy="wordnet", templates=scene.templates
        )
    except HierarchyError:  # labels that are no nouns, or of several senses
        return Classifier.load(
            bundle.path, labels=labels, hierarchy="flat", templates=scene.templates
        )


def _path(classifier: Classifier, pixels: np.ndarray) -> list[PathStep]:
    size = classifier.embedder.manifest.preprocess.image_size
    shown = upsample(torch.from_numpy(pixels)[None], size).clamp(0.0, 1.0).numpy()
    answer: Answer = classifier.classify_pixels(shown, ["picture"])[0]
    return [
        PathStep(
            name=node.name,
            probability=node.probability,
            answer=node.id == answer.prediction.id,
        )
        for node in answer.path
    ]


def _curves(scene: Scene, measurement: Measurement) -> list[Curve]:
    """Risk over coverage of flat top-1, clean and under the first attack; with a tree alone."""
    if scene.scorer is None:
        return []
    curves: list[Curve] = []
    first = [trial for trial in scene.trials if trial.target.name == FLAT]
    for trial in first:
        verdicts = measurement.verdicts(trial)
        if trial.attack.name != first[0].attack.name or verdicts is None or not len(verdicts.rows):
            continue
        notes = measurement.noted(trial, verdicts.rows)
        before, under = (Scores.from_notes(each, scene.scorer.names) for each in notes)
        if not curves:
            curves.append(_curve(f"{scene.images.name}, clean", before))
        curves.append(_curve(f"{scene.images.name}, {trial.attack.name} {trial.threat}", under))
    return curves


def _curve(name: str, scores: Scores) -> Curve:
    column = scores.place(FLAT)
    return Curve(name=name, curve=risk_coverage(scores.sure[:, column], scores.right[:, column]))
