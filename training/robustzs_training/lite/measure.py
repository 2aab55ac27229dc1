"""Everything that robustzs-lite's card says, measured in one place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustzs.hierarchy.grow import imagenet_tree
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels.templates import get_templates
from robustzs_training.lite.attack import pgd_survivors, protocol
from robustzs_training.lite.calibrate import (
    choose_theta,
    fit_temperature,
    log_softmax,
    low_confidence_threshold,
    match_logit_scale,
    node_probabilities,
    rejection_threshold,
)
from robustzs_training.lite.joint_space import Array, unit
from robustzs_training.lite.label_sets import all_label_sets, summarize
from robustzs_training.lite.nouns import ancestors_or_self
from robustzs_training.lite.photographs import Photographs, load_photographs, top1
from robustzs_training.lite.recipe import Fitted, Material
from robustzs_training.lite.towers import IMAGE_MEAN, IMAGE_STD, imagenet_head, pooled_features

_LOGGER = logging.getLogger(__name__)
TEMPLATES = "single"
EncodeTexts = Callable[[list[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Scales and thresholds that go into the bundle."""

    logit_scale: float
    temperature: float
    theta: float
    low_confidence: float
    rejection: float


def text_features(encode: EncodeTexts, prompts: Sequence[str], templates: str) -> Array:
    """Class vectors ``[n, 768]``: unit mean of the unit features over a template set."""
    filled = [get_templates(templates).fill(prompt) for prompt in prompts]
    flat = [sentence for sentences in filled for sentence in sentences]
    encoded = unit(encode(flat).astype(np.float64))
    return unit(encoded.reshape(len(prompts), len(filled[0]), -1).mean(1))


def measure(
    fitted: Fitted, material: Material, encode: EncodeTexts
) -> tuple[Calibration, dict[str, Any]]:
    """Calibrate and measure a finished model.

    Args:
        fitted: The model, trained on all classes.
        material: What it was made from.
        encode: The text tower that ships.
    """
    wnids = [row.wnid for row in material.classes]
    classes = text_features(encode, [row.prompt for row in material.classes], TEMPLATES)
    weight, bias = imagenet_head()
    side_cosines = _image_vectors(fitted, material.features) @ classes.T
    side_head = material.features @ weight.T + bias
    logit_scale = match_logit_scale(side_cosines, side_head)

    photos = load_photographs(wnids)
    features = _features(np.rint(photos.pixels * 255.0).astype(np.uint8))
    cosines = _image_vectors(fitted, features) @ classes.T
    head = features @ weight.T + bias
    scorable = photos.scorable
    logits = logit_scale * cosines
    temperature = fit_temperature(logits[scorable], photos.right[scorable])
    calibration, stops = thresholds(logits, logit_scale, temperature, cosines, photos, wnids)
    agreement = cosines.argmax(1) == head.argmax(1)
    card: dict[str, Any] = {
        "text_to_class_cosine": _cosine_summary(classes, fitted.space.targets),
        "training_side_pictures": {
            "n": len(side_head),
            "agreement_with_head": float((side_cosines.argmax(1) == side_head.argmax(1)).mean()),
            "agreement_where_head_is_above_0.4": float(
                (side_cosines.argmax(1) == side_head.argmax(1))[
                    np.exp(log_softmax(side_head)).max(1) > 0.4
                ].mean()
            ),
        },
        "photographs": {
            "n": len(scorable),
            "n_scorable": int(scorable.sum()),
            "head_top1": top1(head[scorable], photos.right[scorable]),
            "zero_shot_top1": top1(cosines[scorable], photos.right[scorable]),
            "agreement_with_head": float(agreement.mean()),
            "agreement_with_head_scorable": float(agreement[scorable].mean()),
        },
        "stops": stops,
        "label_sets": measure_label_sets(fitted, encode, calibration),
        "robustness": _robustness(fitted, classes, logit_scale / temperature, photos),
    }
    return calibration, card


def measure_label_sets(
    fitted: Fitted, encode: EncodeTexts, calibration: Calibration
) -> list[dict[str, Any]]:
    """Top-1 on every label set outside ImageNet's names."""
    rows = []
    for pictures in all_label_sets():
        vectors = text_features(encode, pictures.labels, TEMPLATES)
        cosines = _image_vectors(fitted, _features(pictures.pixels)) @ vectors.T
        row = summarize(pictures, cosines)
        scale = calibration.logit_scale / calibration.temperature
        top = np.exp(log_softmax(scale * cosines)).max(1)
        row["flagged_low_confidence"] = round(float((top < calibration.low_confidence).mean()), 4)
        _LOGGER.info("%s", row)
        rows.append(row)
    return rows


def _features(pixels: npt.NDArray[np.uint8], batch_size: int = 32) -> Array:
    starts = range(0, len(pixels), batch_size)
    parts = [pooled_features(pixels[start : start + batch_size]) for start in starts]
    return np.concatenate(parts).astype(np.float64)


def _image_vectors(fitted: Fitted, features: Array) -> Array:
    projection = fitted.model.visual.head.proj
    weight = projection.weight.double().numpy()
    return unit(features @ weight.T + projection.bias.double().numpy())


def _cosine_summary(classes: Array, targets: Array) -> dict[str, float]:
    cosines = (classes * targets).sum(1)
    return {"mean": float(cosines.mean()), "min": float(cosines.min())}


def _truths(photos: Photographs, node_ids: Sequence[str]) -> list[frozenset[str]]:
    """For each photograph the nodes that are true of it: at, above or below what it shows."""
    above = {node: ancestors_or_self(node) for node in node_ids if node in NounIndex.load()}
    return [
        ancestors_or_self(wnid) | {node for node, up in above.items() if wnid in up}
        for wnid in photos.wnids
    ]


def thresholds(
    logits: Array,
    logit_scale: float,
    temperature: float,
    cosines: Array,
    photos: Photographs,
    wnids: Sequence[str],
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration, and what its threshold does to answers; set on the photographs.

    Args:
        logits: ``[n, 1000]`` before the temperature.
        logit_scale: Their factor on cosines.
        temperature: Fitted to them.
        cosines: ``[n, 1000]``.
        photos: The same ``n``.
        wnids: Of the classes.
    """
    tree = imagenet_tree()
    scorable = photos.scorable
    node_probs = node_probabilities(logits / temperature, tree, wnids)
    chosen, grid = choose_theta(node_probs, tree, _truths(photos, tree.ids))
    top_probs = np.exp(log_softmax(logits / temperature)).max(1)
    best = logits.argmax(1)
    is_right = photos.right[np.arange(len(best)), best]
    calibration = Calibration(
        logit_scale=logit_scale,
        temperature=temperature,
        theta=chosen.theta,
        low_confidence=low_confidence_threshold(top_probs[scorable], is_right[scorable]),
        rejection=rejection_threshold(cosines.max(1)),
    )
    flagged = top_probs < calibration.low_confidence
    return calibration, {
        "n": len(best),
        "chosen": vars(chosen),
        "grid": [vars(row) for row in grid],
        "flagged_share": float(flagged[scorable].mean()),
        "top1_of_flagged": float(is_right[scorable & flagged].mean()),
        "top1_of_unflagged": float(is_right[scorable & ~flagged].mean()),
    }


def _robustness(
    fitted: Fitted, classes: Array, scale: float, photos: Photographs
) -> dict[str, Any]:
    model = fitted.model
    vectors = torch.from_numpy(classes).float()
    mean = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(1, 3, 1, 1)

    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        features = model.encode_image((pixels - mean) / std, normalize=True)
        logits: torch.Tensor = scale * features @ vectors.T
        return logits

    rows = photos.scorable
    alive = pgd_survivors(logits_of, photos.pixels[rows], photos.right[rows])
    return {"n": int(rows.sum()), "robust_top1": float(alive.mean()), **protocol()}
