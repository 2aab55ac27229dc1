"""Small CLIPs with the exact key layouts of the published checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from robustzs_training.backbones import MINILM
from safetensors.torch import save_file

TINY: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}
TINY_QUICK = {**TINY, "quick_gelu": True}


LITE: dict[str, Any] = {
    "embed_dim": 24,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 64,
        "timm_model_name": "test_efficientnet",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 30522,
        "hf_model_pretrained": True,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "mean_pooler",
    },
}


def make_clip(config: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    """A random CLIP with biases and norms that are not at their neutral start."""
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    model = CLIP(**config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "logit_scale":
                parameter.fill_(4.6052)
            elif parameter.ndim < 2:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif "mlp" in name:
                parameter.mul_(6.0)  # far enough from zero for the two GELUs to differ
    return model


def fine_tuned(model: torch.nn.Module, seed: int = 1) -> dict[str, torch.Tensor]:
    """The visual tower's tensors, moved a little, as fine-tuning does."""
    generator = torch.Generator().manual_seed(seed)
    state = model.get_submodule("visual").state_dict()
    return {
        name: tensor + 0.05 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        if tensor.numel() > 1
        else tensor.clone()
        for name, tensor in state.items()
    }


def openai_scalars() -> dict[str, torch.Tensor]:
    """What only the state dict of OpenAI's own archive has."""
    return {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }


def half_but_norms(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """OpenAI's precision: float16, norms and embeddings float32."""
    return {
        name: tensor if "ln_" in name or "embedding" in name else tensor.half()
        for name, tensor in state.items()
    }


def write_config(folder: Path, config: dict[str, Any], name: str = "tiny") -> str:
    """An open_clip configuration file; returns its path."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return str(path)


def register_tiny(
    folder: Path, monkeypatch: pytest.MonkeyPatch, openai: torch.nn.Module, laion: torch.nn.Module
) -> None:
    """Make ``tiny-ViT`` and ``tiny-ViT-quickgelu`` known to open_clip, with two tags as files."""
    from open_clip import factory, pretrained

    for name, config in (("tiny-ViT", TINY), ("tiny-ViT-quickgelu", TINY_QUICK)):
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, config)
    tags = {}
    for tag, model, extra in (("openai", openai, {"quick_gelu": True}), ("laion2b", laion, {})):
        path = folder / f"{tag}.safetensors"
        save_file(model.state_dict(), path)
        tags[tag] = {"file": str(path), **extra}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-ViT", tags)
    quick = {"openai": tags["openai"]}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-ViT-quickgelu", quick)


def image_features(model: torch.nn.Module, seed: int = 3) -> torch.Tensor:
    """Raw features of a fixed picture."""
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model.encode_image(pixels)  # type: ignore[operator]


def small_bert(folder: Path) -> Path:
    """A Hugging Face text tower with MiniLM's tokenizer and two random layers."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        hidden_dropout_prob=0.1,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copyfile(MINILM.path / name, folder / name)
    return folder
