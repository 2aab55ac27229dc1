"""A bundle's precisions as targets of a measurement that can be stopped and resumed.

Every pair of precisions is asked about clean pictures, through ONNX Runtime. Those that the request
names are attacked, too: each picture's worst of the twin, of replays and of Square, on pixels of 8
bits; see :mod:`robustzs_training.evaluation.deployed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from robustzs.bundle.store import Bundle
from robustzs.errors import UsageError
from robustzs.labels.templates import TemplateSet
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.base import TensorFunction, Victim
from robustzs_training.evaluation.deployed import (
    DeployedSettings,
    DeployedVariant,
    Twin,
    Variant,
    deployed_attack,
    variants_of,
)
from robustzs_training.evaluation.deployed.evaluate import probed_twin, why_transfer
from robustzs_training.evaluation.deployed.grid import check_on_grid
from robustzs_training.evaluation.deployed.variants import N_PROBES
from robustzs_training.evaluation.eight_bit import whole_levels
from robustzs_training.evaluation.sets import SourceSet, resize_inside
from robustzs_training.evaluation.sets.native import upsample
from robustzs_training.evaluation.trials import BoolArray, Target, Trial, ladder

ALL = "all"
DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class Precisions:
    """What a scene has of a bundle's precisions.

    Attributes:
        targets: One for each pair, the bundle's default first.
        trials: Attacks on those that were chosen.
        sentences: For the card's protocol: what stands for each where gradients are needed.
    """

    targets: tuple[Target, ...]
    trials: tuple[Trial, ...] = ()
    sentences: tuple[str, ...] = ()


def choose_variants(bundle: Bundle, wanted: Sequence[str]) -> list[Variant]:
    """The pairs of precisions that a request names, in the bundle's order.

    Args:
        bundle: The bundle.
        wanted: ``all``, ``default``, ``int8/fp32`` (image, text), or ``int8``: that image encoder
            with the bundle's default text encoder.

    Raises:
        UsageError: The bundle does not carry one.
    """
    there = variants_of(bundle)
    known = {variant.name: variant for variant in there}
    text = bundle.manifest.default_text_precision
    chosen: set[str] = set()
    for name in wanted:
        if name == ALL:
            chosen |= set(known)
            continue
        full = there[0].name if name == DEFAULT else name if "/" in name else f"{name}/{text}"
        if full not in known:
            raise UsageError(
                f"--precision {name}: the bundle {bundle.manifest.name} carries no encoders of "
                f"{full} (image/text)",
                hint=f"choose from {', '.join([ALL, DEFAULT, *known])}",
            )
        chosen.add(full)
    return [variant for variant in there if variant.name in chosen]


def check_threats(threats: Sequence[ThreatModel]) -> None:
    """Check that every radius leaves something to pixels of 8 bits.

    Raises:
        UsageError: One does not.
    """
    for threat in threats:
        if threat.norm == "Linf":
            whole_levels(threat)


def precisions_of(
    bundle: Bundle,
    images: SourceSet,
    templates: TemplateSet,
    right: BoolArray,
    parent: Victim,
    *,
    attacked: Sequence[Variant] = (),
    threats: Sequence[ThreatModel] = (),
    settings: DeployedSettings | None = None,
) -> Precisions:
    """Make the targets, and the attacks on those that are to be attacked.

    Args:
        bundle: The bundle.
        images: The pictures.
        templates: Of the labels' prompts.
        right: bool ``[n, C]``.
        parent: The float32 torch model over the same labels; takes the model's own input, also
            where the pictures are smaller.
        attacked: Pairs to attack.
        threats: Radii.
        settings: How hard to try.

    Raises:
        UsageError: Pictures or radii that no file of 8 bits can hold, where something is attacked.
    """
    settings = settings or DeployedSettings()
    if attacked:
        check_threats(threats)
    targets: list[Target] = []
    trials: list[Trial] = []
    sentences: list[str] = []
    for variant in variants_of(bundle):
        deployed = DeployedVariant(bundle, images.labels, templates, variant)
        victim = _fitted(deployed.victim(), images.inside_resize)
        target = Target(victim=victim, right=right, precision=variant.name)
        targets.append(target)
        if variant in attacked:
            found, sentence = _attacked(deployed, images, target, parent, threats, settings)
            trials += found
            sentences.append(sentence)
    return Precisions(targets=tuple(targets), trials=tuple(trials), sentences=tuple(sentences))


def _attacked(
    deployed: DeployedVariant,
    images: SourceSet,
    target: Target,
    parent: Victim,
    threats: Sequence[ThreatModel],
    settings: DeployedSettings,
) -> tuple[list[Trial], str]:
    """Attacks on one pair, and a sentence on what they saw."""
    size = images.inside_resize
    probes = images.pixels(np.arange(min(N_PROBES, len(images.keys)), dtype=np.int64))
    if settings.eight_bit:
        check_on_grid(probes)
    # Held against the engine at the model's own input, which need not be of whole 255ths.
    seen = _upsampled(probes, size)
    twin, no_twin = probed_twin(deployed, seen, parent, replace(settings, eight_bit=False))
    replayed = parent if size is None else resize_inside(parent, size)
    inside = twin if twin is None or size is None else _with_resize(twin, size)
    attacks = {threat: deployed_attack(threat, replayed, inside, settings) for threat in threats}
    names = list(dict.fromkeys(attack.name for attack in attacks.values()))
    trials = ladder(names, list(threats), target, lambda _, threat: attacks[threat])
    reason = why_transfer(next(iter(attacks.values())), no_twin, settings)
    text = f"{images.name}, deployed in {deployed.name} (image/text encoder), pixels of 8 bits: "
    if reason:
        text += f"transfer only: {reason}. "
    if twin is not None:
        text += f"the twin is {twin.in_words}."
    return trials, text.rstrip()


def _with_resize(twin: Twin, size: tuple[int, int]) -> Twin:
    return replace(twin, victim=resize_inside(twin.victim, size))


def _fitted(victim: Victim, size: tuple[int, int] | None) -> Victim:
    """For native pixels; bicubic values beyond [0, 1] are cut off, as in a file."""
    if size is None:
        return victim

    def cut(function: TensorFunction) -> TensorFunction:
        return lambda pixels: function(pixels.clamp(0.0, 1.0))

    inner = replace(
        victim,
        logits_of=cut(victim.logits_of),
        image_features_of=cut(victim.image_features_of),
        logits_for=lambda texts: cut(victim.logits_for(texts)),
        logits_among=None,
    )
    return resize_inside(inner, size)


def _upsampled(pixels: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    return pixels if size is None else upsample(pixels, size).clamp(0.0, 1.0)
