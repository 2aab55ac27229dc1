"""The twin of an ONNX graph: the engine's features, the file's weights, gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from robustzs_training.evaluation.deployed.graph import GraphTwin, facts_of
from robustzs_training.evaluation.deployed.straight_through import as_precision, levels_of
from robustzs_training.export.onnx_export import OnnxOptions, export_image_tower
from robustzs_training.export.towers import ImageTower
from robustzs_training.lite.quantize import quantize_text_encoder

from robustzs.bundle.registry import embedded_dir
from robustzs.errors import EvaluationError
from tests.factories import IMAGE_SIZE, make_bundle
from tests.training.evaluation.deployed_worlds import halved, levels
from tests.training.tiny_clip import TINY, make_clip


def engine(path: Path, pixels: np.ndarray, *, fused: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"pixels": row[None]})[0] for row in pixels]
    return np.concatenate(rows)


def some_pixels(size: int, n: int = 3) -> np.ndarray:
    return np.random.default_rng(1).random((n, 3, size, size), dtype=np.float32)


def difference(path: Path, size: int, *, fused: bool = True) -> float:
    """The largest of a feature, in the largest feature; and gradients reach the pixels."""
    pixels = some_pixels(size)
    expected = engine(path, pixels, fused=fused)
    shown = torch.from_numpy(pixels).requires_grad_()
    found = GraphTwin(path)(shown)
    found.square().sum().backward()  # type: ignore[no-untyped-call]
    assert shown.grad is not None
    assert bool((shown.grad.flatten(1).abs().amax(dim=1) > 0).all())
    return float(np.abs(found.detach().numpy() - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("graphs") / "tiny") / "image_encoder.onnx"


@pytest.mark.parametrize("form", ["dynamic", "qdq", "qdq-channels"])
def test_quantised_graphs_are_followed_level_by_level(
    colour: Path, tmp_path: Path, form: str
) -> None:
    path = levels(colour, tmp_path / "int8.onnx", form)
    exact = engine(colour, some_pixels(IMAGE_SIZE))
    rounded = engine(path, some_pixels(IMAGE_SIZE))
    assert np.abs(rounded - exact).max() > 1e-3 * np.abs(exact).max()  # it is another function
    assert difference(path, IMAGE_SIZE) < 1e-5
    assert facts_of(path).batch_dependent == (form == "dynamic")


def test_the_float32_graph_and_its_half_are_followed(colour: Path, tmp_path: Path) -> None:
    assert difference(colour, IMAGE_SIZE) < 1e-5
    path = halved(colour, tmp_path / "fp16.onnx")
    pixels = some_pixels(IMAGE_SIZE)
    rounding = np.abs(engine(path, pixels) - engine(colour, pixels)).max()
    found = GraphTwin(path)(torch.from_numpy(pixels)).numpy()
    assert np.array_equal(found, found.astype(np.float16))
    assert np.abs(found - engine(path, pixels)).max() < 5 * rounding
    assert difference(path, IMAGE_SIZE) < 5e-3


def test_a_row_of_the_twin_does_not_depend_on_its_neighbours(colour: Path, tmp_path: Path) -> None:
    twin = GraphTwin(levels(colour, tmp_path / "int8.onnx", "dynamic"))
    pixels = torch.from_numpy(some_pixels(IMAGE_SIZE))
    pixels[1] *= 0.2
    assert torch.equal(twin(pixels)[1:2], twin(pixels[1:2]))


@pytest.mark.slow
def test_a_vision_transformer_is_followed_whole_and_in_8_bits(tmp_path: Path) -> None:
    path = tmp_path / "vit.onnx"
    tower = ImageTower(make_clip(TINY), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    export_image_tower(tower, path, image_size=(32, 32), options=OnnxOptions())
    assert difference(path, 32) < 1e-5
    blocks = tmp_path / "blocks.onnx"
    quantize_text_encoder(path, blocks)
    assert "com.microsoft:MatMulNBits" in facts_of(blocks).kinds
    assert difference(blocks, 32) < 1e-5
    static = levels(path, tmp_path / "qdq.onnx", "qdq")
    # A level that flips early moves what follows, and fused kernels round elsewhere.
    assert difference(static, 32, fused=False) < 0.03
    assert difference(static, 32) < 0.06


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    """One product by hand: levels 0..255 with zero point 128, blocks of 32, 8 bits."""
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (5, 2, 32), dtype=np.uint8)
    scales = rng.random((5, 2), dtype=np.float32) + 0.1
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"], axis=1),
        helper.make_node(
            "MatMulNBits", ["flat", "w", "s", "", "", "b"], ["image_features"],
            domain="com.microsoft", K=64, N=5, bits=8, block_size=32,
        ),
    ]  # fmt: skip
    bias = rng.random(5, dtype=np.float32)
    tensors = {"w": packed, "s": scales.reshape(-1), "b": bias}
    path = save(nodes, tensors, tmp_path, channels=64)
    pixels = rng.random((2, 64, 4, 4), dtype=np.float32)
    weight = ((packed.astype(float) - 128) * scales[..., None]).reshape(5, 64)
    expected = pixels.mean(axis=(2, 3)) @ weight.T + bias
    assert np.allclose(GraphTwin(path)(torch.from_numpy(pixels)).numpy(), expected, rtol=1e-4)
    assert np.allclose(engine(path, pixels), expected, rtol=1e-4, atol=1e-4)


def test_what_has_no_counterpart_is_named(colour: Path, tmp_path: Path) -> None:
    path = levels(colour, tmp_path / "int8.onnx", "qoperator")
    assert facts_of(path).unknown
    with pytest.raises(EvaluationError, match=r"com\.microsoft:QLinear"):
        GraphTwin(path)
    node = helper.make_node("AveragePool", ["pixels"], ["image_features"], kernel_shape=[2, 2],
                            pads=[1, 1, 1, 1])  # fmt: skip
    padded = save([node], {}, tmp_path, channels=3)
    with pytest.raises(EvaluationError, match="padding"):
        GraphTwin(padded)(torch.rand(1, 3, 4, 4))


def test_straight_through_rounds_and_passes_gradients() -> None:
    values = torch.tensor([-3.0, 0.24, 0.26, 9.0], requires_grad=True)
    found = levels_of(values, torch.tensor(0.5), torch.tensor(2.0), 0, 7)
    assert found.tolist() == [0.0, 2.0, 3.0, 7.0]
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 2.0, 2.0, 0.0]
    half = as_precision(torch.tensor([1.0 + 2**-12, 1e6]), torch.float16)
    assert half.tolist() == [1.0, float("inf")]


@pytest.mark.slow
def test_the_embedded_models_image_tower_is_followed() -> None:
    path = embedded_dir() / "robustzs-lite-clean" / "image_encoder.onnx"
    assert difference(path, 224) < 1e-5


def save(
    nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], folder: Path, *, channels: int
) -> Path:
    graph = helper.make_graph(
        nodes,
        "hand",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["b", channels, 4, 4])],
        [helper.make_tensor_value_info("image_features", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    path = folder / "hand.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path
