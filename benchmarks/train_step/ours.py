"""One step of QT-AFT in robustzs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from open_clip import get_tokenizer
from robustzs_training.adapter import ClipAdapter
from robustzs_training.loop.optim import build_optimizer
from robustzs_training.models import build_model
from robustzs_training.objectives import Batch, QtAft
from robustzs_training.recipe import OptimizerPart
from safetensors.torch import load_file

from benchmarks.train_step.setting import (
    BETAS,
    CAPTION_WEIGHT,
    EPS,
    LEARNING_RATE,
    MOMENTUM,
    STEP_SIZE,
    WEIGHT_DECAY,
    Setting,
    model_config,
)
from robustzs.threat import AttackConfig, ThreatModel

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Ours:
    """See the module's text.

    Args:
        architecture: Of open_clip.
        weights: Safetensors of the whole model.
        setting: The batch.
        bf16: Autocast, as recipes do by default; else float32.
        cache: Keep the captions' features, as the loop does; else encode captions in every step.
    """

    def __init__(
        self, architecture: str, weights: Path, setting: Setting, *, bf16: bool, cache: bool = True
    ) -> None:
        model = build_model(model_config(architecture))
        model.load_state_dict(load_file(weights))
        self.objective = QtAft(ClipAdapter(model, MEAN, STD), caption_weight=CAPTION_WEIGHT).train()
        self.objective.to(memory_format=torch.channels_last)
        part = OptimizerPart(lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS)
        self.optimizer = build_optimizer(part, self.objective.trainable())
        self.setting, self.bf16, self.cache = setting, bf16, cache
        self.tokenize = get_tokenizer("ViT-B-32")
        self.generator = torch.Generator().manual_seed(setting.seed)
        self.pixels = setting.pixels().contiguous(memory_format=torch.channels_last)
        self.features = self._encode() if cache else None
        self.attack = AttackConfig(
            n_steps=setting.n_steps, step_size=STEP_SIZE, momentum=MOMENTUM, seed=setting.seed
        )

    @torch.no_grad()
    def _encode(self) -> torch.Tensor:
        adapter = self.objective.model
        return adapter.text_features(adapter.trim(self.tokenize(self.setting.captions())))

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def _batch(self) -> Batch:
        ids = None if self.cache else self.tokenize(self.setting.captions())
        return Batch(pixels=self.pixels, caption_ids=ids, caption_features=self.features)

    def step(self) -> float:
        """Attack, loss, update; returns the loss before the update."""
        self.optimizer.zero_grad()
        threat = ThreatModel(norm="Linf", eps=EPS)
        with self._autocast():
            batch = self.objective.prepare(self._batch())
            perturbed = self.objective.perturb(batch, threat, self.attack, generator=self.generator)
            total = self.objective(batch, perturbed).total
        total.backward()
        self.optimizer.step()
        self.objective.clamp_()
        return float(total.detach())

    def check(self) -> tuple[float, float, torch.Tensor]:
        """Loss at the shared starting point and after the attack from there, and its images."""
        with self._autocast():
            batch = self.objective.prepare(self._batch())
            generator = torch.Generator().manual_seed(self.setting.seed)
            threat = ThreatModel(norm="Linf", eps=EPS)
            found = self.objective.perturb(batch, threat, self.attack, generator=generator)
            with torch.no_grad():
                start = self.pixels + self.setting.noise()
                losses = [
                    float(self.objective(batch, {"pixels": pixels}).total)
                    for pixels in (start, found["pixels"])
                ]
        return losses[0], losses[1], found["pixels"].contiguous()
