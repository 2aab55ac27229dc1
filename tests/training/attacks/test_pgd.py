"""PGD against an independent float64 derivation, and its promises as properties."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robustzs_training.attacks import PerturbedInput, pgd
from robustzs_training.attacks.ball import Ball

from robustzs.errors import UsageError
from robustzs.threat import AttackConfig, ThreatModel
from tests.training.tiny_models import make_adapter, make_pixels

Array = npt.NDArray[np.float64]


class Quadratic:
    """``sum a x + b x^2 / 2``: a loss whose gradient is known without autograd."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.a, self.b = random.normal(size=shape), random.normal(size=shape)

    def __call__(self, inputs: object) -> torch.Tensor:
        x = inputs["x"].double()  # type: ignore[index]
        return (torch.from_numpy(self.a) * x + torch.from_numpy(self.b) * x**2 / 2).sum()

    def gradient(self, x: Array) -> Array:
        return self.a + self.b * x


def steepest(g: Array, norm: str) -> Array:
    if norm == "Linf":
        return np.sign(g)
    lengths = np.sqrt((g**2).reshape(len(g), -1).sum(1)).reshape(-1, *[1] * (g.ndim - 1))
    return np.divide(g, lengths, out=np.zeros_like(g), where=lengths > 0)


def derived(
    loss: Quadratic, x: Array, start: Array, threat: ThreatModel, attack: AttackConfig
) -> Array:
    """As FARE and QT-AFT write it: on delta, projecting, then clamping."""
    delta, velocity = start - x, np.zeros_like(x)
    for _ in range(attack.n_steps):
        g = steepest(loss.gradient(x + delta), threat.norm)
        velocity = steepest(attack.momentum * velocity + g, threat.norm)
        delta = delta + attack.step_size * velocity
        if threat.norm == "Linf":
            delta = np.clip(delta, -threat.eps, threat.eps)
        else:
            lengths = np.sqrt((delta**2).reshape(len(x), -1).sum(1))
            factor = np.minimum(1.0, threat.eps / np.maximum(lengths, 1e-30))
            delta = delta * factor.reshape(-1, *[1] * (x.ndim - 1))
        delta = np.clip(x + delta, 0.0, 1.0) - x
    return x + delta


@pytest.mark.parametrize("threat", ["Linf:4/255", "L2:0.5", "Linf:0.3", "L2:3"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("n_steps", [1, 2, 3, 10])
@pytest.mark.parametrize("start", ["uniform", "none"])
def test_every_step_is_the_derived_one(
    threat: str, momentum: float, n_steps: int, start: str
) -> None:
    model, x = ThreatModel.parse(threat), make_pixels(3, 5)
    attack = AttackConfig(
        n_steps=n_steps,
        step_size=model.eps / 3,
        momentum=momentum,
        start=start,  # type: ignore[arg-type]
        seed=7,
    )
    loss = Quadratic(tuple(x.shape))
    first = x
    if start == "uniform":
        first = Ball(x, model, None).sample(torch.Generator().manual_seed(7))
    found = pgd(loss, {"x": PerturbedInput(clean=x, threat=model)}, attack)["x"]
    wanted = derived(loss, x.double().numpy(), first.double().numpy(), model, attack)
    np.testing.assert_allclose(found.double().numpy(), wanted, atol=2e-6)


def test_momentum_decides_only_where_the_gradient_is_exactly_zero() -> None:
    x = torch.full((1, 4), 0.5)
    seen = []

    def loss(inputs: object) -> torch.Tensor:
        now = inputs["x"]  # type: ignore[index]
        seen.append(now.detach().clone())
        # The first two values lose their gradient after the first step.
        weights = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
        if len(seen) > 1:
            weights = weights * torch.tensor([[0.0, 0.0, -1.0, -1.0]])
        return (weights * now).sum()

    inputs = {"x": PerturbedInput(clean=x, threat=ThreatModel.parse("0.4"))}
    moved = pgd(loss, inputs, AttackConfig(n_steps=2, step_size=0.1, start="none", momentum=0.9))
    torch.testing.assert_close(moved["x"], torch.tensor([[0.7, 0.3, 0.5, 0.5]]))
    seen.clear()
    plain = pgd(loss, inputs, AttackConfig(n_steps=2, step_size=0.1, start="none"))
    torch.testing.assert_close(plain["x"], torch.tensor([[0.6, 0.4, 0.5, 0.5]]))


@settings(max_examples=150)
@given(
    norm=st.sampled_from(["Linf", "L2"]),
    eps=st.floats(0.0, 1.0),
    step=st.floats(0.0, 2.0),
    n_steps=st.integers(0, 3),
    seed=st.integers(0, 2**16),
    start=st.sampled_from(["uniform", "none"]),
    scale=st.sampled_from([1e-30, 1e-6, 1.0, 1e20]),
    bounded=st.booleans(),
)
def test_results_are_in_the_ball_and_the_bounds_to_the_last_bit(
    norm: str,
    eps: float,
    step: float,
    n_steps: int,
    seed: int,
    start: str,
    scale: float,
    bounded: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand(2, 3, 4, 4, generator=generator) - 0.2).clamp(0, 1)
    x[0, 0] *= 1e-6  # where floats are dense
    weights = scale * torch.randn(x.shape, generator=generator)
    weights[:, 1] = 0.0
    threat = ThreatModel(norm=norm, eps=eps)  # type: ignore[arg-type]
    config = AttackConfig(
        n_steps=n_steps,
        step_size=step,
        start=start,
        seed=seed,
        momentum=0.9,  # type: ignore[arg-type]
    )
    each = PerturbedInput(clean=x, threat=threat, bounds=(0.0, 1.0) if bounded else None)
    found = pgd(lambda inputs: (weights * inputs["x"]).sum(), {"x": each}, config)["x"]
    delta = found.double().numpy() - x.double().numpy()
    assert np.isfinite(delta).all()
    if norm == "Linf":
        assert np.abs(delta).max() <= eps
        assert (found - x).abs().max() <= torch.tensor(eps, dtype=torch.float32)
    else:
        assert np.sqrt((delta**2).reshape(2, -1).sum(1)).max() <= eps
    if bounded:
        assert float(found.min()) >= 0.0
        assert float(found.max()) <= 1.0


@pytest.mark.parametrize("threat", ["Linf:8/255", "L2:2"])
def test_the_attack_reaches_the_edge_and_raises_the_loss(threat: str) -> None:
    model, x = ThreatModel.parse(threat), make_pixels(3, 6)
    loss = Quadratic(tuple(x.shape))
    attack = AttackConfig(n_steps=20, step_size=model.eps / 4, start="none")
    found = pgd(loss, {"x": PerturbedInput(clean=x, threat=model)}, attack)["x"]
    assert loss({"x": found}) > loss({"x": x})
    delta = (found - x).flatten(1)
    size = delta.abs().amax(1) if model.norm == "Linf" else delta.norm(dim=1)
    assert bool((size > 0.9 * model.eps).all())


def test_a_uniform_start_fills_the_ball() -> None:
    x = torch.full((20_000, 3), 0.5)
    linf = Ball(x, ThreatModel.parse("0.1"), None).sample(torch.Generator().manual_seed(0)) - x
    assert abs(float(linf.mean())) < 1e-3
    assert float(linf.std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)
    l2 = Ball(x, ThreatModel.parse("L2:0.1"), None).sample(torch.Generator().manual_seed(0)) - x
    radius = l2.norm(dim=1) / 0.1
    assert float((radius**3).mean()) == pytest.approx(0.5, rel=0.02)  # uniform in volume
    assert float(l2.mean(0).abs().max()) < 2e-3


def test_the_seed_alone_decides() -> None:
    x = make_pixels(2, 4)
    inputs = {"x": PerturbedInput(clean=x, threat=ThreatModel.parse("8/255"))}
    loss = Quadratic(tuple(x.shape))
    runs = [
        pgd(loss, inputs, AttackConfig(n_steps=2, step_size=1 / 255, seed=seed))["x"]
        for seed in (3, 3, 4)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_restarts_keep_the_run_with_the_highest_loss() -> None:
    x = torch.full((1, 8), 0.5)
    inputs = {"x": PerturbedInput(clean=x, threat=ThreatModel.parse("0.3"))}
    loss = Quadratic((1, 8))
    one = AttackConfig(n_steps=0, step_size=0.0, seed=1)
    generator = torch.Generator().manual_seed(1)
    alone = [float(loss(pgd(loss, inputs, one, generator=generator))) for _ in range(5)]
    several = AttackConfig(n_steps=0, step_size=0.0, seed=1, n_restarts=5)
    assert float(loss(pgd(loss, inputs, several))) == max(alone)
    assert max(alone) > alone[0]


def test_several_inputs_move_at_once_each_in_its_own_ball() -> None:
    pixels, prompts = make_pixels(2, 4), torch.zeros(3, 5, 7)
    weights = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))

    def loss(inputs: object) -> torch.Tensor:
        x, delta = inputs["pixels"], inputs["prompts"]  # type: ignore[index]
        return x.sum() * (1.0 + (weights * delta).sum())

    found = pgd(
        loss,
        {
            "pixels": PerturbedInput(clean=pixels, threat=ThreatModel.parse("1/255")),
            "prompts": PerturbedInput(
                clean=prompts,
                threat=ThreatModel.parse("2e-4"),
                bounds=None,
                step_size=1e-4,
                start="none",
            ),
        },
        AttackConfig(n_steps=3, step_size=1 / 255),
    )
    torch.testing.assert_close(found["prompts"], 2e-4 * weights.sign())
    assert float((found["pixels"] - pixels).abs().max()) <= 1 / 255
    assert float((found["pixels"] - pixels).mean()) > 0


def test_modes_flags_and_gradients_are_as_before_even_after_an_error() -> None:
    adapter = make_adapter("cnn").train()
    next(adapter.model.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in adapter.parameters()]
    modes = [part.training for part in adapter.modules()]
    buffers = [b.clone() for b in adapter.buffers()]
    pixels = make_pixels(2, 32)
    inputs = {"pixels": PerturbedInput(clean=pixels, threat=ThreatModel.parse("4/255"))}
    attack = AttackConfig(n_steps=2, step_size=1 / 255)
    seen = []

    def loss(perturbed: object) -> torch.Tensor:
        seen.append(any(part.training for part in adapter.modules()))
        seen.append(any(p.requires_grad for p in adapter.parameters()))
        features = adapter.image_features(perturbed["pixels"])  # type: ignore[index]
        if len(seen) > 6:
            raise RuntimeError("on purpose")
        return features.square().sum()

    pgd(loss, inputs, attack, module=adapter)
    with pytest.raises(RuntimeError, match="on purpose"):
        pgd(loss, inputs, attack, module=adapter)
    assert not any(seen)
    assert [p.requires_grad for p in adapter.parameters()] == flags
    assert [part.training for part in adapter.modules()] == modes
    assert all(p.grad is None for p in adapter.parameters())
    assert all(torch.equal(*pair) for pair in zip(buffers, adapter.buffers(), strict=True))


def test_inside_no_grad_and_autocast_the_steps_stay_float32() -> None:
    adapter = make_adapter()
    pixels = make_pixels(2)
    inputs = {"pixels": PerturbedInput(clean=pixels, threat=ThreatModel.parse("4/255"))}
    attack = AttackConfig(n_steps=3, step_size=1 / 255)

    def loss(perturbed: object) -> torch.Tensor:
        features = adapter.image_features(perturbed["pixels"])  # type: ignore[index]
        return (features - 1.0).square().sum()

    exact = pgd(loss, inputs, attack, module=adapter)["pixels"]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = pgd(loss, inputs, attack, module=adapter, loss_scale=2.0**8)["pixels"]
    assert rough.dtype == torch.float32
    assert float((rough - pixels).abs().max()) <= 4 / 255
    assert float((rough - exact).abs().gt(1e-6).float().mean()) < 0.3  # mostly the same signs


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_the_loss_scale_changes_no_direction(scale: float) -> None:
    x = make_pixels(2, 4)
    loss = Quadratic(tuple(x.shape))
    for threat in ("4/255", "L2:0.5"):
        inputs = {"x": PerturbedInput(clean=x, threat=ThreatModel.parse(threat))}
        attack = AttackConfig(n_steps=3, step_size=1 / 255, momentum=0.9)
        plain, scaled = pgd(loss, inputs, attack), pgd(loss, inputs, attack, loss_scale=scale)
        torch.testing.assert_close(plain["x"], scaled["x"], rtol=0, atol=1e-7)


def test_misuse_is_named() -> None:
    threat, attack = ThreatModel.parse("4/255"), AttackConfig(n_steps=1, step_size=0.1)
    with pytest.raises(UsageError, match="nothing to perturb"):
        pgd(lambda _: torch.zeros(()), {}, attack)
    with pytest.raises(UsageError, match="float64"):
        PerturbedInput(clean=torch.zeros(1, 2, dtype=torch.float64), threat=threat)
    with pytest.raises(UsageError, match="normalisation happens inside"):
        PerturbedInput(clean=torch.full((1, 2), 1.5), threat=threat)
    with pytest.raises(UsageError, match="nan"):
        PerturbedInput(clean=torch.full((1, 2), torch.nan), threat=threat)
