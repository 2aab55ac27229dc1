"""Tiny models of every layout that objectives and attacks meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from robustzs_training.adapter import ClipAdapter
from robustzs_training.models import build_model

from robustzs.hierarchy.tree import Hierarchy

MEAN = (0.48, 0.46, 0.41)
STD = (0.27, 0.26, 0.28)
EMBED_DIM = 16
CONTEXT_LENGTH = 12
VOCABULARY = 64
TEXT = {
    "context_length": CONTEXT_LENGTH,
    "vocab_size": VOCABULARY,
    "width": 32,
    "heads": 2,
    "layers": 1,
}
VIT = {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 4}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
CNN = {
    "image_size": 32,
    "timm_model_name": "test_efficientnet",
    "timm_model_pretrained": False,
    "timm_pool": "avg",
    "timm_proj": "linear",
}
VISION = {"vit": VIT, "resnet": RESNET, "cnn": CNN}


def make_adapter(
    vision: str = "vit", *, seed: int = 0, custom_text: bool = False, **text: Any
) -> ClipAdapter:
    """A random model whose norms, biases and BatchNorm statistics are not neutral."""
    config = {
        "embed_dim": EMBED_DIM,
        "vision_cfg": dict(VISION[vision]),
        "text_cfg": {**TEXT, **text},
        "custom_text": custom_text or vision == "cnn",
    }
    return shaken(ClipAdapter(_build(config, seed), MEAN, STD), seed)


def make_hf_adapter(folder: Path, *, seed: int = 0) -> ClipAdapter:
    """A CNN beside a random BERT of one layer, as in robustzs-lite."""
    bert = {
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
    }
    (folder / "config.json").write_text(json.dumps(bert), encoding="utf-8")
    config = {
        "embed_dim": EMBED_DIM,
        "vision_cfg": dict(CNN),
        "custom_text": True,
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": VOCABULARY,
            "hf_model_name": str(folder),
            "hf_tokenizer_name": str(folder),
            "hf_model_pretrained": False,
            "hf_proj_type": "linear",
            "hf_pooler_type": "mean_pooler",
        },
    }
    return shaken(ClipAdapter(_build(config, seed), MEAN, STD), seed)


def _build(config: dict[str, Any], seed: int) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(config)


@torch.no_grad()
def shaken(adapter: ClipAdapter, seed: int) -> ClipAdapter:
    """The same model, a little away from every neutral start."""
    generator = torch.Generator().manual_seed(seed + 100)
    for name, parameter in adapter.model.named_parameters():
        if name != "logit_scale" and parameter.ndim < 2:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    for name, buffer in adapter.model.named_buffers():
        if name.endswith("running_mean"):
            buffer += 0.1 * torch.randn(buffer.shape, generator=generator)
    return adapter


def make_pixels(n: int = 4, size: int = 16, *, seed: int = 1) -> torch.Tensor:
    """Random pixels, with some exactly at 0 and 1."""
    pixels = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return (1.2 * pixels - 0.1).clamp(0.0, 1.0)


def make_tokens(n: int, *, seed: int = 2, length: int = CONTEXT_LENGTH) -> torch.Tensor:
    """CLIP-like: random words, then the highest id, then zeros."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(n, length, dtype=torch.int64)
    for row in range(n):
        n_words = 2 + (row * 3 + seed) % (length - 5)
        words = torch.randint(1, VOCABULARY - 1, (n_words,), generator=generator)
        tokens[row, :n_words] = words
        tokens[row, n_words] = VOCABULARY - 1
    return tokens


def tokenize(texts: list[str]) -> torch.Tensor:
    """Deterministic tokens of texts: one per character, the last id at the end."""
    tokens = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.int64)
    for row, text in enumerate(texts):
        words = [1 + (ord(c) * 7 + i) % (VOCABULARY - 2) for i, c in enumerate(text)]
        words = words[: CONTEXT_LENGTH - 1]
        tokens[row, : len(words) + 1] = torch.tensor([*words, VOCABULARY - 1])
    return tokens


ANIMALS = {
    "thing": None,
    "animal": "thing",
    "dog": "animal",
    "labrador": "dog",
    "poodle": "dog",
    "cat": "animal",
    "tabby": "cat",
    "siamese": "cat",
    "vehicle": "thing",
    "ambulance": "vehicle",
    "jeep": "vehicle",
    "lamp": "thing",
}
SIZES = {
    "object": None,
    "small": "object",
    "lamp": "small",
    "tabby": "small",
    "siamese": "small",
    "medium": "object",
    "labrador": "medium",
    "poodle": "medium",
    "large": "object",
    "ambulance": "large",
    "jeep": "large",
}


def make_tree(parents: dict[str, str | None], name: str = "tree") -> Hierarchy:
    """A tree from ``{node: parent}``."""
    from robustzs.hierarchy.build import Node

    return Hierarchy.from_nodes(
        [Node(id=node, parent_id=parent, name=node) for node, parent in parents.items()], name=name
    )
