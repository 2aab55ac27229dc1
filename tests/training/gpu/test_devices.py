"""What must not depend on the device: each check runs here on the CPU, and on a GPU where one is.

``make test-gpu`` runs the halves that need CUDA, here and in ``tests/training``'s other rooms
(``objectives/test_cuda.py``, ``loop/test_loop_cuda.py``: the latter has the runs under NCCL, which
need two devices). The wanted values are always those of the CPU in float32.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from robustzs_training.adapter import ClipAdapter
from robustzs_training.evaluation.apgd import apgd_ce
from robustzs_training.loop.machine import compiled, lay_out
from robustzs_training.objectives import Batch, Objective

from robustzs.backends.onnx import OnnxBackend
from robustzs.bundle.store import Bundle
from robustzs.cli.main import main
from robustzs.threat import AttackConfig, ThreatModel
from tests.training.objectives.two_processes import LABELS, build
from tests.training.recipes.small_worlds import NAMES, tiny_overrides, write_pictures
from tests.training.tiny_models import make_adapter, make_pixels, make_tokens

NEEDS_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
NEEDS_CUDA_PROVIDER = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason='this onnxruntime has no CUDA: pip install "robustzs[gpu]" in a fresh environment',
    ),
]
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
# Largest error of features, relative to their norm. Float32 convolutions use TF32 on a GPU.
ERRORS = {"fp32": 2e-3, "bf16": 4e-2, "fp16": 1e-2}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SIZES = {"vit": 16, "resnet": 64, "cnn": 32}
THREAT = ThreatModel.parse("4/255")
ATTACK = AttackConfig(n_steps=4, step_size=1 / 255, momentum=0.9, seed=3)


def half(device: str, precision: str) -> torch.autocast:
    dtype = DTYPES.get(precision)
    return torch.autocast(device, dtype=dtype, enabled=dtype is not None)


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    difference = found.detach().cpu().double() - wanted.detach().double()
    return float(difference.norm() / wanted.double().norm())


def prepared(objective: Objective, device: str) -> Batch:
    return objective.prepare(
        Batch(
            pixels=make_pixels(len(LABELS)).to(device),
            labels=torch.tensor(LABELS, device=device),
            caption_ids=make_tokens(len(LABELS), seed=3).to(device),
        )
    )


@on_each_device
@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("vision", SIZES)
def test_features_are_those_of_the_cpu(vision: str, precision: str, device: str) -> None:
    adapter, pixels = make_adapter(vision), make_pixels(3, SIZES[vision])
    token_ids = make_tokens(5)
    with torch.no_grad():
        wanted = adapter.image_features(pixels), adapter.text_features(token_ids)
        there: ClipAdapter = copy.deepcopy(adapter).to(device)
        there.to(memory_format=torch.channels_last)
        with half(device, precision):
            images = pixels.to(device).contiguous(memory_format=torch.channels_last)
            found = there.image_features(images), there.text_features(token_ids.to(device))
    for ours, theirs in zip(found, wanted, strict=True):
        assert relative_error(ours, theirs) < ERRORS[precision]


@on_each_device
@pytest.mark.parametrize("compile_towers", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("precision", ERRORS)
def test_losses_and_gradients_are_those_of_the_cpu(
    precision: str, compile_towers: bool, device: str
) -> None:
    inputs = make_pixels(len(LABELS), seed=9)
    wanted = build("qt_aft").float()
    total = wanted(prepared(wanted, "cpu"), {"pixels": inputs}).total
    total.backward()
    objective = build("qt_aft").float()
    lay_out(objective, torch.device(device), channels_last=True)
    with compiled(objective, enabled=compile_towers):
        with half(device, precision):
            found = objective(prepared(objective, device), {"pixels": inputs.to(device)}).total
        found.backward()
    assert float(found.detach()) == pytest.approx(float(total.detach()), rel=ERRORS[precision])
    ours, theirs = (
        torch.cat([p.grad.detach().cpu().flatten() for p in each.trainable().values()])  # type: ignore[union-attr]
        for each in (objective, wanted)
    )
    similarity = torch.nn.functional.cosine_similarity(ours.double(), theirs.double(), dim=0)
    assert float(similarity) > 1.0 - ERRORS[precision]


@on_each_device
def test_a_seed_means_the_same_attack_on_every_device(device: str) -> None:
    """Noise comes from the CPU's generator unless another one is given."""
    wanted, objective = build("qt_aft").float(), build("qt_aft").float().to(device)
    expected = wanted.perturb(prepared(wanted, "cpu"), THREAT, ATTACK)["pixels"]
    batch = prepared(objective, device)
    found = objective.perturb(batch, THREAT, ATTACK)["pixels"]
    assert found.device.type == device
    # A gradient near zero may change its sign with the order of a sum.
    assert float(((found.cpu() - expected).abs() < 1e-6).double().mean()) > 0.98
    with torch.no_grad():
        there = float(objective(batch, {"pixels": found}).total)
        here = float(wanted(prepared(wanted, "cpu"), {"pixels": expected}).total)
    assert there == pytest.approx(here, rel=5e-3)


@on_each_device
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_generator_of_the_device_s_own(norm: str, device: str) -> None:
    objective = build("hierarchical").float().to(device)
    batch = prepared(objective, device)
    threat = ThreatModel.parse("4/255" if norm == "Linf" else "L2:0.5")

    def attack(seed: int) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(seed)
        return objective.perturb(batch, threat, ATTACK, generator=generator)["pixels"]

    first, again, other = attack(1), attack(1), attack(2)
    torch.testing.assert_close(again, first)
    assert not torch.equal(other, first)
    delta = (first.double() - batch.pixels.double()).flatten(1)
    sizes = delta.abs().amax(dim=1) if norm == "Linf" else delta.norm(dim=1)
    assert float(sizes.max()) <= threat.eps
    assert float(first.min()) >= 0.0
    assert float(first.max()) <= 1.0


@on_each_device
def test_the_verdict_is_that_of_the_cpu(device: str) -> None:
    adapter = make_adapter("cnn")
    pixels, classes = make_pixels(24, 32), torch.randn(4, 16, generator=torch.Generator())
    there = copy.deepcopy(adapter).to(device)

    def logits(model: ClipAdapter, images: torch.Tensor) -> torch.Tensor:
        return model.image_features(images, normalize=True) @ classes.to(images.device).T

    with torch.no_grad():
        labels = logits(adapter, pixels).argmax(dim=1)
    wanted = apgd_ce(lambda x: logits(adapter, x), pixels, labels, threat=THREAT, n_iter=5)
    found = apgd_ce(
        lambda x: logits(there, x), pixels.to(device), labels.to(device), threat=THREAT, n_iter=5
    )
    assert float(found.clean_correct.double().mean()) == 1.0
    same = found.robust_correct.cpu() == wanted.robust_correct.cpu()
    assert int((~same).sum()) <= 1  # an image on the edge


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA_PROVIDER)])
def test_onnxruntime_gives_the_features_of_its_cpu(tiny_bundle: Path, device: str) -> None:
    bundle = Bundle.load(tiny_bundle)
    height, width = bundle.manifest.preprocess.image_size
    pixels = np.random.default_rng(0).random((2, 3, height, width), dtype=np.float32)
    wanted = OnnxBackend(bundle, device="cpu").encode_image(pixels)
    backend = OnnxBackend(bundle, device=device)
    found = backend.encode_image(pixels)
    assert backend.provider == f"{device.upper()}ExecutionProvider"
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0.0, atol=2e-3 * scale)


@on_each_device
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=NEEDS_CUDA)])
def test_a_run_from_pictures_to_a_bundle(
    precision: str, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    changes = [
        *tiny_overrides(tmp_path),
        f"run.precision={precision}",
        "run.trackers=[]",
        "data.n_workers=0",
        "data.caption_mode=names-and-properties",
        f"evaluate.path={pictures}",
        "evaluate.n_steps=2",
        "evaluate.n_images=null",
    ]
    with pytest.raises(SystemExit) as stopped:
        main(
            ["train", "--recipe", "qt-aft-hierarchical-vit-b-32", "--data", str(pictures),
             "--output", str(tmp_path / "out"), "--steps", "2", "--device", device,
             *(part for change in changes for part in ("--set", change))]
        )  # fmt: skip
    assert not stopped.value.code, capsys.readouterr().err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert np.isfinite(list(summary["final"].values())).all()
    with pytest.raises(SystemExit) as stopped:
        main(["classify", str(next(pictures.rglob("*.png"))), "--model", str(tmp_path / "out"),
              "--labels", ",".join(NAMES), "--format", "json"])  # fmt: skip
    captured = capsys.readouterr()
    assert not stopped.value.code, captured.err
    assert json.loads(captured.out[captured.out.index("{\n") :])["prediction"]["name"] in NAMES
