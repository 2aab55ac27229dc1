"""Which GELU a checkpoint was trained with, and whether a visual tower belongs to its base.

OpenAI trained with QuickGELU (``x * sigmoid(1.702 x)``), LAION with the exact one. Both load into
either architecture without a complaint and then give wrong features, so this is decided from what
the files say, and refused where they say too little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from robustzs.errors import CheckpointFormatError, ExportError, UsageError
from robustzs_training.export.checkpoints import Checkpoint, Layout

Activation = Literal["auto", "gelu", "quickgelu"]
# Fine-tuned towers stay near their start: robust fine-tuning moves them by a few per cent, while
# weights that were trained independently are as good as orthogonal.
MIN_KINSHIP = 0.5
_REMEDY = "say --activation quickgelu (OpenAI's and all trained from them) or gelu (LAION's)"


@dataclass(frozen=True, kw_only=True)
class ActivationFacts:
    """What is known of a checkpoint's activation.

    Attributes:
        wanted: What the user said.
        architecture: Whether the architecture's configuration has QuickGELU.
        checkpoint: The checkpoint file, if one was given.
        tag: What open_clip's list says of the pre-trained tag (of the base, where the checkpoint
            is a visual tower alone), if a tag was given.
        base: The base's file, where the checkpoint is a visual tower alone and a file was given.
    """

    wanted: Activation
    architecture: bool
    checkpoint: Checkpoint | None
    tag: bool | None = None
    base: Checkpoint | None = None


def choose_quick_gelu(facts: ActivationFacts) -> tuple[bool, str | None]:
    """Decide on QuickGELU; returns it and a note for the user when it was not simply as named.

    Raises:
        UsageError: the user asks for the one that the files are known not to have.
        CheckpointFormatError: the files do not say, and guessing would give wrong features.
    """
    known, reason = _known(facts)
    if facts.wanted != "auto":
        wanted = facts.wanted == "quickgelu"
        if known is not None and known != wanted:
            raise UsageError(
                f"--activation {facts.wanted} contradicts the weights: {reason}",
                hint="leave --activation away",
            )
        return wanted, None
    if known is not None:
        if known == facts.architecture:
            return known, None
        return known, f"{'QuickGELU' if known else 'exact GELU'}, because {reason}"
    if facts.architecture:
        return True, None
    checkpoint = facts.base or facts.checkpoint
    if checkpoint is not None and (
        checkpoint.is_mixed_precision or (facts.checkpoint and not facts.checkpoint.layout.is_whole)
    ):
        raise CheckpointFormatError(
            f"{checkpoint.name} does not say which GELU it was trained with, and may well be "
            "OpenAI's, while the architecture has the exact one",
            hint=_REMEDY,
        )
    if checkpoint is not None:
        return False, (
            f"exact GELU, as the architecture says; if {checkpoint.name} was trained from OpenAI's "
            "weights, use --activation quickgelu"
        )
    return False, None


def _known(facts: ActivationFacts) -> tuple[bool | None, str]:
    if facts.tag is not None:
        return facts.tag, "open_clip's list of pre-trained weights says so"
    for checkpoint in (facts.base, facts.checkpoint):
        if checkpoint is not None and checkpoint.layout is Layout.OPENAI:
            return True, f"{checkpoint.name} is an OpenAI state dict"
        if checkpoint is not None and checkpoint.layout is Layout.QT_AFT:
            return True, f"{checkpoint.name} holds a tower trained from OpenAI's weights"
    return None, ""


def require_kinship(
    visual: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor], name: str, base_name: str
) -> float:
    """Hold that a visual tower was trained from its base; returns the mean cosine of the matrices.

    Args:
        visual: Tensors of the checkpoint.
        base: Tensors of the base's own visual tower, the same names and shapes.
        name: Of the checkpoint.
        base_name: Of the base.

    Raises:
        ExportError: they are strangers: the base's text tower would not fit.
    """
    cosines = [
        torch.nn.functional.cosine_similarity(
            tensor.flatten().double(), base[key].flatten().double(), dim=0
        ).item()
        for key, tensor in sorted(visual.items())
        if key in base and tensor.ndim >= 2 and tensor.shape == base[key].shape
    ]
    kinship = sum(cosines) / len(cosines) if cosines else 0.0
    if not kinship >= MIN_KINSHIP:
        raise ExportError(
            f"the tower in {name} was not trained from {base_name}: their weights have a mean "
            f"cosine of {kinship:.2f}",
            hint="name the weights that it was trained from by --base TAG or FILE",
        )
    return kinship
