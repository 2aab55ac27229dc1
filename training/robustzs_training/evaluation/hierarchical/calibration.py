"""Attacked images to calibrate on.

For a threshold that holds under attack the attacker does not stop at the first wrong leaf: each
image is taken where the loss was highest after all steps, and images that were wrong before are
attacked like the others. The attack is white-box, on the cross-entropy of the flat verdict, through
the torch model in float32; the deployed encoder then reads the perturbed pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from robustzs.backends.base import Float32Array
from robustzs.calibration.document import ThreatRecord
from robustzs.classifier import Classifier
from robustzs.classifier.embedder import Perturb
from robustzs.classifier.labelled import LabelledImage
from robustzs.errors import UsageError
from robustzs.metrics.truth import truth_nodes
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.engine import Apgd
from robustzs_training.evaluation.attacks.view import (
    Gradients,
    check_bounds,
    check_pixels,
    differentiable,
    factors_of,
    finite_logits,
    fold_scaled,
    starting_points,
)
from robustzs_training.evaluation.attacks.white_box import package
from robustzs_training.evaluation.base import Victim
from robustzs_training.evaluation.victim import victim_of

_SALT = 30_000


def highest_loss(
    victim: Victim,
    pixels: torch.Tensor,
    right: torch.Tensor,
    rows: Sequence[int],
    *,
    threat: ThreatModel,
    n_steps: int = 100,
    seed: int = 0,
) -> torch.Tensor:
    """APGD on the cross-entropy, all steps of it, at the point of highest loss.

    Args:
        victim: The model.
        pixels: float32 ``[B, 3, H, W]`` in [0, 1], right or wrong.
        right: Right labels, bool ``[B, C]``, of which each image has one; where all are right there
            is nothing to attack.
        rows: Places in the set: randomness comes from them and the seed alone.
        threat: Norm and radius.
        n_steps: How many.
        seed: Of starting points.

    Returns:
        float32 ``[B, 3, H, W]`` on the victim's device.

    Raises:
        UntrustworthyResultError: Logits or gradients are not finite, or gradients are zero.
    """
    check_pixels(pixels)
    clean, truth = pixels.to(victim.device).contiguous(), right.to(victim.device)
    places = (~truth.all(dim=1)).nonzero().flatten()
    if not len(places):
        return clean
    chosen, truth = clean[places], truth[places]
    with torch.no_grad():
        factors = factors_of(finite_logits(victim.logits_of, chosen), truth)
    gradients = Gradients(len(places), clean.device)

    def watched(shown: torch.Tensor) -> torch.Tensor:
        gradients.watch(shown)
        logits = differentiable(finite_logits(victim.logits_of, shown))
        return fold_scaled(logits, truth, factors)[0]

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, labels, reduction="none")

    numbers = [int(rows[place]) for place in places.tolist()]
    starts = starting_points(chosen, threat, seed, numbers, run=_SALT)
    attack = Apgd(watched, threat, n_steps, loss, clean.device)
    found = attack.run(chosen, truth.int().argmax(dim=1), starts)
    gradients.check(torch.ones_like(places, dtype=torch.bool))
    attacked = clean.clone()
    if found is not None:
        check_bounds(chosen, found, threat)
        attacked[places] = found
    return attacked


def attacker_of(
    classifier: Classifier,
    images: Sequence[LabelledImage],
    threat: ThreatModel,
    *,
    n_steps: int = 100,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[Perturb, ThreatRecord]:
    """What attacks calibration images of a classifier, and its record for the calibration file.

    Args:
        classifier: Of one tree; its bundle carries weights.
        images: All calibration images; labels are nodes of the tree.
        threat: Norm and radius.
        n_steps: Of the attack.
        seed: Of starting points.
        device: As for ``robustzs evaluate``.

    Raises:
        UsageError: A radius of 0.
        BundleWeightsMissingError: The bundle cannot be attacked.
        DataError: Labels that are no nodes.
    """
    if threat.eps <= 0.0:
        raise UsageError("a radius of 0 is no attack", hint="leave --attack out")
    tree = classifier.hierarchy
    nodes = truth_nodes([image.label for image in images], tree)
    victim = _victim(classifier, device)
    columns = np.arange(tree.n_leaves)

    def perturb(pixels: Float32Array, places: Sequence[int]) -> Float32Array:
        truth = nodes[np.asarray(places)][:, None]
        right = (tree.leaf_start[truth] <= columns) & (columns < tree.leaf_end[truth])
        shown = torch.from_numpy(np.ascontiguousarray(pixels))
        found = highest_loss(
            victim,
            shown,
            torch.from_numpy(right),
            places,
            threat=threat,
            n_steps=n_steps,
            seed=seed,
        )
        return found.cpu().contiguous().numpy()

    record = ThreatRecord(
        norm=threat.norm,
        eps=threat.eps,
        attack="apgd-ce",
        n_steps=n_steps,
        how="white-box through the float32 torch model, on the cross-entropy of flat top-1; every "
        f"image, at the highest loss of all steps; seed {seed}; {package()}",
    )
    return perturb, record


def _victim(classifier: Classifier, device: str) -> Victim:
    from robustzs_training.export.sources import SourceRequest, load_source
    from robustzs_training.factory import adapter_of, tokenizer_for

    bundle = classifier.embedder.bundle
    source = load_source(SourceRequest(model=str(bundle.path)))
    return victim_of(
        adapter_of(source).to(_torch_device(device)),
        tokenizer_for(source),
        classifier.labels,
        classifier.templates,
        bundle.manifest.geometry,
        logit_scale=bundle.manifest.logit_scale,
    )


def _torch_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no CUDA device", hint="cpu, or auto")
    return torch.device(name)
