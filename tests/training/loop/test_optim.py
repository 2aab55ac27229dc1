"""Schedules against open_clip's formula, the average against its own definition."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from robustzs_training.loop.optim import (
    build_average,
    build_optimizer,
    build_schedule,
    slots,
    total_steps,
)
from robustzs_training.recipe import OptimizerPart, SchedulePart
from torch import nn


def rates(part: SchedulePart, n_steps: int, lr: float = 0.1) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = build_schedule(part, optimizer, n_steps)
    found = []
    for _ in range(n_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def open_clip_rate(step: int, warmup: int, n_steps: int, lr: float, *, cosine: bool) -> float:
    if step < warmup:
        return lr * (step + 1) / warmup
    if not cosine:
        return lr
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (n_steps - warmup))) * lr


@pytest.mark.parametrize("name", ["cosine", "constant"])
@pytest.mark.parametrize(
    ("warmup", "n_steps"), [(0, 10), (1, 10), (2, 3), (7, 50), (9, 9), (20, 5)]
)
def test_rates_are_those_of_the_sources(name: Any, warmup: int, n_steps: int) -> None:
    found = rates(SchedulePart(name=name, warmup_steps=warmup, steps=n_steps), n_steps)
    warmup = min(warmup, n_steps)
    wanted = [
        open_clip_rate(step, warmup, n_steps, 0.1, cosine=name == "cosine")
        for step in range(n_steps)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_a_schedule_survives_json() -> None:
    part = SchedulePart(warmup_steps=3, steps=12)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = build_schedule(part, optimizer, 12)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    resumed = build_schedule(part, other, 12)
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    other.load_state_dict(optimizer.state_dict())
    for _ in range(7):
        assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
        for stepped in (optimizer, schedule, other, resumed):
            stepped.step()


def test_steps_are_given_or_counted_in_epochs() -> None:
    assert total_steps(SchedulePart(steps=7), 100) == 7
    assert total_steps(SchedulePart(epochs=2.5), 100) == 250
    assert total_steps(SchedulePart(epochs=0.001), 100) == 1


@pytest.mark.parametrize(
    ("settings", "n_slots"),
    [({"name": "adamw"}, 2), ({"name": "sgd"}, 0), ({"name": "sgd", "momentum": 0.9}, 1)],
)
def test_slots_are_what_the_optimiser_keeps(settings: dict[str, Any], n_slots: int) -> None:
    part = OptimizerPart(lr=0.1, weight_decay=0.5, **settings)
    parameter = nn.Parameter(torch.ones(10))
    optimizer = build_optimizer(part, {"weight": parameter})
    parameter.grad = torch.ones(10)
    optimizer.step()
    kept = [v for v in optimizer.state[parameter].values() if v is not None and v.numel() == 10]
    assert len(kept) == n_slots == slots(part)
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


def test_the_average_is_an_exponential_one_that_starts_at_the_first_weights() -> None:
    parameter = nn.Parameter(torch.tensor([0.0], dtype=torch.float64))
    average = build_average(0.9, [parameter])
    assert average is not None
    wanted = None
    for value in (1.0, 5.0, -2.0, 3.0):
        with torch.no_grad():
            parameter.fill_(value)
        average.update_parameters(nn.ParameterList([parameter]))
        wanted = value if wanted is None else 0.9 * wanted + 0.1 * value
    (found,) = average.module.parameters()
    assert float(found) == pytest.approx(wanted, rel=1e-12)
    assert not found.requires_grad
    assert build_average(None, [parameter]) is None
