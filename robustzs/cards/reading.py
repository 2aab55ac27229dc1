"""Making cards from outcomes, reading them, and holding them against their model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ValidationError

from robustzs.bundle.manifest import BundleManifest
from robustzs.bundle.store import Bundle, canonical_json, describe_problems, read_json_object
from robustzs.cards.outcomes import pack_outcomes
from robustzs.cards.schema import (
    SCHEMA_VERSION,
    Attack,
    Card,
    DeployedAccuracy,
    Interval,
    Meaning,
    Outcomes,
    Result,
)
from robustzs.errors import BundleError, CardError
from robustzs.metrics.intervals import wilson

MAX_BYTES = 64_000_000
_NOT_THE_MODEL = {"name", "version", "description", "created_with", "training", "licences"}
_NOT_FILES = frozenset({"card.json", "calibration.json"})


def make_result(
    clean: ArrayLike,
    robust: ArrayLike,
    *,
    dataset: str,
    attack: Attack,
    depth: int | None = None,
    meaning: Meaning = "flat",
    attacked_depth: int | None = None,
    attacked_meaning: Meaning = "flat",
    confidence: float = 0.95,
    keep_outcomes: bool = True,
    metrics: Mapping[str, float | None] | None = None,
    clean_metrics: Mapping[str, float | None] | None = None,
    transfer_only: bool = False,
    precision: str | None = None,
) -> Result:
    """A result from what became of every image.

    Args:
        clean: bool ``[n]``, right before the attack; n >= 1.
        robust: bool ``[n]``, right under it. What was wrong before counts as wrong.
        dataset: Name of the dataset.
        attack: The attack.
        depth: Of the question; ``None`` for flat top-1.
        meaning: How the verdict at the depth comes about.
        attacked_depth: Whose loss was attacked.
        attacked_meaning: Likewise.
        confidence: Of the intervals.
        keep_outcomes: Keep a bit for each image, so that cards can be paired.
        metrics: Further numbers under attack.
        clean_metrics: The same before it.
        transfer_only: See the schema.
        precision: Of the deployed encoders; see the schema.

    Raises:
        CardError: No images, or arrays that do not fit.
    """
    before, under = np.asarray(clean), np.asarray(robust)
    if before.ndim != 1 or before.shape != under.shape or len(before) == 0:
        raise CardError(
            f"outcomes {before.shape} and {under.shape} are not of the same images",
            hint="one bool for each of at least one image",
        )
    if before.dtype != np.bool_ or under.dtype != np.bool_:
        raise CardError(f"outcomes are {before.dtype} and {under.dtype}, not bool")
    under = under & before
    n, n_clean, n_robust = len(before), int(before.sum()), int(under.sum())
    return Result(
        dataset=dataset,
        attack=attack.name,
        norm=attack.norm,
        eps=attack.eps,
        depth=depth,
        meaning=meaning,
        attacked_depth=attacked_depth,
        attacked_meaning=attacked_meaning,
        n=n,
        n_clean=n_clean,
        n_robust=n_robust,
        clean_accuracy=n_clean / n,
        robust_accuracy=n_robust / n,
        clean_interval=_interval(n_clean, n, confidence),
        interval=_interval(n_robust, n, confidence),
        metrics=dict(metrics or {}),
        clean_metrics=dict(clean_metrics or {}),
        outcomes=Outcomes(clean=pack_outcomes(before), robust=pack_outcomes(under))
        if keep_outcomes
        else None,
        transfer_only=transfer_only,
        precision=precision,
    )


def make_deployed(
    clean: ArrayLike, same: ArrayLike, *, dataset: str, precision: str, confidence: float = 0.95
) -> DeployedAccuracy:
    """Clean accuracy of deployed encoders from what became of every image.

    Args:
        clean: bool ``[n]``, right; n >= 1.
        same: bool ``[n]``: the label on top is that of the model that was attacked.
        dataset: Name of the dataset.
        precision: ``image/text``, such as ``fp32/int8``.
        confidence: Of the interval.

    Raises:
        CardError: No images, or arrays that do not fit.
    """
    right, alike = np.asarray(clean, np.bool_), np.asarray(same, np.bool_)
    if right.ndim != 1 or right.shape != alike.shape or len(right) == 0:
        raise CardError(
            f"verdicts {right.shape} and {alike.shape} are not of the same images",
            hint="one bool for each of at least one image",
        )
    n, n_clean = len(right), int(right.sum())
    return DeployedAccuracy(
        dataset=dataset,
        precision=precision,
        n=n,
        n_clean=n_clean,
        clean_accuracy=n_clean / n,
        clean_interval=_interval(n_clean, n, confidence),
        n_as_measured=int(alike.sum()),
    )


def parse_card(document: Mapping[str, Any], *, source: str = "the card") -> Card:
    """Check a decoded ``card.json``.

    Raises:
        CardError: An older, free form, a newer version, or wrong; every problem is listed.
    """
    version = document.get("schema_version")
    if version is None:
        raise CardError(
            f"{source} has the older, free form, which has no fields that can be checked",
            hint="measure again with `robustzs evaluate`",
        )
    if not isinstance(version, int) or isinstance(version, bool) or version > SCHEMA_VERSION:
        raise CardError(
            f"{source} has schema version {version!r}; this robustzs reads {SCHEMA_VERSION}",
            hint="upgrade robustzs to read it",
        )
    try:
        return Card.model_validate(dict(document))
    except ValidationError as error:
        raise CardError(f"{source} is not valid: {describe_problems(error)}") from error


def read_card(path: str | Path) -> Card:
    """Read a card: its file, or the bundle's folder that it lies in.

    Of a bundle, the whole is verified, and the card must be of this model.

    Raises:
        BundleError: The folder is no whole bundle.
        CardError: No card, or wrong, or of another model.
    """
    place = Path(path).resolve()
    if place.is_dir():
        bundle = Bundle.load(place)
        document = bundle.card()
        if document is None:
            raise CardError(
                f"the model {bundle.manifest.name} has no card", hint="measure it first"
            )
        card = parse_card(document, source=f"the card of {bundle.manifest.name}")
        check_model(card, bundle.manifest)
        return card
    try:
        document = read_json_object(place, place.name, MAX_BYTES)
    except BundleError as error:
        raise CardError(error.message, hint="give a card.json or a bundle's folder") from error
    return parse_card(document, source=str(place))


def measured_digest(manifest: BundleManifest) -> str:
    """sha256 of the parts of a bundle that decide answers.

    Neither card nor calibration nor texts for people belong to it, so that a bundle keeps it when
    its card is put in.
    """
    record = manifest.model_dump(mode="json", exclude=_NOT_THE_MODEL)
    record["files"] = {
        name: file
        for name, file in record["files"].items()
        if name not in _NOT_FILES and not name.endswith((".md", ".txt"))
    }
    return hashlib.sha256(canonical_json(record)).hexdigest()


def check_model(card: Card, manifest: BundleManifest) -> None:
    """Check that a card is of a model.

    Raises:
        CardError: It is of another one.
    """
    found = measured_digest(manifest)
    if card.model.digest != found:
        raise CardError(
            f"the card is of the model {card.model.name} ({card.model.digest[:12]}), "
            f"not of {manifest.name} ({found[:12]})",
            hint="measure this model, or take the card out",
        )


def _interval(k: int, n: int, confidence: float) -> Interval:
    low, high = wilson(k, n, confidence)
    return Interval(low=low, high=high, confidence=confidence)
