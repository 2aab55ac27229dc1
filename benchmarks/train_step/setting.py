"""What both sides of a comparison share: random weights, one batch, the paper's settings."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from robustzs_training.export.origins import architecture_config
from robustzs_training.models import build_model
from safetensors.torch import save_file

EPS, STEP_SIZE, MOMENTUM, CAPTION_WEIGHT = 4 / 255, 1 / 255, 0.9, 10.0
LEARNING_RATE, WEIGHT_DECAY, BETAS = 1e-5, 1e-4, (0.9, 0.95)
CAPTION_WORDS = 45  # the paper asks for captions "within 50 words"
# Every vision transformer of OpenAI's, with a width that its code divides into heads of 64.
TINY = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 64, "patch_size": 56},
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2
    },
}  # fmt: skip
_WORDS = """
a photograph of one small brown dog on green grass beside the old stone wall with two red flowers
under bright morning sunlight its striped tail and soft round ears near blue water
"""


def model_config(architecture: str) -> dict[str, object]:
    """open_clip's configuration, with OpenAI's activation; ``tiny`` is for tests."""
    if architecture == "tiny":
        return dict(TINY)
    return {**architecture_config(architecture), "quick_gelu": True}


def write_weights(architecture: str, path: Path, seed: int) -> None:
    """Random weights that float16 can hold exactly, since OpenAI's code loads them through it."""
    torch.manual_seed(seed)
    state = build_model(model_config(architecture)).state_dict()
    save_file({name: t.half().float().contiguous() for name, t in state.items()}, path)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One batch, and what the attack starts from in the check of equality."""

    batch_size: int
    n_steps: int
    seed: int

    def pixels(self) -> torch.Tensor:
        """Float32 ``[B, 3, 224, 224]`` in [0, 1]: blurred noise, as smooth as pictures are."""
        generator = torch.Generator().manual_seed(self.seed)
        coarse = torch.rand(self.batch_size, 3, 28, 28, generator=generator)
        return torch.nn.functional.interpolate(coarse, size=(224, 224), mode="bilinear")

    def captions(self) -> list[str]:
        """One for each image."""
        rng = random.Random(self.seed)
        return [
            " ".join(rng.choices(_WORDS.split(), k=CAPTION_WORDS)) for _ in range(self.batch_size)
        ]

    def noise(self) -> torch.Tensor:
        """Where the attack starts from, as our generator draws it: ``[B, 3, 224, 224]``."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.batch_size, 3, 224, 224)
        return (2.0 * torch.rand(shape, generator=generator) - 1.0) * EPS
