"""Before and after: clean and robust accuracy of a model, and what training changed.

The logits are those of the deployed model: ``logit_scale * cos(image, class)`` (or minus the
distance in the Poincaré ball, where the model was trained there). Neither the scale nor the
temperature of a bundle changes a verdict; see :mod:`robustzs_training.evaluation.apgd` for the
scale that the attack sees.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from robustzs.errors import EvaluationError
from robustzs.labels.templates import TemplateSet
from robustzs.metrics.intervals import paired_difference, wilson
from robustzs.threat import ThreatModel, format_size
from robustzs_training.adapter import ClipAdapter, attack_mode
from robustzs_training.evaluation.apgd import AttackOutcome, Progress, apgd_ce
from robustzs_training.evaluation.heldout import HeldOut
from robustzs_training.evaluation.victim import Head, head_of
from robustzs_training.factory import Tokenize, device_of
from robustzs_training.recipe import EvaluatePart


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model on one set of pictures.

    Attributes:
        outcome: Verdicts, on the CPU.
        protocol: How it was measured, for reports.
        seconds: Wall-clock time.
    """

    outcome: AttackOutcome
    protocol: dict[str, Any]
    seconds: float

    def document(self) -> dict[str, Any]:
        """Accuracies with Wilson's 95% intervals, as JSON values."""
        n = len(self.outcome.clean_correct)
        document: dict[str, Any] = {"n": n}
        for name, correct in (
            ("clean", self.outcome.clean_correct),
            ("robust", self.outcome.robust_correct),
        ):
            count = int(correct.sum())
            document[f"{name}_accuracy"] = round(count / n, 6)
            document[f"{name}_interval"] = [round(end, 6) for end in wilson(count, n)]
        document["seconds"] = round(self.seconds, 1)
        return document


def measure(
    model: ClipAdapter,
    tokenizer: Tokenize,
    heldout: HeldOut,
    part: EvaluatePart,
    templates: TemplateSet,
    *,
    head: Head | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measured:
    """Clean accuracy, and accuracy under APGD-CE.

    Args:
        model: On the device where it is measured; left as it was.
        tokenizer: The model's.
        heldout: The pictures.
        part: Radius, steps and batch size.
        templates: Of the class prompts.
        head: How images are compared with classes; by cosine to their texts when ``None``.
        seed: Of the attack's starting points.
        progress: Told after every batch of the attack.

    Raises:
        EvaluationError: A number that cannot be trusted; see :func:`apgd_ce`.
    """
    started = time.monotonic()
    device = device_of(model)
    with attack_mode(model):
        model.to(memory_format=torch.channels_last)
        compared = head or head_of(None)
        logits_of = compared(model, tokenizer, heldout.classes, templates)
        threat = ThreatModel(norm="Linf", eps=part.eps)
        outcome = apgd_ce(
            logits_of,
            heldout.pixels.to(device),
            heldout.labels.to(device),
            threat=threat,
            n_iter=part.n_steps,
            seed=seed,
            batch_size=part.batch_size,
            progress=progress,
        )
    return Measured(
        outcome=outcome,
        protocol=_protocol(heldout, part, templates, seed, outcome),
        seconds=time.monotonic() - started,
    )


def _protocol(
    heldout: HeldOut,
    part: EvaluatePart,
    templates: TemplateSet,
    seed: int,
    outcome: AttackOutcome,
) -> dict[str, Any]:
    return {
        "pictures": heldout.source,
        "n": len(heldout),
        "pictures_digest": heldout.digest,
        "classes": list(heldout.classes.names),
        "templates": list(templates.templates),
        "image_size": list(heldout.pixels.shape[2:]),
        "attack": "APGD-CE, white-box, untargeted, one restart; only images that were right",
        "norm": "Linf",
        "eps": format_size(part.eps),
        "n_steps": part.n_steps,
        "precision": "float32, no autocast, channels_last",
        "perturbed": "model input, after resizing",
        "logit_factor": outcome.logit_factor,
        "seed": seed,
        "versions": {"pyautoattack": version("pyautoattack"), "torch": torch.__version__},
        "intervals": "accuracy: Wilson, gain: Tango's score interval for paired proportions; 95%",
    }


def compare(before: Measured, after: Measured) -> dict[str, Any]:
    """What a summary says: ``before``, ``after``, ``gain`` with its interval, ``protocol``.

    Raises:
        EvaluationError: The two were not measured on the same pictures in the same way.
    """
    own = ("logit_factor",)
    first = {name: value for name, value in before.protocol.items() if name not in own}
    second = {name: value for name, value in after.protocol.items() if name not in own}
    if first != second:
        different = sorted(name for name in first if first[name] != second.get(name))
        raise EvaluationError(
            f"before and after differ in {', '.join(different)}",
            hint="measure both on the same pictures with the same settings",
        )
    factors = [measured.protocol["logit_factor"] for measured in (before, after)]
    return {
        "before": before.document(),
        "after": after.document(),
        "gain": _gain(before.outcome, after.outcome),
        "protocol": {**first, "logit_factors": [round(factor, 4) for factor in factors]},
    }


def _gain(before: AttackOutcome, after: AttackOutcome) -> dict[str, Any]:
    robust = paired_difference(before.robust_correct.numpy(), after.robust_correct.numpy())
    clean = paired_difference(before.clean_correct.numpy(), after.clean_correct.numpy())
    return {
        "robust_accuracy": round(robust.difference, 6),
        "interval": [round(robust.low, 6), round(robust.high, 6)],
        "gained": robust.gained,
        "lost": robust.lost,
        "clean_accuracy": round(clean.difference, 6),
        "clean_interval": [round(clean.low, 6), round(clean.high, 6)],
        "clean_kept": round(after.clean_accuracy / max(before.clean_accuracy, 1e-12), 6),
    }
