"""The words of measuring: pictures with what is right for each, a victim, an attack, a verdict.

An attack proposes; the verdict is the deployed one: an image counts as right when the label with
the largest logit is among the right ones. Several labels can be right (a picture of a dog, asked
among the 1000 classes of ImageNet): the attack then lowers the summed probability of exactly these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from robustzs.labels import LabelSet

TensorFunction = Callable[[torch.Tensor], torch.Tensor]
Progress = Callable[[int, int], None]


class EvaluationSet(Protocol):
    """Pictures that a model is measured on; read in parts, because all may not fit in memory."""

    @property
    def name(self) -> str:
        """For tables and cards: ``fashion-mnist``."""

    @property
    def keys(self) -> Sequence[str]:
        """Names of the pictures, in the set's order; ``n`` of them."""

    @property
    def labels(self) -> LabelSet:
        """What the model chooses from, ``C`` of them."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """``[n, C]``: which labels are right; at least one in every row."""

    @property
    def truth(self) -> Sequence[str]:
        """What each picture shows, as a label's id or a synset: may be an inner node of a tree."""

    @property
    def digest(self) -> str:
        """Sha256 over names, truths and picture bytes, in hex."""

    @property
    def description(self) -> Mapping[str, Any]:
        """For the card: source, split, subset and its seed, what is known of training on it."""

    def pixels(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """float32 ``[len(rows), 3, H, W]`` in [0, 1], as the victim takes them.

        Raises:
            DataError: A picture cannot be read.
        """


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A model as an attacker sees it: white box, float32, in evaluation mode.

    Attributes:
        logits_of: ``pixels`` ``[B, 3, H, W]`` -> deployed logits ``[B, C]`` before temperature.
        image_features_of: ``pixels`` -> raw features ``[B, D]``, for attacks without text.
        logits_for: Texts ``[M]`` -> ``pixels`` to logits ``[B, M]``, compared as the deployed model
            compares: for attacks guided by captions or other prompts than the label's.
        device: Where pixels go.
        logits_among: Prompts ``[M]`` of other things than the labels -> ``pixels`` to logits
            ``[B, M]``, through the templates that the labels' prompts went through; ``None`` where
            there is no text tower.
    """

    logits_of: TensorFunction
    image_features_of: TensorFunction
    logits_for: Callable[[Sequence[str]], TensorFunction]
    device: torch.device
    logits_among: Callable[[Sequence[str]], TensorFunction] | None = None


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What an attack found for a batch.

    Attributes:
        adversarial: float32 ``[B, 3, H, W]``: inside the ball and [0, 1]; where the attack failed,
            its best try or the clean image.
        broken: bool ``[B]``: no right label is on top there. Judged on ``Victim.logits_of``.
        broken_by: Name of the attack that broke each image, which is a member of an ensemble where
            one attacked; empty where it stands.
    """

    adversarial: torch.Tensor
    broken: torch.Tensor
    broken_by: tuple[str, ...] = ()


class Attack(Protocol):
    """An attack of one kind and strength."""

    @property
    def name(self) -> str:
        """For tables and cards: ``apgd-ce``."""

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that decides its result, as JSON values: norm, eps, steps, restarts, seed."""

    def __call__(
        self,
        victim: Victim,
        pixels: torch.Tensor,
        right: torch.Tensor,
        rows: Sequence[int],
    ) -> Proposal:
        """Attack a batch.

        Args:
            victim: The model.
            pixels: float32 ``[B, 3, H, W]`` in [0, 1], clean, all of them right.
            right: bool ``[B, C]``.
            rows: Places in the set: randomness comes from them and the seed alone, so that neither
                batch nor order decides a verdict.
        """
