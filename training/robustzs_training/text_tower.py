"""An open_clip text tower, taken apart where objectives need to reach in.

Token embeddings (to perturb them), what is pooled (to keep it while only the projection trains),
and the projection. Three layouts: the parts of ``CLIP`` itself, ``TextTransformer`` and
``HFTextEncoder``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from robustzs.errors import UsageError


def apply_projection(
    projection: nn.Module | torch.Tensor | None, pooled: torch.Tensor
) -> torch.Tensor:
    """``[N, W]`` -> ``[N, D]`` by a matrix, a module or nothing."""
    if projection is None:
        return pooled
    if isinstance(projection, torch.Tensor):
        return pooled @ projection
    return cast(torch.Tensor, projection(pooled))


class TextTowerParts:
    """The text tower of ``model``; holds no parameters of its own.

    Raises:
        UsageError: A tower of another kind.
    """

    def __init__(self, model: nn.Module) -> None:
        from open_clip.hf_model import HFTextEncoder
        from open_clip.transformer import TextTransformer

        tower: Any = model.text if "text" in model._modules else model
        plain = isinstance(tower, TextTransformer) and tower.cls_emb is None
        self.is_hf = isinstance(tower, HFTextEncoder)
        if not (plain or self.is_hf or "token_embedding" in model._modules):
            raise UsageError(
                f"the text tower of {type(model).__name__} cannot be taken apart",
                hint="train a CLIP without a text class token (not CoCa)",
            )
        self._tower = tower
        self._prefix = "" if tower is model else "text."

    @property
    def token_embedding(self) -> nn.Embedding:
        """The layer that tokens come from."""
        if self.is_hf:
            return cast(nn.Embedding, self._tower.transformer.get_input_embeddings())
        return cast(nn.Embedding, self._tower.token_embedding)

    def eval(self) -> None:
        """Put every part of the text tower, but nothing else, in evaluation mode."""
        for name, part in self._tower.named_children():
            if name != "visual":
                part.eval()
        if self._prefix:
            self._tower.eval()

    def projection_parameters(self) -> tuple[tuple[str, nn.Parameter], ...]:
        """Names in the model, and parameters, of the projection; empty when there is none."""
        name, projection = "proj" if self.is_hf else "text_projection", self.projection
        if projection is None:
            return ()
        if isinstance(projection, nn.Parameter):
            return ((f"{self._prefix}{name}", projection),)
        return tuple(
            (f"{self._prefix}{name}.{part}", parameter)
            for part, parameter in projection.named_parameters()
        )

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """``[N, W]`` -> raw ``[N, D]``."""
        return apply_projection(self.projection, pooled)

    @property
    def projection(self) -> nn.Module | nn.Parameter | None:
        """What maps ``[N, W]`` into the joint space; ``None`` when there is nothing to map."""
        name = "proj" if self.is_hf else "text_projection"
        return cast("nn.Module | nn.Parameter | None", getattr(self._tower, name))

    def trim(self, token_ids: torch.Tensor) -> torch.Tensor:
        """See :meth:`ClipAdapter.trim`."""
        if self.is_hf:
            used = token_ids != self._tower.config.pad_token_id
        elif self._tower.attn_mask is not None and self._pool_type in ("argmax", "eos"):
            end = self._end_position(token_ids)[:, None]
            used = torch.arange(token_ids.shape[1], device=token_ids.device)[None] <= end
        else:
            return token_ids
        columns = used.any(dim=0).nonzero()
        return token_ids[:, : int(columns.max()) + 1] if len(columns) else token_ids[:, :1]

    def pooled(
        self, token_ids: torch.Tensor, perturbation: torch.Tensor | None = None
    ) -> torch.Tensor:
        """int64 ``[N, T]`` -> ``[N, W]``; ``perturbation`` ``[N, T, W]`` joins the embeddings."""
        with self._perturbed(perturbation):
            return self._hf(token_ids) if self.is_hf else self._clip(token_ids)

    @contextlib.contextmanager
    def _perturbed(self, perturbation: torch.Tensor | None) -> Iterator[None]:
        if perturbation is None:
            yield
            return

        def add(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            return output + perturbation.to(output.dtype)

        handle = self.token_embedding.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def _hf(self, token_ids: torch.Tensor) -> torch.Tensor:
        tower = self._tower
        mask = (token_ids != tower.config.pad_token_id).long()
        output = tower.transformer(input_ids=token_ids, attention_mask=mask)
        return cast(torch.Tensor, tower.pooler(output, mask))

    def _clip(self, token_ids: torch.Tensor) -> torch.Tensor:
        from open_clip.transformer import text_global_pool

        tower = self._tower
        n_tokens = token_ids.shape[1]
        x = tower.token_embedding(token_ids).to(tower.transformer.get_cast_dtype())
        x = x + tower.positional_embedding[:n_tokens].to(x.dtype)
        mask = tower.attn_mask
        mask = None if mask is None else mask[:n_tokens, :n_tokens]
        if getattr(tower, "use_pad_mask", False):  # only in towers without a causal mask
            mask = tower._build_additive_mask(token_ids, n_tokens, x.dtype)
        x = tower.ln_final(tower.transformer(x, attn_mask=mask))
        pooled: torch.Tensor = text_global_pool(
            x, token_ids, self._pool_type, eos_token_id=self._eos_id
        )
        return pooled

    @property
    def _pool_type(self) -> str:
        return cast(str, self._tower.pool_type if self._prefix else self._tower.text_pool_type)

    @property
    def _eos_id(self) -> int | None:
        name = "eos_id" if self._prefix else "text_eos_id"
        return cast("int | None", getattr(self._tower, name, None))

    def _end_position(self, token_ids: torch.Tensor) -> torch.Tensor:
        if self._pool_type == "argmax":
            return token_ids.argmax(dim=-1)
        return token_ids.eq(cast(int, self._eos_id)).int().argmax(dim=-1)
