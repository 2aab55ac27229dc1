"""On a CUDA device: every objective in float32 as on the CPU, and under both half precisions."""

from __future__ import annotations

import pytest
import torch
from robustzs_training.objectives import Batch, Objective

from robustzs.threat import AttackConfig, ThreatModel
from tests.training.objectives.two_processes import LABELS, NAMES, build
from tests.training.tiny_models import make_pixels, make_tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
THREAT = ThreatModel.parse("4/255")
ATTACK = AttackConfig(n_steps=3, step_size=1 / 255, momentum=0.9)


def prepared(objective: Objective, device: str) -> Batch:
    return objective.prepare(
        Batch(
            pixels=make_pixels(len(LABELS)).to(device),
            labels=torch.tensor(LABELS, device=device),
            caption_ids=make_tokens(len(LABELS), seed=3).to(device),
        )
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_the_cpu(name: str) -> None:
    objective = build(name)
    inputs = {"pixels": make_pixels(len(LABELS), seed=9)}
    with torch.no_grad():
        wanted = float(objective(prepared(objective, "cpu"), inputs).total)
        objective.cuda()
        found = objective(prepared(objective, "cuda"), {"pixels": inputs["pixels"].cuda()})
    assert float(found.total) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_step_is_finite_and_inside_the_ball(name: str, dtype: torch.dtype | None) -> None:
    objective = build(name).float().cuda()
    with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
        batch = prepared(objective, "cuda")
        found = objective.perturb(batch, THREAT, ATTACK, loss_scale=2.0**10)
        total = objective(batch, found).total
    total.backward()
    assert bool(total.isfinite())
    assert float((found["pixels"].double() - batch.pixels.double()).abs().max()) <= THREAT.eps
    assert all(bool(p.grad.isfinite().all()) for p in objective.trainable().values())  # type: ignore[union-attr]
