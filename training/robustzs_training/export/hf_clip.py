"""Names and settings of transformers' ``CLIPModel`` and of open_clip's ``CLIP``, both ways.

The two are the same network: transformers keeps query, key and value apart, stores the projections
transposed and calls everything differently. Sources: ``transformers/models/clip/modeling_clip.py``
and ``open_clip/model.py``, ``open_clip/transformer.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from robustzs.errors import CheckpointFormatError, ExportError

_PLAIN = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_TOWERS = {"visual.transformer": "vision_model.encoder", "transformer": "text_model.encoder"}
_BLOCK = re.compile(r"(visual\.transformer|transformer)\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
_ATTENTION = re.compile(r"(visual\.transformer|transformer)\.resblocks\.(\d+)\.attn\.in_proj_(\w+)")
_PARTS = ("q_proj", "k_proj", "v_proj")

_VISION_KEYS = frozenset(
    {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout"}
)
_TEXT_KEYS = frozenset({"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"})
# Values at which a setting changes nothing (open_clip's defaults).
_NEUTRAL_VALUES: tuple[Any, ...] = (None, False, "tok", "argmax", "learnable", "linear", {})
_IGNORED = frozenset({"attn_pooler_queries", "attn_pooler_heads", "pad_id", "eos_id"})

START_ID, END_ID = 49406, 49407


def to_hugging_face(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename an open_clip state dict for ``CLIPModel``.

    Raises:
        ExportError: a tensor has no counterpart there.
    """
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        block, attention = _BLOCK.fullmatch(key), _ATTENTION.fullmatch(key)
        if key in _PLAIN:
            renamed[_PLAIN[key]] = tensor
        elif key in _TRANSPOSED:
            renamed[_TRANSPOSED[key]] = tensor.T.contiguous()
        elif attention is not None:
            tower, index, kind = attention.groups()
            for part, piece in zip(_PARTS, tensor.chunk(3), strict=True):
                name = f"{_TOWERS[tower]}.layers.{index}.self_attn.{part}.{kind}"
                renamed[name] = piece.contiguous()
        elif block is not None and block.group(3) in _IN_BLOCK:
            tower, index, module, kind = block.groups()
            renamed[f"{_TOWERS[tower]}.layers.{index}.{_IN_BLOCK[module]}.{kind}"] = tensor
        else:
            raise ExportError(
                f"transformers' CLIPModel has no counterpart of {key}",
                hint="use `--to open-clip`, which keeps every architecture",
            )
    return renamed


def from_hugging_face(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Rename the tensors of a ``CLIPModel`` for open_clip.

    Raises:
        CheckpointFormatError: a tensor has no counterpart there, or a query, key or value lacks.
    """
    left = {key: value for key, value in tensors.items() if not key.endswith("position_ids")}
    renamed: dict[str, torch.Tensor] = {}
    for ours, theirs in _PLAIN.items():
        if theirs in left:
            renamed[ours] = left.pop(theirs)
    for ours, theirs in _TRANSPOSED.items():
        if theirs in left:
            renamed[ours] = left.pop(theirs).T.contiguous()
    for ours_tower, theirs_tower in _TOWERS.items():
        for ours, theirs in _IN_BLOCK.items():
            for key in [key for key in left if key.startswith(f"{theirs_tower}.layers.")]:
                index, _, rest = key.removeprefix(f"{theirs_tower}.layers.").partition(".")
                module, _, kind = rest.rpartition(".")
                if module == theirs:
                    renamed[f"{ours_tower}.resblocks.{index}.{ours}.{kind}"] = left.pop(key)
        _join_attention(left, renamed, ours_tower, theirs_tower)
    if left:
        raise CheckpointFormatError(
            f"{name} has tensors that open_clip's CLIP has no counterpart of: "
            f"{', '.join(sorted(left)[:5])}",
            hint="give the file of a CLIPModel",
        )
    return renamed


def _join_attention(
    left: dict[str, torch.Tensor],
    renamed: dict[str, torch.Tensor],
    ours_tower: str,
    theirs_tower: str,
) -> None:
    suffix = ".self_attn.q_proj.weight"
    layers = [key.removesuffix(suffix) for key in left if key.endswith(suffix)]
    for layer in [layer for layer in layers if layer.startswith(f"{theirs_tower}.layers.")]:
        index = layer.rpartition(".")[2]
        for kind in ("weight", "bias"):
            names = [f"{layer}.self_attn.{part}.{kind}" for part in _PARTS]
            if all(name in left for name in names):
                joined = torch.cat([left.pop(name) for name in names])
                renamed[f"{ours_tower}.resblocks.{index}.attn.in_proj_{kind}"] = joined


def config_to_hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a ``CLIPConfig`` for an open_clip ``model_cfg``.

    Raises:
        ExportError: the architecture is none that ``CLIPModel`` can express.
    """
    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    foreign = [key for key in config if key not in {"embed_dim", "vision_cfg", "text_cfg"}]
    odd = [key for key in foreign if key != "quick_gelu" and config[key] not in _NEUTRAL_VALUES]
    odd += _odd(vision, _VISION_KEYS) + _odd(text, _TEXT_KEYS)
    if odd or isinstance(vision.get("layers"), list | tuple):
        reason = f"it sets {', '.join(sorted(odd))}" if odd else "its image tower is a ResNet"
        raise ExportError(
            f"transformers' CLIPModel cannot express this architecture: {reason}",
            hint="use `--to open-clip`, which keeps every architecture",
        )
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    width, text_width = vision.get("width", 768), text.get("width", 512)
    return {
        "projection_dim": config["embed_dim"],
        "vision_config": {
            "hidden_size": width,
            "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision.get("layers", 12),
            "num_attention_heads": width // vision.get("head_width", 64),
            "image_size": _one_number(vision.get("image_size", 224)),
            "patch_size": vision.get("patch_size", 16),
            "hidden_act": activation,
            "projection_dim": config["embed_dim"],
        },
        "text_config": {
            "hidden_size": text_width,
            "intermediate_size": int(text_width * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text.get("layers", 12),
            "num_attention_heads": text.get("heads", 8),
            "max_position_embeddings": text.get("context_length", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "hidden_act": activation,
            "projection_dim": config["embed_dim"],
            "bos_token_id": START_ID,
            "eos_token_id": END_ID,
            "pad_token_id": 0,
        },
    }


def config_from_hugging_face(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An open_clip ``model_cfg`` for the ``config.json`` of a ``CLIPModel``.

    Keys that the file leaves out have the defaults of ``CLIPConfig``.

    Raises:
        ExportError: the towers' activations are neither ``quick_gelu`` nor ``gelu``, or differ.
    """
    from transformers import CLIPConfig

    known = CLIPConfig(**dict(settings))
    vision, text = known.vision_config, known.text_config
    activations = {vision.hidden_act, text.hidden_act}
    if activations not in ({"gelu"}, {"quick_gelu"}):
        raise ExportError(
            f"open_clip has no model with the activations {', '.join(sorted(activations))}",
            hint="both towers need gelu, or both quick_gelu",
        )
    return {
        "embed_dim": known.projection_dim,
        "quick_gelu": activations == {"quick_gelu"},
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
            "patch_size": vision.patch_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
        },
    }


def _odd(settings: Mapping[str, Any], known: frozenset[str]) -> list[str]:
    return [
        key
        for key, value in settings.items()
        if key not in known | _IGNORED and value not in _NEUTRAL_VALUES
    ]


def _one_number(size: Any) -> int:
    values = {*size} if isinstance(size, list | tuple) else {size}
    if len(values) != 1:
        raise ExportError(
            f"transformers' CLIPModel takes square images only, this one {size}",
            hint="use `--to open-clip`",
        )
    return int(values.pop())
