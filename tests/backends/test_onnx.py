from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from robustzs.backends.onnx import OnnxBackend
from robustzs.bundle.manifest import BundleManifest
from robustzs.errors import InferenceError, ProviderUnavailableError, UsageError
from tests.factories import EMBED_DIM, IMAGE_SIZE, VOCABULARY


def opened(folder: Path) -> Any:
    manifest = BundleManifest.model_validate_json((folder / "bundle.json").read_bytes())
    return SimpleNamespace(manifest=manifest, file=lambda name: folder / name)


def one_image() -> Any:
    return np.full((1, 3, IMAGE_SIZE, IMAGE_SIZE), 0.5, np.float32)


@pytest.mark.parametrize("device", ["cpu", "CPUExecutionProvider"])
def test_the_cpu_is_called_by_two_names(tiny_bundle: Path, device: str) -> None:
    backend = OnnxBackend(opened(tiny_bundle), device=device, threads=1)
    assert backend.provider == "CPUExecutionProvider"
    assert backend.encode_image(one_image()).shape == (1, EMBED_DIM)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="built with CUDA"
)
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:12", "TensorrtExecutionProvider"])
def test_a_provider_that_is_not_there_is_an_error_not_a_fallback(
    tiny_bundle: Path, device: str
) -> None:
    with pytest.raises(ProviderUnavailableError, match="does not work here"):
        OnnxBackend(opened(tiny_bundle), device=device)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="built with CUDA"
)
def test_auto_is_the_cpu_where_there_is_nothing_else(tiny_bundle: Path) -> None:
    assert OnnxBackend(opened(tiny_bundle), device="auto").provider == "CPUExecutionProvider"


class _SilentFallback:
    """What ONNX Runtime does when CUDA's libraries do not load: it runs on the CPU and logs."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_a_silent_fallback_is_found_out(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", _SilentFallback)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    with pytest.raises(ProviderUnavailableError, match=r"robustzs\[gpu\]"):
        OnnxBackend(opened(tiny_bundle), device="cuda").encode_image(one_image())
    with pytest.raises(ProviderUnavailableError):
        _ = OnnxBackend(opened(tiny_bundle), device="cuda").provider
    assert OnnxBackend(opened(tiny_bundle), device="auto").provider == "CPUExecutionProvider"


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:x", "cpu:0", "CUDA"])
def test_unknown_devices_are_refused(tiny_bundle: Path, device: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        OnnxBackend(opened(tiny_bundle), device=device)


def test_options_are_checked(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="threads must be at least 1, got 0"):
        OnnxBackend(opened(tiny_bundle), threads=0)
    with pytest.raises(UsageError, match="threads must be at least 1, got -1"):
        OnnxBackend(opened(tiny_bundle), image_threads=-1)
    with pytest.raises(UsageError, match="no image encoder of precision 'fp16'"):
        OnnxBackend(opened(tiny_bundle), image_precision="fp16")
    with pytest.raises(UsageError, match="no text encoder of precision 'int8'"):
        OnnxBackend(opened(tiny_bundle), text_precision="int8")


def test_a_tower_that_is_not_used_is_not_loaded(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    (folder / "text_encoder.onnx").write_bytes(b"not a graph")
    backend = OnnxBackend(opened(folder))
    assert backend.encode_image(one_image()).shape == (1, EMBED_DIM)
    with pytest.raises(InferenceError, match="cannot load the text encoder") as caught:
        backend.encode_text(np.asarray([[4, 5]], np.int64))
    assert str(tmp_path) not in str(caught.value)


def test_engine_errors_are_wrapped_without_paths(tiny_bundle: Path) -> None:
    backend = OnnxBackend(opened(tiny_bundle))
    with pytest.raises(InferenceError, match="the text encoder failed") as caught:
        backend.encode_text(np.asarray([[len(VOCABULARY) + 7]], np.int64))
    assert caught.value.__cause__ is not None
    assert "/" not in caught.value.message


def constant_graph(value: float, width: int) -> onnx.ModelProto:
    """``pixels -> image_features`` that gives one value whatever it sees."""
    nodes = [
        helper.make_node("ReduceMax", ["pixels"], ["top"], keepdims=1),
        helper.make_node("Flatten", ["top"], ["flat"], axis=1),
        helper.make_node("Mul", ["flat", "zeros"], ["nothing"]),
        helper.make_node("Add", ["nothing", "value"], ["image_features"]),
    ]
    pixels = helper.make_tensor_value_info(
        "pixels", TensorProto.FLOAT, ["batch", 3, IMAGE_SIZE, IMAGE_SIZE]
    )
    output = helper.make_tensor_value_info("image_features", TensorProto.FLOAT, [1, width])
    constants = [
        helper.make_tensor("zeros", TensorProto.FLOAT, [1, width], [0.0] * width),
        helper.make_tensor("value", TensorProto.FLOAT, [1], [value]),
    ]
    graph = helper.make_graph(nodes, "constant", [pixels], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("value", "width", "message"),
    [
        (float("nan"), EMBED_DIM, "not finite"),
        (float("inf"), EMBED_DIM, "not finite"),
        (1.0, EMBED_DIM + 1, r"gave shape \[1, 17\] where the bundle promises \[1, 16\]"),
    ],
)
def test_what_a_graph_gives_is_checked(
    tiny_bundle: Path, tmp_path: Path, value: float, width: int, message: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    onnx.save(constant_graph(value, width), folder / "image_encoder.onnx")
    with pytest.raises(InferenceError, match=message):
        OnnxBackend(opened(folder)).encode_image(one_image())


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_is_silenced_unless_told_otherwise(before: str | None, after: str) -> None:
    given = {} if before is None else {"ORT_DISABLE_TELEMETRY": before}
    hidden = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    code = (
        "import os, sys; from robustzs.backends.onnx import load_onnxruntime; "
        "assert 'onnxruntime' not in sys.modules; "
        "assert load_onnxruntime() is sys.modules['onnxruntime']; "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**hidden, "PYTHONPATH": os.pathsep.join(sys.path), **given},
    )
    assert done.stdout.strip() == after
