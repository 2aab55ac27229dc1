"""The model repository, read with Triton's own protobuf; no server is needed."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import external_data_helper
from robustzs_serving.triton import ServerOptions, write_repository
from robustzs_serving.triton.scale import scale_model

from robustzs.backends.triton import contract
from robustzs.bundle.store import Bundle
from robustzs.bundle.writer import exchange
from robustzs.cli.main import main
from robustzs.errors import BundleExistsError, BundleWriteError, ExportError, UsageError
from tests.factories import EMBED_DIM, IMAGE_SIZE, make_bundle, write_manifest
from tests.triton.server import read_config, stand_in, version_of

MODELS = {"tiny_image", "tiny_text", "tiny_scale", "tiny_image_bytes"}


def folders(repository: Path) -> set[str]:
    return {path.name for path in repository.iterdir()}


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def test_all_models_are_written_with_the_encoders_of_the_bundle(
    bundle: Bundle, tmp_path: Path
) -> None:
    written = write_repository(bundle, tmp_path / "models")
    assert {path.name for path in written} == folders(tmp_path / "models") == MODELS
    for model, file in (("tiny_image", "image_encoder.onnx"), ("tiny_text", "text_encoder.onnx")):
        version = version_of(tmp_path / "models" / model)
        assert version.name == str(contract.model_version(contract.tower_digest(bundle, file)))
        copied = version / "model.onnx"
        assert copied.read_bytes() == bundle.file(file).read_bytes()
        assert stat.S_IMODE(copied.stat().st_mode) == 0o644
    assert folders(tmp_path) == {"models"}


def test_the_image_encoder_is_configured_to_reject_in_time(bundle: Bundle, tmp_path: Path) -> None:
    options = ServerOptions(device="gpu", instances=2, threads=3, max_rows=16, queue_seconds=1.5)
    write_repository(bundle, tmp_path / "models", options=options)
    config = read_config(tmp_path / "models" / "tiny_image")
    assert (config.name, config.backend, config.max_batch_size) == ("tiny_image", "onnxruntime", 16)
    (given,), (got,) = config.input, config.output
    assert (given.name, list(given.dims)) == ("pixels", [3, IMAGE_SIZE, IMAGE_SIZE])
    assert (got.name, list(got.dims)) == ("image_features", [EMBED_DIM])
    policy = config.dynamic_batching.default_queue_policy
    assert policy.timeout_action == policy.REJECT
    assert policy.default_timeout_microseconds == 1_500_000
    assert policy.allow_timeout_override
    assert policy.max_queue_size == 256
    assert config.dynamic_batching.max_queue_delay_microseconds == 2_000
    (group,) = config.instance_group
    assert (group.kind, group.count) == (group.KIND_GPU, 2)
    (cuda,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert dict(cuda.parameters) == {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }
    settings = {key: value.string_value for key, value in config.parameters.items()}
    # the backend reads these numbers over the words above, as soon as there is any parameter
    assert settings["arena_extend_strategy"] == settings["cudnn_conv_algo_search"] == "1"
    assert settings["intra_op_thread_count"] == "3"
    assert settings["enable_mem_pattern"] == "0"
    assert settings[contract.BUNDLE] == bundle.digest
    assert settings[contract.DIGEST] == contract.tower_digest(bundle, "image_encoder.onnx")
    assert [one.batch_size for one in config.model_warmup] == [1, 16]


def test_on_the_cpu_nothing_of_cuda_is_named(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "models", options=ServerOptions(device="cpu"))
    for model in MODELS - {"tiny_image_bytes"}:
        config = read_config(tmp_path / "models" / model)
        assert [group.kind for group in config.instance_group] == [
            config.instance_group[0].KIND_CPU
        ]
        assert not config.optimization.execution_accelerators.gpu_execution_accelerator
        assert not {"arena_extend_strategy", "cudnn_conv_algo_search"} & set(config.parameters)


def test_the_ensemble_runs_the_version_with_its_weights(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "models")
    ensemble = tmp_path / "models" / "tiny_image_bytes"
    steps = {
        one.model_name: one.model_version for one in read_config(ensemble).ensemble_scheduling.step
    }
    assert set(steps) == {"tiny_scale", "tiny_image"}
    for model, number in steps.items():
        assert version_of(tmp_path / "models" / model).name == str(number)
    assert version_of(ensemble).name == str(steps["tiny_image"])
    assert list((version_of(ensemble)).iterdir()) == []


@pytest.mark.parametrize("digest", ["0" * 64, "f" * 64])
def test_versions_are_numbers_that_triton_takes(digest: str) -> None:
    assert 1 <= contract.model_version(digest) < 2**31


def test_the_stand_in_differs_in_the_backend_alone(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "models", options=ServerOptions(device="cpu"))
    stand_in(tmp_path / "models", tmp_path / "python")
    for model in MODELS:
        real, other = (read_config(tmp_path / name / model) for name in ("models", "python"))
        if model != "tiny_image_bytes":
            assert (real.backend, other.backend) == ("onnxruntime", "python")
            other.backend = real.backend
        assert real == other
        for path in version_of(tmp_path / "models" / model).iterdir():
            other_file = version_of(tmp_path / "python" / model) / path.name
            assert path.read_bytes() == other_file.read_bytes()


def test_bytes_are_divided_to_the_very_pixels() -> None:
    model = onnx.load_from_string(scale_model("bytes", "pixels", (3, 4, 5)))
    onnx.checker.check_model(model, full_check=True)
    values = np.arange(256).repeat(15).reshape(64, 3, 4, 5).astype(np.uint8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (pixels,) = session.run(None, {"bytes": values})
    np.testing.assert_array_equal(pixels, np.divide(values, np.float32(255), dtype=np.float32))


def test_models_that_are_there_are_kept(bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "models" / "other"
    other.mkdir(parents=True)
    write_repository(bundle, tmp_path / "models")
    assert folders(tmp_path / "models") == {"other", *MODELS}
    with pytest.raises(BundleExistsError, match="--force"):
        write_repository(bundle, tmp_path / "models")
    changed = tmp_path / "models" / "tiny_text" / "config.pbtxt"
    before = changed.read_bytes()
    changed.write_bytes(b"")
    write_repository(bundle, tmp_path / "models", force=True)
    assert changed.read_bytes() == before
    assert folders(tmp_path / "models") == {"other", *MODELS}
    assert folders(tmp_path) == {"models"}


def test_force_replaces_no_folder_that_is_no_model(bundle: Bundle, tmp_path: Path) -> None:
    mine = tmp_path / "models" / "tiny_text"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(BundleExistsError, match="no model"):
        write_repository(bundle, tmp_path / "models", force=True)
    assert folders(mine) == {"notes.txt"}


def test_a_full_disk_leaves_nothing_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(BundleWriteError, match="No space left"):
        write_repository(bundle, tmp_path / "models")
    assert os.listdir(tmp_path) == []


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("stop", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_stop_between_two_models_leaves_the_old_ones(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    target = tmp_path / "models"
    write_repository(bundle, target)
    shutil.rmtree(target / "tiny_scale")  # one is new, the others are replaced
    before = contents(target)
    n_swaps = 0

    def failing(new: Path, old: Path) -> None:
        nonlocal n_swaps
        n_swaps += 1
        if n_swaps == 2:
            raise stop
        exchange(new, old)

    monkeypatch.setattr("robustzs_serving.triton.repository.exchange", failing)
    with pytest.raises((BundleWriteError, KeyboardInterrupt)):
        write_repository(bundle, target, options=ServerOptions(max_rows=7), force=True)
    assert n_swaps == 3  # one that went well, one that failed, and the way back
    assert contents(target) == before
    assert folders(tmp_path) == {"models"}


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from robustzs.bundle.store import Bundle
from robustzs_serving.triton import ServerOptions, write_repository

copy, n_copies = shutil.copyfile, 0

def killed(*arguments, **options):
    global n_copies
    n_copies += 1
    if n_copies == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return copy(*arguments, **options)

shutil.copyfile = killed
write_repository(
    Bundle.load(Path(sys.argv[1])), Path(sys.argv[2]), options=ServerOptions(max_rows=7), force=True
)
"""


@pytest.mark.parametrize("fresh", [True, False])
def test_who_is_killed_leaves_the_repository_as_it_was(
    bundle: Bundle, tmp_path: Path, fresh: bool
) -> None:
    target = tmp_path / "models"
    if not fresh:
        write_repository(bundle, target)
    before = contents(target)
    command = [sys.executable, "-c", KILLED, str(bundle.path), str(target)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert target.exists() is not fresh
    assert contents(target) == before
    left = folders(tmp_path) - {"models"}
    assert all(name.startswith(".models.partial-") for name in left)  # beside it, not in it
    write_repository(bundle, target, force=True)
    assert folders(target) == MODELS


def test_external_data_goes_along(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "large")
    graph = onnx.load(folder / "image_encoder.onnx")
    external_data_helper.convert_model_to_external_data(
        graph, location="image_encoder.data", size_threshold=64
    )
    onnx.save(graph, folder / "image_encoder.onnx")
    write_manifest(folder, name="large")
    bundle = Bundle.load(folder)
    write_repository(bundle, tmp_path / "models")
    version = version_of(tmp_path / "models" / "large_image")
    assert folders(version) == {"model.onnx", "image_encoder.data"}
    session = onnxruntime.InferenceSession(
        version / "model.onnx", providers=["CPUExecutionProvider"]
    )
    pixels = np.zeros((2, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32)
    assert session.run(None, {"pixels": pixels})[0].shape == (2, EMBED_DIM)
    before = contract.tower_digest(bundle, "image_encoder.onnx")
    data = bytearray((folder / "image_encoder.data").read_bytes())
    data[0] ^= 1
    (folder / "image_encoder.data").write_bytes(data)
    write_manifest(folder, name="large")
    assert contract.tower_digest(Bundle.load(folder), "image_encoder.onnx") != before


def test_the_card_is_no_weight(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    before = Bundle.load(folder)
    (folder / "README.md").write_text("# other words\n")
    write_manifest(folder)
    after = Bundle.load(folder)
    assert before.digest != after.digest
    names = ("image_encoder.onnx", "text_encoder.onnx")
    assert [contract.tower_digest(before, name) for name in names] == [
        contract.tower_digest(after, name) for name in names
    ]


def test_operators_that_no_released_triton_knows_are_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "new")
    graph = onnx.load(folder / "image_encoder.onnx")
    graph.opset_import[0].version = 23
    onnx.save(graph, folder / "image_encoder.onnx")
    write_manifest(folder, name="new", opset=23)
    with pytest.raises(ExportError, match="operator set 23"):
        write_repository(Bundle.load(folder), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_form_of_file_that_no_released_triton_knows_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "new")
    graph = onnx.load(folder / "text_encoder.onnx")
    graph.ir_version = 11
    onnx.save(graph, folder / "text_encoder.onnx")
    write_manifest(folder, name="new")
    with pytest.raises(ExportError, match="IR version 11"):
        write_repository(Bundle.load(folder), tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "wrong", [{"instances": 0}, {"queue_seconds": float("nan")}, {"device": "tpu"}, {"max_rows": 0}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ServerOptions(**wrong)  # type: ignore[arg-type]


def test_the_command_writes_it(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "models"
    with pytest.raises(SystemExit) as done:
        main(["export", "--model", str(tiny_bundle), "--triton", str(target)])
    assert done.value.code in (0, None)
    assert folders(target) == MODELS
    assert str(target / "tiny_image_bytes") in capsys.readouterr().out
