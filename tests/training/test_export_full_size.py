"""Exports at full size, with random weights; one at a time, since each takes gigabytes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from robustzs_training.export.bundle import BundleFacts, export_open_clip_model
from robustzs_training.export.onnx_export import OnnxOptions, export_image_tower
from robustzs_training.export.origins import architecture_config
from robustzs_training.export.tokenizers import tokenizer_of
from robustzs_training.export.towers import ImageTower
from robustzs_training.models import build_model

from robustzs.bundle.manifest import LicenceRecord, SourceRecord
from robustzs.bundle.store import Bundle
from robustzs.images.config import PreprocessConfig
from robustzs.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(autouse=True)
def _free_memory() -> Iterator[None]:
    yield
    gc.collect()


def export(config: dict[str, Any], output: Path, **options: Any) -> Any:
    torch.manual_seed(0)
    size = config["vision_cfg"].get("image_size", 224)
    facts = BundleFacts(
        name="random",
        source=SourceRecord(description="random numbers"),
        preprocess=PreprocessConfig(image_size=(size, size)),
        mean=MEAN,
        std=STD,
        licences=(LicenceRecord(name="CC0-1.0", covers="everything"),),
    )
    model = build_model(config)
    return export_open_clip_model(
        model, config=config, tokenizer=tokenizer_of(config), facts=facts, output=output, **options
    )


def classify(bundle: Bundle, pixels: Any, names: list[str]) -> Any:
    """Zero-shot probabilities by onnxruntime and numpy alone."""
    features = []
    ids = Tokenizer.from_bundle(bundle)([f"a photo of a {name}." for name in names])
    for name, array in (("image_encoder.onnx", pixels), ("text_encoder.onnx", ids)):
        session = ort.InferenceSession(str(bundle.file(name)), providers=["CPUExecutionProvider"])
        raw = session.run(None, {session.get_inputs()[0].name: array})[0]
        features.append(raw / np.linalg.norm(raw, axis=1, keepdims=True))
        del session
    logits = bundle.manifest.logit_scale * features[0] @ features[1].T
    logits -= logits.max(axis=1, keepdims=True)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("architecture", "embed_dim", "megabytes"),
    [("ViT-B-32-quickgelu", 512, 605), ("ViT-L-14-quickgelu", 768, 1710)],
)
def test_vision_transformers_at_full_size(
    architecture: str, embed_dim: int, megabytes: int, tmp_path: Path
) -> None:
    result = export(architecture_config(architecture), tmp_path / "bundle")
    bundle = Bundle.load(result.bundle.path)
    del result
    gc.collect()
    assert bundle.manifest.embed_dim == embed_dim
    assert abs(bundle.size / 1e6 - megabytes) < 0.02 * megabytes
    pixels = np.random.default_rng(0).random((3, 3, 224, 224), dtype=np.float32)
    probs = classify(bundle, pixels, ["cat", "dog", "tench"])
    assert probs.shape == (3, 3)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, rtol=1e-5)
    assert np.isfinite(probs).all()


@pytest.mark.parametrize("architecture", ["RN50-quickgelu", "coca_ViT-B-32", "MobileCLIP-S1"])
def test_other_families(architecture: str, tmp_path: Path) -> None:
    result = export(architecture_config(architecture), tmp_path / "bundle")
    size = result.bundle.manifest.preprocess.image_size
    pixels = np.random.default_rng(0).random((2, 3, *size), dtype=np.float32)
    probs = classify(result.bundle, pixels, ["cat", "dog"])
    np.testing.assert_allclose(probs.sum(axis=1), 1.0, rtol=1e-5)


def test_a_tower_beyond_two_gigabytes_gets_external_data(tmp_path: Path) -> None:
    """The image tower of ViT-H/14 has 2.5 GB, more than a protobuf message may hold."""
    config = architecture_config("ViT-H-14")
    vision = {**config["vision_cfg"]}
    text = {**config["text_cfg"], "width": 64, "heads": 1, "layers": 1}
    model = build_model({**config, "vision_cfg": vision, "text_cfg": text})
    tower = ImageTower(model, MEAN, STD).eval()
    path = tmp_path / "image_encoder.onnx"
    files = export_image_tower(tower, path, image_size=(224, 224), options=OnnxOptions())
    assert [file.name for file in files] == ["image_encoder.onnx", "image_encoder.onnx.data"]
    assert path.stat().st_size < 5e6
    assert files[1].stat().st_size > 2**31
    pixels = np.random.default_rng(0).random((3, 3, 224, 224), dtype=np.float32)
    with torch.no_grad():
        expected = tower(torch.from_numpy(pixels)).numpy()
    del model, tower
    gc.collect()
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"pixels": pixels})[0]
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
