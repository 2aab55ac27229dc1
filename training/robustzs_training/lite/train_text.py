"""Teaches MiniLM's last layers and a small MLP to put sentences into the joint space."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from robustzs_training.lite.text_layers import StoredStates, finish, hidden_features
from robustzs_training.lite.texts import Sentences

if TYPE_CHECKING:
    from torch import nn

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextTraining:
    """How the text tower is trained.

    Attributes:
        n_warm_up_steps: Steps in which only the projection learns, from stored embeddings.
        n_steps: Steps in which the last layers learn, too.
        batch_size: Sentences per step, half of them from each pool.
        n_layers: Transformer layers that are trained, counted from the last.
        layer_rate: Peak learning rate of these layers.
        head_rate: Peak learning rate of the projection.
        weight_decay: AdamW's.
        contrast_scale: Inverse temperature of the contrast against all targets of the batch.
        contrast_weight: Its weight beside the cosine loss.
        open_share: Weight of all open words beside all classes when the last matrix is refitted.
        seed: Of sampling and initialisation.
    """

    n_warm_up_steps: int = 1500
    n_steps: int = 1500
    batch_size: int = 192
    n_layers: int = 1
    layer_rate: float = 4e-4
    head_rate: float = 1e-3
    weight_decay: float = 0.01
    contrast_scale: float = 20.0
    contrast_weight: float = 0.05
    open_share: float = 0.05
    seed: int = 0


def trained_text_parameters(text: Any, n_layers: int) -> dict[str, nn.Parameter]:
    """Name the text tower's parameters that training may change: last layers and projection."""
    total = len(text.transformer.encoder.layer)
    prefixes = tuple(f"transformer.encoder.layer.{i}." for i in range(total - n_layers, total))
    return {n: p for n, p in text.named_parameters() if n.startswith((*prefixes, "proj."))}


def _group_stream(
    size: int, count: int, generator: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Endless chunks of ``count`` group numbers: shuffled passes over ``size`` groups."""
    left = np.zeros(0, np.int64)
    while True:
        while len(left) < count:
            left = np.concatenate([left, generator.permutation(size)])
        yield left[:count]
        left = left[count:]


def warm_up_projection(
    projection: nn.Module,
    embeddings: npt.NDArray[np.float32],
    targets: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float64],
    settings: TextTraining,
) -> None:
    """Train the projection alone on stored sentence embeddings.

    Args:
        projection: open_clip's ``text.proj``.
        embeddings: ``[n, 384]``.
        targets: ``[n, 768]`` unit vectors.
        weights: ``[n]`` sampling weights.
        settings: Steps, batch size, rate and seed.
    """
    generator = np.random.default_rng(settings.seed)
    optimizer = torch.optim.AdamW(
        projection.parameters(), lr=2e-3, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=settings.n_warm_up_steps, pct_start=0.1
    )
    probabilities = weights / weights.sum()
    x, y = torch.from_numpy(embeddings), torch.from_numpy(targets)
    picks = generator.choice(
        len(x), p=probabilities, size=(settings.n_warm_up_steps, 2 * settings.batch_size)
    )
    for rows in picks:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            projected = projection(x[rows])
        features = torch.nn.functional.normalize(projected.float(), dim=-1)
        loss = 1.0 - (features * y[rows]).sum(-1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


def train_text(
    text: Any,
    known: tuple[Sentences, StoredStates],
    open_words: tuple[Sentences, StoredStates],
    settings: TextTraining,
    on_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Train the last layers and the projection of ``text`` (``HFTextEncoder``) in place.

    Half of each batch comes from either pool. The loss is ``1 - cos`` to the target, mean over the
    batch, plus a cross-entropy that makes each sentence choose its own target among the batch's.
    Dropout stays off: the classes' names have to come out exactly. Layers run in bfloat16,
    weights and optimiser are float32.

    Args:
        text: The text tower.
        known: Sentences of the classes and their stored states.
        open_words: Likewise of the other nouns.
        settings: Steps, rates and the rest.
        on_step: Called after every step with its number.
    """
    generator = np.random.default_rng(settings.seed)
    text.eval().requires_grad_(False)
    parameters = trained_text_parameters(text, settings.n_layers)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer, schedule = _optimizer(parameters, settings)
    half = settings.batch_size // 2
    streams = [
        (*pool, _group_stream(len(pool[0].groups), half, generator)) for pool in (known, open_words)
    ]
    started = time.perf_counter()
    for step in range(settings.n_steps):
        parts = [
            _encode_draw(text, sentences, states, next(stream), settings.n_layers, generator)
            for sentences, states, stream in streams
        ]
        features = torch.nn.functional.normalize(torch.cat([f for f, _ in parts]), dim=-1)
        targets = torch.cat([t for _, t in parts])
        cosine = (features * targets).sum(-1)
        contrast = torch.nn.functional.cross_entropy(
            settings.contrast_scale * features @ targets.T, torch.arange(len(targets))
        )
        loss = 1.0 - cosine.mean() + settings.contrast_weight * contrast
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            _LOGGER.info(
                "step %d, %.0f s: cosine %.4f on classes, %.4f on nouns",
                step,
                time.perf_counter() - started,
                cosine[:half].mean().item(),
                cosine[half:].mean().item(),
            )
        on_step(step)
    text.requires_grad_(True)


def refit_projection(
    text: Any,
    known: tuple[Sentences, StoredStates],
    open_words: tuple[Sentences, StoredStates],
    settings: TextTraining,
) -> None:
    """Replace the projection's last matrix by the weighted least-squares solution, in place.

    Stochastic steps leave it short of that. A class counts 1, spread over its sentences; all open
    words together count ``settings.open_share`` of all classes.
    """
    n_hidden, n_out = text.proj[-1].in_features, text.proj[-1].out_features
    gram, moment = np.zeros((n_hidden, n_hidden)), np.zeros((n_hidden, n_out))
    total = float(len(known[0].groups))
    for (sentences, states), share in ((known, 1.0), (open_words, settings.open_share)):
        hidden = hidden_features(text, states, settings.n_layers).astype(np.float64)
        weights = np.zeros(len(hidden))
        for group, weight in zip(sentences.groups, sentences.weights, strict=True):
            weights[group] = weight
        weights *= share * total / weights.sum()
        targets = np.stack(sentences.targets)[sentences.target].astype(np.float64)
        weighted = hidden * weights[:, None]
        gram += weighted.T @ hidden
        moment += weighted.T @ targets
    ridge = 1e-4 * np.trace(gram) / n_hidden * np.eye(n_hidden)
    solution = np.linalg.solve(gram + ridge, moment)
    with torch.no_grad():
        text.proj[-1].weight.copy_(torch.from_numpy(solution.T))


def _optimizer(
    parameters: dict[str, nn.Parameter], settings: TextTraining
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    head = [p for n, p in parameters.items() if n.startswith("proj.")]
    layers = [p for n, p in parameters.items() if not n.startswith("proj.")]
    groups = [
        {"params": head, "lr": settings.head_rate},
        {"params": layers, "lr": settings.layer_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[settings.head_rate, settings.layer_rate],
        total_steps=settings.n_steps,
        pct_start=0.08,
    )
    return optimizer, schedule


def _encode_draw(
    text: Any,
    sentences: Sentences,
    states: StoredStates,
    groups: npt.NDArray[np.int64],
    n_layers: int,
    generator: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a sentence of each group; features ``[n, D]`` and targets ``[n, D]``."""
    rows = np.array([generator.choice(sentences.groups[g], p=sentences.weights[g]) for g in groups])
    rows = rows[np.argsort(states.starts[rows + 1] - states.starts[rows], kind="stable")]
    features = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for part in np.array_split(rows, 3):
            features.append(finish(text, *states.padded(part), n_layers))
    targets = np.stack([sentences.targets[sentences.target[row]] for row in rows])
    return torch.cat(features).float(), torch.from_numpy(targets)
