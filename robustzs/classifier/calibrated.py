"""Which calibration is in use, and whether it was made for what is in use."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from robustzs.calibration.document import (
    FILE_NAME,
    SYNTHETIC,
    Binding,
    CalibrationDocument,
    read_calibration,
)
from robustzs.classifier.options import Calibration, Options
from robustzs.classifier.strategies import expand
from robustzs.errors import CalibrationError, CalibrationMismatchError
from robustzs.features import text_features_key
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.hierarchy.tree import Hierarchy

if TYPE_CHECKING:
    from robustzs.bundle.manifest import Precision
    from robustzs.bundle.store import Bundle
    from robustzs.classifier.embedder import Embedder
    from robustzs.labels.templates import TemplateSet

CalibrationInput: TypeAlias = Calibration | CalibrationDocument | str | Path
"""A calibration, or a calibration file, read or by its path."""


def choose_calibration(
    given: CalibrationInput | None, options: Options, bundle: Bundle, forest: Forest
) -> Calibration | None:
    """The calibration in use: the caller's, or the bundle's where a target accuracy is asked for.

    Raises:
        CalibrationError: No calibration for a target accuracy, or none for this one.
        CalibrationMismatchError: A target accuracy for several trees, of which one is calibrated.
    """
    target = options.target_accuracy
    if target is not None and len(forest) > 1:
        raise CalibrationMismatchError(
            f"a target accuracy is promised for one tree, and {len(forest)} are in use",
            hint="use one hierarchy, or give theta yourself",
        )
    if given is None and target is not None:
        if FILE_NAME not in bundle.manifest.files:
            raise CalibrationError(
                f"a target accuracy of {target:g} needs a calibration, and the model "
                f"{bundle.manifest.name} carries none",
                hint="run `robustzs calibrate`, then give its file with --calibration",
            )
        given = bundle.file(FILE_NAME)
    if isinstance(given, (str, Path)):
        given = read_calibration(given)
    if isinstance(given, CalibrationDocument):
        return _from_document(given, target)
    if given is not None and target is not None and abs(1.0 - given.alpha - target) > 1e-9:
        raise CalibrationError(
            f"the calibration is for a target accuracy of {1.0 - given.alpha:g}, not {target:g}",
            hint="calibrate again for yours",
        )
    return given


def make_binding(
    embedder: Embedder,
    tree: Hierarchy,
    root: int,
    options: Options,
    templates: TemplateSet,
    temperature: float,
) -> Binding:
    """Everything that a threshold depends on, as it is in use."""
    manifest = embedder.manifest
    precision = cast(
        "Precision",
        getattr(embedder.backend, "image_precision", manifest.default_image_precision),
    )
    encoder = manifest.image_encoders[precision]
    return Binding(
        # with what it keeps outside: files that begin with its name hold its weights
        image_encoder={
            name: record.sha256
            for name, record in sorted(manifest.files.items())
            if name == encoder or name.startswith(f"{encoder}.")
        },
        image_precision=precision,
        preprocess=manifest.preprocess,
        text_features=_text_features(embedder, tree, options, templates),
        templates=templates.digest,
        geometry=manifest.geometry,
        logit_scale=manifest.logit_scale,
        temperature=temperature,
        strategy=options.strategy,
        n_hyponyms=options.n_hyponyms if options.strategy == "hyponyms" else None,
        rule=options.rule,
        root=None if root == 0 else tree.ids[root],
        hierarchy=tree.digest,
    )


def _from_document(document: CalibrationDocument, target: float | None) -> Calibration:
    chosen = document.choose(target)
    binding = document.binding
    return Calibration(
        theta=chosen.theta,
        alpha=chosen.alpha,
        digest=document.digest,
        model_digest=None,  # the binding says more exactly which parts of the model matter
        hierarchy_digest=binding.hierarchy,
        strategy=binding.strategy,
        rule=binding.rule,
        temperature=binding.temperature,
        templates_digest=None,
        binding=binding,
        warning=SYNTHETIC if document.data.synthetic else None,
    )


def _text_features(
    embedder: Embedder, tree: Hierarchy, options: Options, templates: TemplateSet
) -> str:
    """sha256 over everything that the class vectors depend on but the engine that computes them."""
    manifest = embedder.manifest
    precision = getattr(embedder.backend, "text_precision", manifest.default_text_precision)
    leaves = [tree.prompts[node] for node in tree.leaf_nodes]
    prompts = [list(tree.prompts)] if options.strategy in ("topdown", "level") else [leaves]
    if options.strategy == "hyponyms":
        prompts.append(expand(tree.labels, NounIndex.load(), options.n_hyponyms)[0])
    keys = [text_features_key(manifest, precision, templates, texts) for texts in prompts]
    return hashlib.sha256("\n".join(keys).encode("ascii")).hexdigest()
