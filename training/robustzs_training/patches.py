"""One feature per patch, in the joint space, of every image tower that has patches.

- Vision transformers: the projected patch tokens, after the final norm.
- Pooled convolutional networks (timm): the map before pooling, each position sent through the head
  alone. Where the head is linear and the pool an average, the mean of the patches is the image's
  feature exactly.
- CLIP's ResNets: each position's value through the attention pool's output projection
  (the dense features of MaskCLIP, arXiv 2112.01071). The image's feature is a weighted mean of
  such values, with weights that attention chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from robustzs.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class PatchFeatures:
    """Raw features of one forward pass.

    Attributes:
        patches: ``[B, rows * columns, D]``, row by row.
        grid: ``(rows, columns)``.
        image_features: ``[B, D]``.
    """

    patches: torch.Tensor
    grid: tuple[int, int]
    image_features: torch.Tensor


def dense_features(visual: nn.Module, images: torch.Tensor) -> PatchFeatures:
    """Patch and image features of an open_clip image tower.

    Args:
        visual: ``model.visual``.
        images: Normalised, ``[B, 3, H, W]``.

    Raises:
        UsageError: This tower has no patches in the joint space.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, VisionTransformer) and visual.attn_pool is None:
        return _transformer(cast(Any, visual), images)
    if isinstance(visual, ModifiedResNet):
        return _attention_pooled(cast(Any, visual), images)
    if isinstance(visual, TimmModel):
        return _pooled(cast(Any, visual), images)
    raise UsageError(
        f"an image tower of type {type(visual).__name__} has no patch features",
        hint="objectives that compare attention maps need a ViT or a pooled CNN",
    )


def _transformer(visual: Any, images: torch.Tensor) -> PatchFeatures:
    tokens = visual.transformer(visual._embeds(images))
    pooled, patches = visual._pool(tokens)
    if visual.final_ln_after_pool:
        patches = visual.ln_post(patches)
    if patches.shape[1] == tokens.shape[1]:  # pool_type "none" keeps the class token
        raise UsageError(
            "this ViT does not pool its tokens", hint="choose one with pool_type tok or avg"
        )
    if visual.proj is not None:
        pooled, patches = pooled @ visual.proj, patches @ visual.proj
    rows, columns = (
        side // size for side, size in zip(images.shape[2:], visual.patch_size, strict=True)
    )
    return PatchFeatures(patches=patches, grid=(rows, columns), image_features=pooled)


def _pooled(visual: Any, images: torch.Tensor) -> PatchFeatures:
    fmap = visual.trunk.forward_features(images)
    if fmap.ndim != 4 or fmap.shape[1] != visual.trunk.num_features or "pool" in visual.head:
        raise UsageError(
            f"the timm trunk {type(visual.trunk).__name__} gives features of shape "
            f"{list(fmap.shape)}, not a [B, C, h, w] map before an average",
            hint="objectives that compare attention maps need a ViT or a pooled CNN",
        )
    n_images, width, rows, columns = fmap.shape
    alone = fmap.permute(0, 2, 3, 1).reshape(-1, width, 1, 1)
    patches = visual.head(visual.trunk.forward_head(alone))
    return PatchFeatures(
        patches=patches.reshape(n_images, rows * columns, -1),
        grid=(rows, columns),
        image_features=visual.head(visual.trunk.forward_head(fmap)),
    )


def _attention_pooled(visual: Any, images: torch.Tensor) -> PatchFeatures:
    fmap = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        fmap = layer(fmap)
    pool = visual.attnpool
    rows, columns = fmap.shape[2:]
    positions = fmap.flatten(2).transpose(1, 2) + pool.positional_embedding[1:].to(fmap.dtype)
    return PatchFeatures(
        patches=pool.c_proj(pool.v_proj(positions)),
        grid=(rows, columns),
        image_features=pool(fmap),
    )
