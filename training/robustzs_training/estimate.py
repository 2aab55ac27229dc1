"""How long what follows training will take, for a plan: measuring twice, and the export.

Measuring is counted in looks at the model, and one look is timed on pictures that are held out.
How many of them will withstand is what training is for; the count takes it that those which are
right now are right afterwards, that all of them break at once before training and none after it.

The export is not timed, since it would take a good part of itself: its seconds follow from the
layers that are traced and the weights that are written, as measured on two CPU cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from robustzs.labels.templates import get_templates
from robustzs_training.adapter import attack_mode
from robustzs_training.assemble import Workshop
from robustzs_training.evaluation.apgd import FEWEST_LOOKS, looks_at_standing
from robustzs_training.evaluation.victim import head_of
from robustzs_training.factory import device_of, tokenizer_for
from robustzs_training.finish import templates_of
from robustzs_training.gain import held_out_of

_QUICK_SECONDS = 5.0  # a second time is worth it: the first one also prepares kernels
# On two cores robustzs-lite-clean, 147 layers and 0.1 GB, took 41 s, and ViT-B/32, 149 and 0.6 GB,
# 37 s: nearly all of it is tracing.
_EXPORT_SECONDS_PER_LAYER = 0.22
_EXPORT_SECONDS_PER_GB = 10.0


@dataclass(frozen=True, kw_only=True)
class MeasuringTime:
    """What measuring before and after will take.

    Attributes:
        seconds: Of both.
        n: Pictures.
        n_tried: That were looked at for this.
        fraction_right: Of these, in [0, 1].
        look_seconds: Of one look at all that were tried, forwards and backwards.
        n_looks: At a picture that withstands.
    """

    seconds: float
    n: int
    n_tried: int
    fraction_right: float
    look_seconds: float
    n_looks: int


def time_measuring(shop: Workshop) -> MeasuringTime | None:
    """Look once at some held-out pictures, with gradients, as the attack does.

    The model is left as it was, but for its layout in memory.

    Returns:
        ``None`` where nothing is measured.

    Raises:
        RobustZSError: The pictures cannot be read.
    """
    recipe, part = shop.recipe, shop.recipe.evaluate
    if part is None:
        return None
    # Of a batch, one broken picture is a large share; of all that are measured it need not be.
    batch = part.model_copy(update={"n_images": part.batch_size})
    heldout = held_out_of(shop, batch, max_unreadable=1.0)
    if heldout is None:
        return None
    n_all = heldout.n_available
    n = n_all if part.n_images is None else min(part.n_images, n_all)
    model, manifest = shop.model, shop.source.manifest
    device = device_of(model)
    pixels, labels = heldout.pixels.to(device), heldout.labels.to(device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    templates = get_templates(templates_of(recipe, shop.source))
    head = head_of(None if manifest is None else manifest.geometry)
    with attack_mode(model):
        model.to(memory_format=torch.channels_last)
        started = time.monotonic()
        logits_of = head(model, tokenizer_for(shop.source), heldout.classes, templates)
        class_seconds = time.monotonic() - started

        def look() -> None:
            tried = pixels.clone().requires_grad_()
            F.cross_entropy(logits_of(tried), labels).backward()

        with torch.no_grad():
            right = (logits_of(pixels).argmax(dim=1) == labels).float().mean()
            plain_seconds = _timed(lambda: logits_of(pixels), device)
        look_seconds = _timed(look, device)
    n_looks = looks_at_standing(part.n_steps)
    attacked = float(right) * (FEWEST_LOOKS + n_looks)
    each = (2.0 * plain_seconds + attacked * look_seconds) / len(heldout)
    return MeasuringTime(
        seconds=2.0 * class_seconds + n * each,
        n=n,
        n_tried=len(heldout),
        fraction_right=float(right),
        look_seconds=look_seconds,
        n_looks=n_looks,
    )


def export_seconds(shop: Workshop) -> float | None:
    """About what tracing, writing and proving the bundle takes; ``None`` where there is none."""
    if not shop.recipe.export.enabled:
        return None
    model = shop.source.model
    n_layers = sum(1 for part in model.modules() if _is_traced(part))
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return _EXPORT_SECONDS_PER_LAYER * n_layers + _EXPORT_SECONDS_PER_GB * size / 1e9


def _is_traced(part: nn.Module) -> bool:
    return not any(part.children()) and not isinstance(part, nn.Identity | nn.Dropout)


def _timed(act: Callable[[], object], device: torch.device) -> float:
    seconds = 0.0
    for _ in range(2):
        started = time.monotonic()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.monotonic() - started
        if seconds > _QUICK_SECONDS:
            break
    return seconds
