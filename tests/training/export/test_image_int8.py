"""A static int8 image encoder: made, proven, refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper
from robustzs_training.evaluation.deployed.graph import GraphTwin
from robustzs_training.export.bundle import (
    BundleFacts,
    ImagePrecisions,
    export_open_clip_model,
)
from robustzs_training.export.onnx_export import OnnxOptions, export_image_tower
from robustzs_training.export.parity import open_session, prove_image_variant
from robustzs_training.export.quantize_image import (
    MIN_PICTURES,
    correct_biases,
    int8_image_precisions,
    on_levels,
    quantize_image_encoder,
)
from robustzs_training.export.tokenizers import tokenizer_of
from robustzs_training.export.towers import ImageTower
from robustzs_training.models import build_model

from robustzs.backends.onnx import OnnxBackend
from robustzs.bundle.manifest import LicenceRecord, SourceRecord
from robustzs.bundle.store import Bundle
from robustzs.errors import ExportError, ExportParityError
from robustzs.images.config import PreprocessConfig
from tests.training.tiny_clip import LITE, TINY

Float32Array = npt.NDArray[np.float32]
CNN: dict[str, Any] = {
    "embed_dim": 24,
    "custom_text": True,
    "vision_cfg": {**LITE["vision_cfg"], "timm_model_name": "test_byobnet"},
    "text_cfg": TINY["text_cfg"],
}
VIT = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 64}}


def pictures(n: int, seed: int = 0, size: int = 64) -> Float32Array:
    """Soft blobs of colour: neighbours alike, as in pictures."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(n, 3, 6, 6, generator=generator)
    large = torch.nn.functional.interpolate(small, (size, size), mode="bicubic")
    return large.clamp(0.0, 1.0).numpy()


def build(config: Mapping[str, Any]) -> torch.nn.Module:
    torch.manual_seed(3)
    return build_model(config).eval()


def export(config: Mapping[str, Any], output: Path, precisions: ImagePrecisions) -> Any:
    facts = BundleFacts(
        name="tiny",
        source=SourceRecord(description="random numbers"),
        preprocess=PreprocessConfig(image_size=(64, 64)),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        licences=(LicenceRecord(name="CC0-1.0", covers="everything"),),
    )
    return export_open_clip_model(
        build(config),
        config=config,
        tokenizer=tokenizer_of(config),
        facts=facts,
        output=output,
        image_precisions=precisions,
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return export(
        CNN, tmp_path_factory.mktemp("int8") / "tiny", int8_image_precisions(pictures(40))
    )


def cosines(found: Float32Array, expected: Float32Array) -> Float32Array:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((found * expected).sum(axis=1) / norms)


def test_both_precisions_ship_and_float32_stays_the_default(exported: Any) -> None:
    bundle = Bundle.load(exported.bundle.path)
    assert bundle.manifest.image_encoders == {
        "fp32": "image_encoder.onnx",
        "int8": "image_encoder.int8.onnx",
    }
    assert bundle.manifest.default_image_precision == "fp32"
    assert 0.9 <= dict(exported.parity.image_variants)["int8"] < 1.0
    sizes = [bundle.file(name).stat().st_size for name in bundle.manifest.image_encoders.values()]
    assert sizes[1] < sizes[0]
    assert "image graph of precision int8" in (bundle.path / "README.md").read_text("utf-8")


def test_int8_gives_nearly_float32s_features_whatever_the_batch(exported: Any) -> None:
    pixels = pictures(9, seed=5)
    exact = OnnxBackend(exported.bundle, threads=1).encode_image(pixels)
    backend = OnnxBackend(exported.bundle, threads=1, image_precision="int8")
    together = backend.encode_image(pixels)
    assert backend.image_precision == "int8"
    assert cosines(together, exact).min() > 0.95
    assert not np.array_equal(together, exact)
    for row in range(len(pixels)):
        np.testing.assert_array_equal(backend.encode_image(pixels[row : row + 1])[0], together[row])


def test_its_graph_is_static_and_plain(exported: Any) -> None:
    model = onnx.load(exported.bundle.file("image_encoder.int8.onnx"))
    kinds = [node.op_type for node in model.graph.node]
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= set(kinds)
    assert not any("Dynamic" in kind for kind in kinds)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert model.opset_import[0].version == exported.bundle.manifest.opset
    assert not model.metadata_props
    assert not model.graph.value_info
    # Weights are bytes, but for the first convolution's.
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    fed = {node.output[0]: node for node in model.graph.node}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    first, *others = convolutions
    assert weights[first.input[1]].data_type == onnx.TensorProto.FLOAT
    assert others
    for node in others:
        stored = fed[node.input[1]].input[0]
        assert weights[stored].data_type == onnx.TensorProto.INT8


def test_its_twin_in_torch_is_the_engines_graph(exported: Any) -> None:
    """What `robustzs evaluate` attacks from inside, and gradients reach the pixels."""
    path = exported.bundle.file("image_encoder.int8.onnx")
    pixels = pictures(6, seed=8)
    seen = torch.from_numpy(pixels).requires_grad_()
    features = GraphTwin(path)(seen)
    engine = open_session(path)(pixels)
    assert cosines(features.detach().numpy(), engine).min() > 0.99
    features.square().sum().backward()  # type: ignore[no-untyped-call]
    assert seen.grad is not None
    assert (seen.grad.abs().flatten(1).amax(dim=1) > 0.0).all()


def test_the_same_pictures_give_the_same_bytes(exported: Any, tmp_path: Path) -> None:
    source = exported.bundle.file("image_encoder.onnx")
    before = source.read_bytes()
    pixels = pictures(40)
    quantize_image_encoder(source, tmp_path / "one", pixels[:35])
    # The last five are for the proof alone.
    precisions = int8_image_precisions(pixels)
    precisions.quantisers["int8"](source, tmp_path / "two")
    np.testing.assert_array_equal(precisions.probes, pixels[35:])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "one").read_bytes()
    assert source.read_bytes() == before


def test_a_transformer_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "image_encoder.onnx", tmp_path / "int8.onnx"
    tower = ImageTower(build(VIT), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    export_image_tower(tower, source, image_size=(64, 64), options=OnnxOptions())
    with pytest.raises(ExportError, match="not made of convolutions") as caught:
        quantize_image_encoder(source, target, pictures(2))
    assert "fp32" in caught.value.hint
    assert not target.exists()


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ExportError, match="31 pictures are too few"):
        int8_image_precisions(pictures(MIN_PICTURES - 1))


def test_a_spoilt_graph_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    def spoil(source: Path, target: Path) -> None:
        model = onnx.load(source)
        head = next(node for node in reversed(model.graph.node) if node.op_type == "Gemm")
        tensor = next(each for each in model.graph.initializer if each.name == head.input[1])
        turned = -numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(turned, tensor.name))
        onnx.save(model, target)

    spoilt = ImagePrecisions(quantisers={"int8": spoil}, probes=pictures(5))
    with pytest.raises(ExportParityError, match="cosine to float32 on 5 pictures") as caught:
        export(CNN, tmp_path / "spoilt", spoilt)
    assert "calibrate on more pictures" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_features_that_depend_on_the_batch_are_refused(exported: Any) -> None:
    encode = open_session(exported.bundle.file("image_encoder.onnx"))

    def dynamic(array: Any) -> Any:
        features = encode(array)
        step = np.abs(features).max() / 127
        return np.round(features / step) * step

    with pytest.raises(ExportParityError, match="int8: alone or in a batch"):
        prove_image_variant("int8", dynamic, encode, pictures(5))


def two_convolutions() -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
        for name, shape in (("a", (8, 3, 3, 3)), ("a.bias", (8,)), ("b", (4, 8, 1, 1)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "a", "a.bias"], ["p"], name="first"),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "b"], ["y"], name="second"),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", c, h, h])]
        for name, c, h in (("x", 3, 16), ("y", 4, 14))
    )
    graph = helper.make_graph(nodes, "two", inputs, outputs, initializer=tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def outputs_of(model: onnx.ModelProto, pixels: Float32Array) -> Float32Array:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Float32Array = session.run(None, {"x": pixels})[0]
    return found


def test_biases_take_away_what_rounding_shifts() -> None:
    pixels = pictures(16, size=16)
    exact = outputs_of(two_convolutions(), pixels).mean(axis=(0, 2, 3))
    plain, corrected = two_convolutions(), two_convolutions()
    for tensor in plain.graph.initializer:
        if tensor.name in ("a", "b"):
            weight = on_levels(torch.from_numpy(numpy_helper.to_array(tensor).copy()))
            tensor.CopyFrom(numpy_helper.from_array(weight.numpy(), tensor.name))
    correct_biases(corrected, pixels, ["first", "second"])
    shifted = outputs_of(plain, pixels).mean(axis=(0, 2, 3)) - exact
    left = outputs_of(corrected, pixels).mean(axis=(0, 2, 3)) - exact
    assert np.abs(shifted).max() > 1e-3
    assert np.abs(left).max() < 1e-5
    stored = {tensor.name: tensor for tensor in corrected.graph.initializer}
    assert "a.bias" not in stored
    rounded = {tensor.name: tensor for tensor in plain.graph.initializer}
    for name in ("a", "b"):
        np.testing.assert_array_equal(
            numpy_helper.to_array(stored[name]), numpy_helper.to_array(rounded[name])
        )
