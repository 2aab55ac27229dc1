"""Layers by the names of real towers, and the rates that layer_decay gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip
import pytest
import torch
from robustzs_training.loop.layers import layer_depths
from robustzs_training.loop.optim import build_optimizer
from robustzs_training.recipe import OptimizerPart
from torch import nn

from robustzs.errors import UsageError


def visual_names(**config: Any) -> list[str]:
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=16, vision_cfg=config, text_cfg=text)
    return [f"model.visual.{name}" for name, _ in model.visual.named_parameters()]


SMALL_VIT = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 3, "head_width": 32}


@pytest.mark.parametrize(
    ("config", "depths"),
    [
        (
            SMALL_VIT,
            {
                "class_embedding": 0,
                "positional_embedding": 0,
                "conv1.weight": 0,
                "ln_pre.bias": 0,
                "transformer.resblocks.0.attn.in_proj_weight": 1,
                "transformer.resblocks.2.mlp.c_fc.weight": 3,
                "ln_post.weight": 4,
                "proj": 4,
            },
        ),
        (
            {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16},
            {
                "conv3.weight": 0,
                "bn2.weight": 0,
                "layer1.0.conv1.weight": 1,
                "layer4.0.bn2.bias": 4,
                "attnpool.q_proj.weight": 5,
            },
        ),
        (
            {"timm_model_name": "efficientnet_lite0", "image_size": 64},
            {
                "trunk.conv_stem.weight": 0,
                "trunk.bn1.weight": 0,
                "trunk.blocks.0.0.conv_dw.weight": 1,
                "trunk.blocks.6.0.bn2.weight": 7,
                "trunk.conv_head.weight": 8,
                "trunk.bn2.bias": 8,
                "head.proj.weight": 8,
            },
        ),
        (
            {"timm_model_name": "convnext_atto", "image_size": 64},
            {
                "trunk.stem.0.weight": 0,
                "trunk.stages.0.blocks.1.conv_dw.weight": 1,
                "trunk.stages.3.downsample.1.weight": 4,
                "trunk.head.norm.weight": 5,
            },
        ),
        (
            {"timm_model_name": "vit_tiny_patch16_224", "image_size": 32, "timm_pool": "token"},
            {
                "trunk.pos_embed": 0,
                "trunk.patch_embed.proj.weight": 0,
                "trunk.blocks.11.norm2.weight": 12,
                "trunk.norm.weight": 13,
                "head.proj.weight": 13,
            },
        ),
    ],
)
def test_depths_of_real_towers(config: dict[str, Any], depths: Mapping[str, int]) -> None:
    found = layer_depths(visual_names(**config))
    assert {name: found[f"model.visual.{name}"] for name in depths} == depths
    assert set(found.values()) == set(range(max(depths.values()) + 1))


def test_the_first_layers_learn_fastest_above_one() -> None:
    names = visual_names(**SMALL_VIT)
    parameters = {name: nn.Parameter(torch.zeros(2)) for name in (*names, "objective.curvature")}
    optimizer = build_optimizer(OptimizerPart(lr=0.1, layer_decay=2.0), parameters)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([1.6, 0.8, 0.4, 0.2, 0.1])
    last = {id(parameter) for parameter in optimizer.param_groups[-1]["params"]}
    assert id(parameters["objective.curvature"]) in last
    assert id(parameters["model.visual.proj"]) in last
    every = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(every) == len(parameters) == len({id(parameter) for parameter in every})


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="layer_decay"):
        build_optimizer(
            OptimizerPart(lr=0.1, layer_decay=0.5), {"model.visual.weight": nn.Parameter()}
        )
