"""What an objective is: what the attack raises, what training lowers, and which weights move.

A new objective is one class::

    class Tecoa(Objective):
        def attack_loss(self, batch, perturbed):
            return self.loss(batch, perturbed).total

        def loss(self, batch, perturbed):
            features = self.model.image_features(perturbed["pixels"], normalize=True)
            logits = self.scale * features @ self.classes.T
            return LossTerms.of(ce=F.cross_entropy(logits, need(batch.labels, "labels")))

:meth:`Objective.perturb` attacks, ``objective(batch, perturbed)`` is the loss: the module itself
can be wrapped by ``DistributedDataParallel``. Losses follow the convention of
:mod:`robustzs_training.processes`: their mean over processes is the whole batch's loss.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from robustzs.errors import UsageError
from robustzs.threat import AttackConfig, ThreatModel
from robustzs_training.adapter import ClipAdapter, attack_mode
from robustzs_training.attacks.pgd import PerturbedInput, Tensors, pgd

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One process's share of a batch, clean.

    Args:
        pixels: float32 ``[B, 3, H, W]`` in [0, 1].
        labels: int64 ``[B]``, places in the objective's list of classes.
        caption_ids: int64 ``[B, T]``, one caption for each image.
        caption_features: raw ``[B, D]``, instead of ``caption_ids`` where the text tower is frozen
            and its features are kept.
        constants: What :meth:`Objective.prepare` found out once for the step.
    """

    pixels: torch.Tensor
    labels: torch.Tensor | None = None
    caption_ids: torch.Tensor | None = None
    caption_features: torch.Tensor | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)

    def with_constants(self, **constants: Any) -> Batch:
        """This batch with further constants."""
        return replace(self, constants={**self.constants, **constants})

    def constant(self, name: str) -> Any:
        """What :meth:`Objective.prepare` left under ``name``.

        Raises:
            UsageError: It was not called.
        """
        if name not in self.constants:
            raise UsageError(
                f"the batch has no {name!r}", hint="call objective.prepare(batch) before its losses"
            )
        return self.constants[name]


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """A loss and what it is made of.

    Args:
        total: What is minimised: a scalar.
        terms: Detached scalars by name, for people: unweighted terms, margins.
    """

    total: torch.Tensor
    terms: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, **terms: torch.Tensor) -> LossTerms:
        """The sum of ``terms``, which are weighted already."""
        total = torch.stack([term.reshape(()) for term in terms.values()]).sum()
        return cls(total=total, terms={name: term.detach() for name, term in terms.items()})


def need(value: _T | None, name: str) -> _T:
    """``value``, which the objective cannot do without.

    Raises:
        UsageError: It is ``None``.
    """
    if value is None:
        raise UsageError(f"this objective needs {name} in every batch", hint=f"give {name}")
    return value


class Objective(nn.Module, abc.ABC):
    """An adversarial training objective.

    By default the image tower trains and pixels are attacked. A subclass adds parameters of its
    own as ``nn.Parameter`` attributes; they train too.

    Args:
        model: The model; its ``requires_grad`` flags are set to what trains.

    Attributes:
        gradient_passes: Forward passes of the images whose activations the loss keeps; memory is
            estimated with it.
    """

    gradient_passes: ClassVar[int] = 1

    def __init__(self, model: ClipAdapter) -> None:
        super().__init__()
        self.model = model

    # ---- what a subclass says --------------------------------------------------------------------

    def prepare(self, batch: Batch) -> Batch:
        """Add what stays the same during the attack and the loss of one step; no gradients."""
        return batch

    @abc.abstractmethod
    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        """What the attacker raises: a scalar. Depends on ``perturbed`` differentiably."""

    @abc.abstractmethod
    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """What training lowers, at detached perturbed inputs."""

    def perturbable(self, batch: Batch, threat: ThreatModel) -> dict[str, PerturbedInput]:
        """The inputs that the attacker changes; pixels unless a subclass says more."""
        return {"pixels": PerturbedInput(clean=batch.pixels, threat=threat)}

    def trained_model_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the open_clip model that train, by their names there."""
        return self.model.visual_parameters()

    def clamp_(self) -> None:
        """Bring own parameters back into their ranges; called after every optimiser step."""

    def begin_(self, batch: Batch) -> None:
        """Look at the first clean batch, before the first step of a run; all processes together."""

    def choices(
        self, batch: Batch, image_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What each image is told apart from, for the accuracies that people watch.

        Scores ``[B, C]`` of raw image features ``[B, D]``, and the right columns, int64 ``[B]``;
        ``None`` where the objective compares with nothing of the kind.
        """
        return None

    # ---- what callers use ------------------------------------------------------------------------

    def extra_parameters(self) -> dict[str, nn.Parameter]:
        """The objective's own parameters that train: scales, temperatures."""
        frozen = {id(parameter) for parameter in self.model.parameters()}
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if id(parameter) not in frozen and parameter.requires_grad
        }

    def trainable(self) -> dict[str, nn.Parameter]:
        """Everything that trains: ``model.NAME`` for the model's, then the objective's own."""
        model = {f"model.{name}": p for name, p in self.trained_model_parameters().items()}
        return {**model, **self.extra_parameters()}

    def select_trainable_(self) -> None:
        """Set ``requires_grad`` of the model's parameters to what this objective trains."""
        wanted = {id(parameter) for parameter in self.trained_model_parameters().values()}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in wanted)

    def perturb(
        self,
        batch: Batch,
        threat: ThreatModel,
        attack: AttackConfig,
        *,
        generator: torch.Generator | None = None,
        loss_scale: float = 1.0,
    ) -> dict[str, torch.Tensor]:
        """Attack a prepared batch; see :func:`robustzs_training.attacks.pgd.pgd`."""
        return pgd(
            lambda perturbed: self.attack_loss(batch, perturbed),
            self.perturbable(batch, threat),
            attack,
            module=self,
            generator=generator,
            loss_scale=loss_scale,
        )

    @torch.no_grad()
    def accuracies(self, batch: Batch, perturbed: Tensors) -> dict[str, torch.Tensor]:
        """Share of images that :meth:`choices` gets right: ``clean`` and ``adversarial``.

        Scalars, of this process's images, from two forward passes without gradients; empty where
        there are no choices. The attack is that of training: no measure of robustness.
        """
        found = {}
        with attack_mode(self):
            for name, pixels in (("clean", batch.pixels), ("adversarial", perturbed["pixels"])):
                chosen = self.choices(batch, self.model.image_features(pixels))
                if chosen is None:
                    return {}
                scores, right = chosen
                found[name] = (scores.argmax(dim=1) == right).float().mean()
        return found

    def forward(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        """The loss; the way in for wrappers that average gradients over processes."""
        return self.loss(batch, perturbed)
