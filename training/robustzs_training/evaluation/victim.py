"""The deployed model as a victim: torch, float32, with gradients to its pixels.

The numbers are those of :mod:`robustzs.scoring`: ``logit_scale * cos(image, class)``, or
``-logit_scale * distance`` in the Poincaré ball; templates are averaged as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch.nn import functional as F

from robustzs.bundle.manifest import Geometry
from robustzs.errors import UsageError
from robustzs.labels import LabelSet
from robustzs.labels.templates import TemplateSet
from robustzs_training.adapter import ClipAdapter
from robustzs_training.evaluation.base import TensorFunction, Victim
from robustzs_training.factory import Tokenize, device_of
from robustzs_training.geometry import distance, exp_0

Head = Callable[[ClipAdapter, Tokenize, LabelSet, TemplateSet], TensorFunction]
"""Model, tokenizer, classes, templates -> ``pixels`` to logits, as the deployed model has them."""
COSINE = Geometry()
_CHUNK = 256
_MAX_TEXTS = 50_000


def victim_of(
    model: ClipAdapter,
    tokenizer: Tokenize,
    labels: LabelSet,
    templates: TemplateSet,
    geometry: Geometry | None = None,
    *,
    logit_scale: float | None = None,
) -> Victim:
    """Make a victim of a model.

    The model is put into evaluation mode, float32 and channels-last, and its weights ask for no
    gradient any more; it is left so, because the victim refers to it.

    Args:
        model: On the device where it is attacked.
        tokenizer: The model's.
        labels: What it chooses from.
        templates: Of the labels' prompts.
        geometry: How features are compared; ``None`` for cosine.
        logit_scale: The factor on similarities; ``None`` for the model's own.

    Raises:
        UsageError: A scale that is not positive.
    """
    model.float().eval().requires_grad_(False)
    model.to(memory_format=torch.channels_last)
    scale = float(model.logit_scale) if logit_scale is None else float(logit_scale)
    if not 0.0 < scale < float("inf"):
        raise UsageError(f"logit_scale is {scale!r}", hint="the factor on cosines, above 0")
    compared = geometry or COSINE
    texts = _Texts(model, tokenizer)

    def logits_among(prompts: Sequence[str]) -> TensorFunction:
        classes = _classes(model, tokenizer, prompts, templates, compared)
        return _logits_of(model, classes, compared, scale)

    def logits_for(prompts: Sequence[str]) -> TensorFunction:
        if not prompts:
            raise UsageError("there are no texts to compare with", hint="give at least one")
        return _logits_of(model, join(texts.features(prompts)[:, None], compared), compared, scale)

    return Victim(
        logits_of=_at_first_look(lambda: logits_among([label.prompt for label in labels])),
        image_features_of=lambda pixels: model.image_features(pixels).float(),
        logits_for=logits_for,
        device=device_of(model),
        logits_among=logits_among,
    )


def head_of(geometry: Geometry | None, *, scale: float | None = None) -> Head:
    """What compares images with classes.

    Args:
        geometry: How; ``None`` for cosine.
        scale: On similarities; ``None``: the model's for cosine, 1 for distances. No positive
            scale changes a verdict.
    """
    compared = geometry or COSINE

    def head(
        model: ClipAdapter, tokenizer: Tokenize, labels: LabelSet, templates: TemplateSet
    ) -> TensorFunction:
        own = float(model.logit_scale) if compared.kind == "cosine" else 1.0
        classes = classes_of(model, tokenizer, labels, templates, compared)
        return _logits_of(model, classes, compared, own if scale is None else scale)

    return head


def classes_of(
    model: ClipAdapter,
    tokenizer: Tokenize,
    labels: LabelSet,
    templates: TemplateSet,
    geometry: Geometry,
) -> torch.Tensor:
    """What each label is compared as: unit vectors ``[C, D]``, or points in the ball."""
    prompts = [label.prompt for label in labels]
    return _classes(model, tokenizer, prompts, templates, geometry)


@torch.no_grad()
def _classes(
    model: ClipAdapter,
    tokenizer: Tokenize,
    prompts: Sequence[str],
    templates: TemplateSet,
    geometry: Geometry,
) -> torch.Tensor:
    filled = [text for prompt in prompts for text in templates.fill(prompt)]
    raw = _Texts(model, tokenizer).encode(filled)
    return join(raw.reshape(len(prompts), len(templates), -1), geometry)


def join(raw: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Join the templates of each class, as ``robustzs.scoring.class_features`` does.

    Args:
        raw: Text features ``[C, n_templates, D]``.
        geometry: How features are compared.
    """
    if geometry.kind == "cosine":
        return F.normalize(F.normalize(raw, dim=-1).mean(dim=1), dim=-1)
    curvature, _, text_scale = _ball(geometry)
    return exp_0(raw.mean(dim=1) * text_scale, curvature)


def similarities(
    image_features: torch.Tensor, classes: torch.Tensor, geometry: Geometry
) -> torch.Tensor:
    """Cosines or minus distances ``[B, C]`` of raw image features ``[B, D]``."""
    if geometry.kind == "cosine":
        return F.normalize(image_features, dim=-1) @ classes.T
    curvature, image_scale, _ = _ball(geometry)
    return -distance(exp_0(image_features * image_scale, curvature), classes, curvature)


def _at_first_look(make: Callable[[], TensorFunction]) -> TensorFunction:
    """Texts are encoded when pictures come: never, where others take their place before."""
    made = cache(make)
    return lambda pixels: made()(pixels)


def _logits_of(
    model: ClipAdapter, classes: torch.Tensor, geometry: Geometry, scale: float
) -> TensorFunction:
    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        features = model.image_features(pixels).float()
        return scale * similarities(features, classes, geometry)

    return logits_of


def _ball(geometry: Geometry) -> tuple[float, float, float]:
    values = (geometry.curvature, geometry.image_scale, geometry.text_scale)
    curvature, image_scale, text_scale = values
    if curvature is None or image_scale is None or text_scale is None:
        raise UsageError(
            f"the geometry of a ball needs curvature and both scales, got {values}",
            hint="take the geometry of the model's bundle",
        )
    return curvature, image_scale, text_scale


class _Texts:
    """Raw text features, each text encoded once."""

    def __init__(self, model: ClipAdapter, tokenizer: Tokenize) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.known: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """``[N, D]``."""
        ids = torch.as_tensor(self.tokenizer(list(texts))).to(device_of(self.model))
        parts = [self.model.text_features(self.model.trim(rows)) for rows in ids.split(_CHUNK)]
        return torch.cat(parts).float()

    def features(self, texts: Sequence[str]) -> torch.Tensor:
        """``[N, D]``, from memory where possible."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            if len(self.known) + len(new) > _MAX_TEXTS:
                self.known.clear()
                new = list(dict.fromkeys(texts))
            self.known.update(zip(new, self.encode(new), strict=True))
        return torch.stack([self.known[text] for text in texts])
