"""What objectives and attacks need of an open_clip model, and nothing else of it.

Pixels are float32 ``[B, 3, H, W]`` in [0, 1]; normalisation happens inside. Features are raw
unless ``normalize`` is asked for. BatchNorm's statistics never move and the text tower never drops
out, whatever :meth:`ClipAdapter.train` is told: an attack and the loss that follows it then see
the same function, and a batch's composition does not leak into the weights' meaning.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from robustzs.errors import UsageError
from robustzs_training.depthwise import quicken_depthwise
from robustzs_training.export.towers import Normalize
from robustzs_training.patches import PatchFeatures, dense_features
from robustzs_training.quick_gelu import fuse_quick_gelu
from robustzs_training.text_tower import TextTowerParts, apply_projection

if TYPE_CHECKING:
    from robustzs_training.models import LoadedModel


def _freeze_batch_norm(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.eval()


def _sequence_first(model: nn.Module) -> None:
    """Let open_clip's transformers keep tokens as ``[T, B, W]`` inside; results stay the same.

    With ``[B, T, W]``, ``nn.MultiheadAttention`` hands its projection a transposed view. While
    weights are frozen, as in an attack, torch then multiplies token by token with a copy of the
    weights for each: two thirds of an attack's time on a CPU under autocast.
    """
    from open_clip.transformer import ResidualAttentionBlock

    for part in model.modules():
        blocks = getattr(part, "resblocks", None)
        plain = isinstance(blocks, nn.ModuleList) and all(
            type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv")
            for block in blocks
        )
        if plain and hasattr(part, "batch_first"):
            for owner in (part, *(block.attn for block in cast("list[Any]", blocks))):
                cast(Any, owner).batch_first = False


class _ImageSide:
    """Image features of anything that has ``visual`` and ``normalization``."""

    visual: nn.Module
    normalization: Normalize

    def image_features(self, pixels: torch.Tensor, *, normalize: bool = False) -> torch.Tensor:
        """Encode ``pixels`` ``[B, 3, H, W]`` in [0, 1] into ``[B, D]``."""
        found = self.visual(self.normalization(pixels))
        features: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return F.normalize(features, dim=-1) if normalize else features

    def patch_features(self, pixels: torch.Tensor) -> PatchFeatures:
        """Encode ``pixels`` ``[B, 3, H, W]`` into one raw feature per patch, and the image's.

        Raises:
            UsageError: This tower has no patches in the joint space.
        """
        return dense_features(self.visual, self.normalization(pixels))


class FrozenImageEncoder(_ImageSide, nn.Module):
    """A copy of the image tower that never changes: no gradient, always in evaluation mode."""

    def __init__(self, visual: nn.Module, normalization: Normalize) -> None:
        super().__init__()
        self.visual = copy.deepcopy(visual)
        self.normalization = copy.deepcopy(normalization)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenImageEncoder:
        """Stay in evaluation mode."""
        del mode
        super().train(False)
        return self


class FrozenTextProjection(nn.Module):
    """A copy of the text tower's projection that never changes: ``[N, W]`` -> raw ``[N, D]``."""

    def __init__(self, text: TextTowerParts) -> None:
        super().__init__()
        self.projection = copy.deepcopy(text.projection)
        self.requires_grad_(False)
        self.eval()

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Project."""
        return apply_projection(self.projection, pooled)


class ClipAdapter(_ImageSide, nn.Module):
    """An open_clip model with one way to each of its features.

    Args:
        model: ``CLIP`` or ``CustomTextCLIP``; shared, not copied. Its transformers are told to keep
            tokens in the order that attacks are fast in; QuickGELU and depthwise convolutions get
            faster gradients.
        mean: Of the normalisation, per channel, for pixels in [0, 1].
        std: Likewise.

    Raises:
        UsageError: A model whose text tower is of another kind (CoCa).
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.normalization = Normalize(mean, std)
        self._text = TextTowerParts(model)
        _sequence_first(model)
        fuse_quick_gelu(model)
        quicken_depthwise(model)
        # Fixed by the architecture, such as sine tables of positions.
        self._fixed = {
            name for name, parameter in model.named_parameters() if not parameter.requires_grad
        }
        self.train(model.training)

    @classmethod
    def from_loaded(cls, loaded: LoadedModel) -> ClipAdapter:
        """Adapt a model that came from a bundle or a checkpoint."""
        return cls(loaded.model, loaded.mean, loaded.std)

    # The tower is the model's; registering it here again would list every parameter twice.
    @property
    def visual(self) -> nn.Module:  # type: ignore[override]
        """The image tower."""
        return cast(nn.Module, self.model.visual)

    def visual_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters of the image tower, by their names in the model.

        Without those that were frozen when this adapter was made.
        """
        return {
            f"visual.{name}": parameter
            for name, parameter in self.visual.named_parameters()
            if f"visual.{name}" not in self._fixed
        }

    @property
    def log_logit_scale(self) -> nn.Parameter:
        """The parameter: natural logarithm of the factor on cosines."""
        return cast(nn.Parameter, self.model.logit_scale)

    @property
    def logit_scale(self) -> torch.Tensor:
        """The factor on cosines itself, exponential taken: a scalar."""
        return self.log_logit_scale.exp().reshape(())

    def train(self, mode: bool = True) -> ClipAdapter:
        """Set the mode of the image tower; BatchNorm and text tower stay in evaluation mode."""
        super().train(mode)
        _freeze_batch_norm(self)
        self._text.eval()
        return self

    def frozen_image_encoder(self) -> FrozenImageEncoder:
        """A frozen copy of the image tower as it is now."""
        return FrozenImageEncoder(self.visual, self.normalization)

    # ---- text ----------------------------------------------------------------------------------

    @property
    def text_width(self) -> int:
        """Width of a token embedding."""
        return self._text.token_embedding.embedding_dim

    @property
    def text_projection(self) -> tuple[tuple[str, nn.Parameter], ...]:
        """Names (in the model) and parameters of the projection into the joint space."""
        return self._text.projection_parameters()

    def trim(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Cut columns of ``token_ids`` ``[N, T]`` that cannot change any feature.

        Behind the end token of a causal tower, and behind the last token that is not padding where
        padding is masked; ``token_ids`` as they are for every other tower.
        """
        return self._text.trim(token_ids)

    def pooled_text(
        self, token_ids: torch.Tensor, *, perturbation: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What :meth:`project_text` projects: ``[N, W]``.

        Args:
            token_ids: int64 ``[N, T]``.
            perturbation: ``[N, T, W]``, added to the token embeddings before positions are.
        """
        return self._text.pooled(token_ids, perturbation)

    def project_text(self, pooled: torch.Tensor) -> torch.Tensor:
        """Project ``pooled`` ``[N, W]`` into the joint space: raw ``[N, D]``."""
        return self._text.project(pooled)

    def frozen_text_projection(self) -> FrozenTextProjection:
        """A frozen copy of the text projection as it is now."""
        return FrozenTextProjection(self._text)

    def text_features(
        self,
        token_ids: torch.Tensor,
        *,
        perturbation: torch.Tensor | None = None,
        normalize: bool = False,
    ) -> torch.Tensor:
        """Encode ``token_ids`` int64 ``[N, T]`` into ``[N, D]``; see :meth:`pooled_text`."""
        features = self.project_text(self.pooled_text(token_ids, perturbation=perturbation))
        return F.normalize(features, dim=-1) if normalize else features

    @torch.no_grad()
    def class_features(self, token_ids: torch.Tensor, *, chunk: int = 256) -> torch.Tensor:
        """Unit text features ``[C, D]`` of classes with several prompts each.

        Normalised, averaged over templates, normalised again, as ``robustzs.scoring`` does.

        Args:
            token_ids: int64 ``[C, K, T]``: K prompts for each class.
            chunk: Prompts that are encoded at a time.

        Raises:
            UsageError: Not three dimensions.
        """
        if token_ids.ndim != 3:
            raise UsageError(
                f"class prompts have shape {list(token_ids.shape)}",
                hint="give token ids as [classes, templates, tokens]",
            )
        n_classes, n_templates, _ = token_ids.shape
        rows = token_ids.flatten(0, 1)
        found = [self.text_features(self.trim(part), normalize=True) for part in rows.split(chunk)]
        features = torch.cat(found).reshape(n_classes, n_templates, -1)
        return F.normalize(features.mean(dim=1), dim=-1)


@dataclass(frozen=True)
class _State:
    training: tuple[tuple[nn.Module, bool], ...]
    requires_grad: tuple[tuple[nn.Parameter, bool], ...]


@contextlib.contextmanager
def attack_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no weight gradients inside; everything as it was after, even on errors.

    No ``.grad`` is touched: inside, no parameter asks for a gradient.
    """
    state = _State(
        tuple((part, part.training) for part in module.modules()),
        tuple((parameter, parameter.requires_grad) for parameter in module.parameters()),
    )
    try:
        module.eval()
        for parameter, _ in state.requires_grad:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, mode in state.training:
            part.training = mode
        for parameter, wanted in state.requires_grad:
            parameter.requires_grad_(wanted)
