"""Which run a folder belongs to: what decides its result, as one document that can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from robustzs.bundle.store import canonical_json
from robustzs.errors import TrainingStateError
from robustzs_training.objectives.base import Objective
from robustzs_training.recipe import Recipe

_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What decides a run's result.

    Attributes:
        recipe: The settings that do, resolved.
        data: Digest of the examples.
        model: Digest of all weights before the first step.
    """

    recipe: Mapping[str, Any]
    data: str
    model: str

    @property
    def recipe_digest(self) -> str:
        """Sha256 of the settings."""
        return document_digest(self.recipe)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "recipe": dict(self.recipe),
            "recipe_digest": self.recipe_digest,
            "data_digest": self.data,
            "model_digest": self.model,
        }

    def check(self, other: Mapping[str, Any], where: str) -> None:
        """Refuse to go on with what another run left.

        Args:
            other: From :meth:`to_dict`.
            where: The file that it was read from.

        Raises:
            TrainingStateError: Names every difference.
        """
        found = differences(other.get("recipe", {}), self.recipe)
        if other.get("data_digest") != self.data:
            found.append(
                f"data digest: {_short(other.get('data_digest'))} there, {_short(self.data)} here"
            )
        if other.get("model_digest") != self.model:
            found.append(
                "the weights before training: another checkpoint or another version of the code"
            )
        if found:
            more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise TrainingStateError(
                f"{where} belongs to another run: {'; '.join(found[:_SHOWN])}{more}",
                hint="choose another output folder, or repeat the command that it was made with",
            )


def identify(recipe: Recipe, data_digest: str, objective: Objective) -> Identity:
    """The identity of a run; ``objective`` has its weights of before the first step."""
    settings = recipe.decisive()
    return Identity(recipe=settings, data=data_digest, model=weights_digest(objective))


def weights_digest(objective: Objective) -> str:
    """Sha256 over the model's weights and the objective's tables of integers.

    Features that the objective computed for itself are left out: another processor rounds them
    otherwise, and the run may go on there.
    """
    digest = hashlib.sha256()
    tables = {k: v for k, v in objective.named_buffers() if not v.is_floating_point()}
    for name, tensor in {**objective.model.model.state_dict(), **tables}.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def document_digest(document: Mapping[str, Any]) -> str:
    """Sha256 of a JSON document, whatever the order of its keys."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def differences(theirs: Any, ours: Any, name: str = "") -> list[str]:
    """Every setting that differs, as ``optimizer.lr: 1e-05 there, 0.0001 here``."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        found = []
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            place = f"{name}.{key}" if name else str(key)
            found += differences(theirs.get(key), ours.get(key), place)
        return found
    return [] if theirs == ours else [f"{name}: {theirs!r} there, {ours!r} here"]


def _short(digest: Any) -> str:
    return str(digest)[:12]
