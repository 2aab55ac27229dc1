"""``config.pbtxt`` of each model, made with Triton's own protobuf.

What is set and why (measured settings: those of ``robustzs.backends.onnx``):

- Requests wait for company at most ``queue_delay_ms`` and in line at most ``queue_seconds``; what
  waits longer, or finds ``max_queue`` before it, is rejected: a client that is told so in time asks
  another server, or later. A client may ask for less time, not for more.
- Two instances: with a queue policy, Triton (all releases since 23.09) does not fetch ahead, and a
  request that comes while no instance waits does not wake its batcher, which then looks again after
  half a second. One instance alone loses most of its throughput to that.
- No memory pattern: it is planned for one batch size and kept for each that comes by. Weights
  outside the arena, which would round them up to powers of two. (Each instance has a copy of them:
  no released Triton shares sessions.)
- Explicit threads: ONNX Runtime would take every core of the host for each model.
- On GPUs no TF32, which would move features by 1e-3 and with them the thresholds of the bundle. The
  other settings of CUDA stand twice: where a model has parameters, the onnxruntime backend takes
  them from there, as numbers, and forgets those of the accelerator.
- Every model runs once with one row and once with a full batch before it is called ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from robustzs.backends.triton import contract
from robustzs.backends.triton.contract import Tensor, Tower
from robustzs.backends.triton.transport import config_messages
from robustzs.bundle.manifest import BundleManifest
from robustzs.errors import UsageError

Device = Literal["auto", "cpu", "gpu"]
SCALE_VERSION = 1
"""Of the model that divides by 255: it has no weights."""
_WARM_TEXT = 8  # tokens, where any number is taken
_KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}
_CUDA = {
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
    "use_tf32": "0",
}
_CUDA_NUMBERS = {"arena_extend_strategy": "1", "cudnn_conv_algo_search": "1"}


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What depends on the server rather than on the bundle.

    Args:
        device: of the instances; ``auto`` takes the GPUs of the server where it has some.
        instances: of each encoder: on each GPU, or on the CPU; each with a copy of the weights.
        threads: of one operator on the CPU, for each instance.
        max_rows: of a batch.
        queue_delay_ms: that a request waits for others to share its batch.
        max_queue: requests that wait; more are rejected.
        queue_seconds: that a request waits; then it is rejected.

    Raises:
        UsageError: a value is out of range.
    """

    device: Device = "auto"
    instances: int = 2
    threads: int = 1
    max_rows: int = 32
    queue_delay_ms: float = 2.0
    max_queue: int = 256
    queue_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.device not in _KINDS:
            raise UsageError(f"unknown device {self.device!r}", hint=", ".join(_KINDS))
        bounds: dict[str, tuple[float, float]] = {
            "instances": (1, 64),
            "threads": (1, 1024),
            "max_rows": (1, 1024),
            "queue_delay_ms": (0.0, 1000.0),
            "max_queue": (1, 1_000_000),
            "queue_seconds": (0.001, 3600.0),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:  # written so that NaN fails, too
                raise UsageError(f"{name} must be from {low:g} to {high:g}, got {value!r}")


def encoder_config(
    manifest: BundleManifest, tower: Tower, options: ServerOptions, record: Mapping[str, str]
) -> Any:
    """The configuration of an encoder.

    Args:
        manifest: of the bundle.
        tower: which encoder.
        options: of the server.
        record: parameters that say what it is.
    """
    given, got = contract.tower_tensors(manifest, tower)
    config = _onnx_model(contract.model_name(manifest.name, tower), given, got, options)
    batching = config.dynamic_batching
    batching.max_queue_delay_microseconds = round(options.queue_delay_ms * 1e3)
    policy = batching.default_queue_policy
    policy.timeout_action = policy.REJECT
    policy.default_timeout_microseconds = round(options.queue_seconds * 1e6)
    policy.allow_timeout_override = True
    policy.max_queue_size = options.max_queue
    for name, value in record.items():
        config.parameters[name].string_value = value
    if options.device != "cpu":
        cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
        cuda.parameters.update(_CUDA)
        for key, value in _CUDA_NUMBERS.items():
            config.parameters[key].string_value = value
    for rows in sorted({1, options.max_rows}):
        _warm_up(config, given, rows)
    return config


def scale_config(manifest: BundleManifest, options: ServerOptions) -> Any:
    """The configuration of the model that divides bytes by 255; on the CPU, where bytes arrive."""
    _, pixels = _scale_tensors(manifest)
    name = contract.model_name(manifest.name, "scale")
    on_cpu = ServerOptions(device="cpu", instances=options.instances, max_rows=options.max_rows)
    return _onnx_model(name, contract.byte_tensor(manifest), pixels, on_cpu)


def ensemble_config(
    manifest: BundleManifest, options: ServerOptions, record: Mapping[str, str]
) -> Any:
    """The configuration of the ensemble: bytes to pixels to features.

    Args:
        manifest: of the bundle.
        options: of the server.
        record: parameters of the image encoder, whose version it takes.
    """
    pixels, features = contract.tower_tensors(manifest, "image")
    config = _model(
        contract.model_name(manifest.name, "image_bytes"),
        contract.byte_tensor(manifest),
        features,
        options,
    )
    config.platform = "ensemble"
    for name, value in record.items():
        config.parameters[name].string_value = value
    source = contract.byte_tensor(manifest).name
    version = contract.model_version(record[contract.DIGEST])
    steps: tuple[tuple[contract.Part, int, str, str], ...] = (
        ("scale", SCALE_VERSION, source, pixels.name),
        ("image", version, pixels.name, features.name),
    )
    for part, number, before, after in steps:
        step = config.ensemble_scheduling.step.add(
            model_name=contract.model_name(manifest.name, part), model_version=number
        )
        step.input_map[before] = before
        step.output_map[after] = after
    return config


def _scale_tensors(manifest: BundleManifest) -> tuple[Tensor, Tensor]:
    pixels, _ = contract.tower_tensors(manifest, "image")
    return contract.byte_tensor(manifest), pixels


def _onnx_model(name: str, given: Tensor, got: Tensor, options: ServerOptions) -> Any:
    config = _model(name, given, got, options)
    config.backend = "onnxruntime"
    kind = getattr(config_messages().ModelInstanceGroup, _KINDS[options.device])
    config.instance_group.add(kind=kind, count=options.instances)
    settings = {
        "intra_op_thread_count": str(options.threads),
        "inter_op_thread_count": "1",
        "execution_mode": "0",
        "enable_mem_pattern": "0",
        "session.use_device_allocator_for_initializers": "1",
    }
    for key, value in settings.items():
        config.parameters[key].string_value = value
    return config


def _model(name: str, given: Tensor, got: Tensor, options: ServerOptions) -> Any:
    messages = config_messages()
    config = messages.ModelConfig(name=name, max_batch_size=options.max_rows)
    for side, tensor in ((config.input, given), (config.output, got)):
        side.add(
            name=tensor.name,
            data_type=getattr(messages, f"TYPE_{tensor.kind}"),
            dims=tensor.dims,
        )
    return config


def _warm_up(config: Any, given: Tensor, rows: int) -> None:
    one = config.model_warmup.add(name=f"{rows} rows", batch_size=rows)
    tensor = one.inputs[given.name]
    tensor.data_type = getattr(config_messages(), f"TYPE_{given.kind}")
    tensor.dims.extend(_WARM_TEXT if size < 0 else size for size in given.dims)
    tensor.zero_data = True
