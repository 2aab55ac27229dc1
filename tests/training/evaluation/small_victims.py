"""Small victims: linear ones with exact answers, and convolutional ones that are not robust."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from robustzs_training.evaluation.attacks import build_attack
from robustzs_training.evaluation.base import Attack, TensorFunction, Victim

from robustzs.threat import ThreatModel

SIDE = 16
CLASSES = 6
LINF = ThreatModel(eps=8.0 / 255.0)
L2 = ThreatModel(norm="L2", eps=0.3)


def victim(logits_of: TensorFunction, features_of: TensorFunction | None = None) -> Victim:
    """A victim of any function; texts are compared by fixed random directions."""
    features = features_of or (lambda pixels: pixels.flatten(1))

    def logits_for(texts: Sequence[str]) -> TensorFunction:
        def of(pixels: torch.Tensor) -> torch.Tensor:
            found = features(pixels)
            directions = [
                torch.randn(
                    found.shape[1], generator=torch.Generator().manual_seed(sum(map(ord, text)))
                )
                for text in texts
            ]
            return found @ torch.stack(directions).T

        return of

    return Victim(
        logits_of=logits_of,
        image_features_of=features,
        logits_for=logits_for,
        device=torch.device("cpu"),
    )


def net(seed: int = 0, classes: int = CLASSES) -> torch.nn.Sequential:
    """A small smooth classifier of ``[B, 3, 16, 16]``; its last layer is the head."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2),
            torch.nn.Tanh(),
            torch.nn.Conv2d(8, 12, 3, stride=2),
            torch.nn.Tanh(),
            torch.nn.Flatten(),
            torch.nn.Linear(108, classes),
        )
    return found.eval().requires_grad_(False)


def net_victim(seed: int = 0, classes: int = CLASSES) -> Victim:
    """A victim of :func:`net`."""
    found = net(seed, classes)
    return victim(found, found[:-1])


def pictures(n: int = 30, *, seed: int = 1, eight_bit: bool = True) -> torch.Tensor:
    """Random pixels away from the bounds, at 8-bit values as pictures have them."""
    pixels = 0.2 + 0.6 * torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return (pixels * 255.0).round() / 255.0 if eight_bit else pixels


def predicted(found: Victim, pixels: torch.Tensor) -> torch.Tensor:
    """bool ``[B, C]``: what the victim says is right."""
    with torch.no_grad():
        logits = found.logits_of(pixels)
    return torch.nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()


def linear(
    seed: int = 0, classes: int = CLASSES, *, margin: float = 8.0
) -> tuple[torch.Tensor, Victim, torch.Tensor]:
    """Weights ``[C, D]``, their victim, and pictures near its boundaries."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, 3 * SIDE * SIDE, generator=generator)
    pixels = pictures(40, seed=seed + 1)
    flat = pixels.flatten(1)
    # Each picture is moved towards its two highest classes' boundary, by a share of its own.
    logits = flat @ weight.T
    top = logits.topk(2, dim=1).indices
    difference = weight[top[:, 0]] - weight[top[:, 1]]
    gap = (flat * difference).sum(dim=1)
    wanted = margin * torch.rand(len(flat), generator=generator)
    moved = flat - ((gap - wanted) / difference.square().sum(dim=1))[:, None] * difference
    return weight, victim(lambda x: x.flatten(1) @ weight.T), moved.view_as(pixels).clamp(0.1, 0.9)


def exactly_robust(
    weight: torch.Tensor, pixels: torch.Tensor, right: torch.Tensor, threat: ThreatModel
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether a linear model's pictures stand, bool ``[B]``, and by how much ``[B]``.

    A picture falls to class ``j`` if ``(w_y - w_j) x < eps |w_y - w_j|_dual``. With several right
    classes it falls if one perturbation puts ``j`` above all of them; this is only exact for one.
    The pixel range must not be in the way.
    """
    logits = pixels.flatten(1).double() @ weight.double().T
    first = right.int().argmax(dim=1)
    difference = weight.double()[first][:, None] - weight.double()[None]
    dual = difference.abs().sum(-1) if threat.norm == "Linf" else difference.norm(dim=-1)
    slack = logits.gather(1, first[:, None]) - logits - threat.eps * dual
    slack = slack.scatter(1, first[:, None], torch.inf).amin(dim=1)
    return slack > 0, slack


def made(name: str, threat: ThreatModel, *, n_steps: int = 10, **more: object) -> Attack:
    """An attack of few steps, with texts where it needs them."""
    return build_attack(
        name,
        threat,
        n_steps=n_steps,
        n_queries=60,
        captions=[f"caption {i % 9}" for i in range(100)],
        prompts=[f"prompt {i}" for i in range(CLASSES)],
        **more,  # type: ignore[arg-type]
    )
