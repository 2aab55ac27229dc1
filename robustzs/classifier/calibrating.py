"""Calibration from end to end: labelled images through a classifier, to a calibration file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from robustzs._version import __version__
from robustzs.answer import HierarchyRef, ModelRef
from robustzs.calibration.document import (
    CalibrationDocument,
    DataRecord,
    ThreatRecord,
    guarantee_text,
)
from robustzs.calibration.fit import Fitted, fit
from robustzs.classifier.classifier import Classifier
from robustzs.classifier.embedder import Perturb
from robustzs.classifier.labelled import LabelledImage, data_digest
from robustzs.errors import DataError, UsageError
from robustzs.features import Progress
from robustzs.metrics.truth import truth_nodes
from robustzs.scoring import scale_logits, similarities

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out.

    Attributes:
        name: Of the file.
        message: What is wrong.
    """

    name: str
    message: str


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and what did not take part.

    Attributes:
        document: The calibration file.
        unreadable: Images that were left out.
    """

    document: CalibrationDocument
    unreadable: tuple[Unreadable, ...]


def calibrate(
    classifier: Classifier,
    images: Sequence[LabelledImage],
    accuracies: Sequence[float] = (0.9,),
    *,
    name: str,
    fit_temperature: bool = True,
    seed: int = 0,
    synthetic: bool = False,
    threat: ThreatRecord | None = None,
    perturb: Perturb | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Calibrated:
    """Set temperature and theta on labelled images.

    Args:
        classifier: The model, labels, tree, strategy and rule that the calibration is for.
        images: Labelled by nodes of the tree; each one once, and independent of the others.
        accuracies: Target hierarchical accuracies, in (0, 1).
        name: What to call the data.
        fit_temperature: Fit the temperature, or keep the classifier's.
        seed: Of the split into images for temperature, theta and measuring.
        synthetic: The images are drawn, rendered or composited: the file says so.
        threat: The attack that the images suffered, already or by ``perturb``; ``None`` for clean
            ones.
        perturb: Makes the attack: changes pixels ``[B, 3, H, W]`` of the images at given places.
        batch_size: Images per inference.
        progress: Called with the number of images so far and in all.

    Raises:
        DataError: Labels that are no nodes, or no readable image.
        InsufficientCalibrationDataError: Too few images.
        CalibrationError: The images set no temperature.
        UsageError: A forest, a confined root, an attack that is not recorded, or options out of
            range.
    """
    _check(classifier, fit_temperature)
    if perturb is not None and threat is None:
        raise UsageError("images are attacked, and no record says how", hint="give threat, too")
    tree = classifier.hierarchy
    truth = truth_nodes([image.label for image in images], tree)
    features, kept, unreadable = _features(classifier, images, batch_size, perturb, progress)
    if not len(kept):
        raise DataError(f"none of the {len(images)} images of {name} can be read")
    scorer = classifier.scorer

    def node_probs(rows: IntArray, temperature: float) -> Float32Array:
        return replace(scorer, temperature=temperature)(features[rows]).node_probs[0]

    def leaf_logits(rows: IntArray) -> Float32Array:
        similarity = similarities(features[rows], scorer.leaf_classes, scorer.geometry)
        return scale_logits(similarity, logit_scale=scorer.logit_scale)

    found = fit(
        node_probs,
        truth[kept],
        tree,
        accuracies,
        leaf_logits=leaf_logits if fit_temperature else None,
        temperature=classifier.temperature,
        source="model" if classifier.options.temperature is None else "user",
        rule=classifier.options.rule,
        seed=seed,
    )
    digest, n_repeated = data_digest([images[place] for place in kept], classifier.embedder.limits)
    data = DataRecord(
        name=name,
        digest=digest,
        n=len(kept),
        n_unreadable=len(unreadable),
        n_repeated=n_repeated,
        synthetic=synthetic,
        seed=seed,
    )
    return Calibrated(_document(classifier, found, data, threat), unreadable)


def _document(
    classifier: Classifier, found: Fitted, data: DataRecord, threat: ThreatRecord | None
) -> CalibrationDocument:
    tree, bundle = classifier.hierarchy, classifier.embedder.bundle
    return CalibrationDocument(
        model=ModelRef(name=bundle.manifest.name, digest=bundle.digest),
        hierarchy=HierarchyRef(
            name=tree.name, digest=tree.digest, n_leaves=tree.n_leaves, n_nodes=tree.n_nodes
        ),
        binding=classifier.binding.model_copy(update={"temperature": found.temperature}),
        temperature=found.record,
        targets=found.targets,
        data=data,
        threat=threat,
        guarantee=guarantee_text(synthetic=data.synthetic, threat=threat),
        created_with=f"robustzs {__version__}",
    )


def _check(classifier: Classifier, fit_temperature: bool) -> None:
    options = classifier.options
    if len(classifier.forest) > 1:
        raise UsageError(
            f"{len(classifier.forest)} hierarchies are in use, and a calibration is for one",
            hint="calibrate each by itself",
        )
    if options.root is not None or options.level is not None:
        raise UsageError(
            "a calibration is for whole trees and free depth, without root and level",
            hint="for one branch, make it a hierarchy: robustzs hierarchy build --root",
        )
    if fit_temperature and options.strategy == "hyponyms":
        raise UsageError(
            "strategy hyponyms has no temperature that could be fitted by itself",
            hint="keep the model's temperature",
        )


def _features(
    classifier: Classifier,
    images: Sequence[LabelledImage],
    batch_size: int,
    perturb: Perturb | None,
    progress: Progress | None,
) -> tuple[Float32Array, IntArray, tuple[Unreadable, ...]]:
    """Raw features of the readable images ``[n, D]``, which ones these are, and the others."""
    parts, kept, unreadable = [], [], []
    place = 0
    sources = (image.source for image in images)
    batches = classifier.embedder.batches(sources, batch_size=batch_size, perturb=perturb)
    for decoded, features in batches:
        parts.append(features)
        for row in decoded:
            if row.error is None:
                kept.append(place)
            else:
                unreadable.append(Unreadable(images[place].source.name, str(row.error)))
            place += 1
        if progress is not None:
            progress(place, len(images))
    empty = np.empty((0, classifier.embedder.manifest.embed_dim), np.float32)
    return (
        np.concatenate([empty, *parts]),
        np.array(kept, np.int64),
        tuple(unreadable),
    )
