"""ONNX Runtime behind ``base.Backend``.

Two rules guide it. The provider asked for is the provider got, or ``ProviderUnavailableError``:
ONNX Runtime by itself falls back to the CPU and says so only in a log. And what is not needed is
not loaded: each tower has its own session, created at its first use, so that a process whose text
features are cached never loads the text tower.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from robustzs.backends.base import Float32Array, Int64Array
from robustzs.backends.checks import check_features, check_pixels, check_token_ids
from robustzs.backends.threads import available_cpus
from robustzs.bundle.precisions import encoder_file
from robustzs.errors import (
    InferenceError,
    MissingExtraError,
    ProviderUnavailableError,
    RobustZSError,
    UsageError,
)

if TYPE_CHECKING:
    from robustzs.bundle.manifest import BundleManifest, Precision

Tower = Literal["image", "text"]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_LOG_ERRORS_ONLY = 3


class BundleLike(Protocol):
    """What a backend needs of ``robustzs.bundle.Bundle``."""

    @property
    def manifest(self) -> BundleManifest:
        """Its record."""
        ...

    def file(self, name: str, /) -> Path:
        """Path of one recorded file."""
        ...


class OnnxBackend:
    """Both towers of a bundle in ONNX Runtime; safe to call from several threads.

    Args:
        bundle: an opened bundle.
        device: ``cpu``, ``cuda``, ``cuda:N``, ``auto`` (CUDA where it really works, else the CPU)
            or the name of an execution provider.
        threads: threads for one operator, >= 1; by default the CPUs that this process may use.
        image_threads: the same of the image encoder, which is called from several threads at once
            where it is below ``threads``; by default ``threads``.
        image_precision: variant of the image encoder; by default the bundle's own choice.
        text_precision: variant of the text encoder; by default the bundle's own choice.

    Raises:
        UsageError: an unknown device, precision or number of threads.
        MissingExtraError: onnxruntime is not installed.
        ProviderUnavailableError: this onnxruntime has no such provider.
    """

    def __init__(
        self,
        bundle: BundleLike,
        *,
        device: str = "cpu",
        threads: int | None = None,
        image_threads: int | None = None,
        image_precision: Precision | None = None,
        text_precision: Precision | None = None,
    ) -> None:
        for n_threads in (threads, image_threads):
            if n_threads is not None and n_threads < 1:
                raise UsageError(f"threads must be at least 1, got {n_threads}")
        self._bundle = bundle
        manifest = bundle.manifest
        self.image_precision = image_precision or manifest.default_image_precision
        self.text_precision = text_precision or manifest.default_text_precision
        self._files: dict[Tower, str] = {
            "image": encoder_file(manifest.image_encoders, self.image_precision, "image"),
            "text": encoder_file(manifest.text_encoders, self.text_precision, "text"),
        }
        threads = threads or available_cpus()
        self._threads: dict[Tower, int] = {"image": image_threads or threads, "text": threads}
        self._sessions: dict[Tower, Any] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._provider, self._options = self._choose(device)

    @property
    def provider(self) -> str:
        """The execution provider in use; any other than the CPU's has been seen to work."""
        if self._provider != _CPU:
            self._session("image")
        return self._provider

    @property
    def text_signature(self) -> str:
        """Provider and precision of the text tower."""
        return f"onnxruntime {self._provider} {self.text_precision}"

    def encode_image(self, pixels: Float32Array) -> Float32Array:
        """Encode ``pixels`` ``[B, 3, H, W]`` in [0, 1] into raw features ``[B, D]``."""
        check_pixels(pixels, self._bundle.manifest)
        return self._run("image", "pixels", "image_features", pixels)

    def encode_text(self, token_ids: Int64Array) -> Float32Array:
        """Encode ``token_ids`` ``[B, T]`` into raw features ``[B, D]``."""
        check_token_ids(token_ids, self._bundle.manifest)
        return self._run("text", "token_ids", "text_features", token_ids)

    def close(self) -> None:
        """Free both sessions; a call in another thread finishes first."""
        with self._lock:
            self._closed = True
            self._sessions.clear()

    def _choose(self, device: str) -> tuple[str, dict[str, str]]:
        """Provider and its options for a device, as far as can be told without a session."""
        if device != "auto":
            return _provider_of(device)
        if _CUDA in load_onnxruntime().get_available_providers():
            self._provider, self._options = _provider_of("cuda")
            try:
                self._session("image")
                return self._provider, self._options
            except ProviderUnavailableError:
                pass  # "auto" asks for CUDA only where it works
        return _provider_of("cpu")

    def _session(self, tower: Tower) -> Any:
        """The session of a tower, created at its first use."""
        session = self._sessions.get(tower)
        if session is not None:
            return session
        with self._lock:
            if self._closed:
                raise InferenceError("the backend is closed", hint="load the classifier again")
            if tower not in self._sessions:
                self._sessions[tower] = self._create(tower)
            return self._sessions[tower]

    def _create(self, tower: Tower) -> Any:
        ort = load_onnxruntime()
        path = self._bundle.file(self._files[tower])
        providers: list[Any] = [(self._provider, self._options)]
        if self._provider != _CPU:
            providers.append(_CPU)  # for the few shape operators that accelerators leave out
        try:
            session = ort.InferenceSession(
                str(path), _session_options(ort, self._threads[tower]), providers=providers
            )
        except _engine_errors() as error:
            if self._provider != _CPU:
                raise _unavailable(self._provider) from error
            raise InferenceError(
                f"ONNX Runtime {ort.__version__} cannot load the {tower} encoder "
                f"({self._files[tower]}): {type(error).__name__}",
                hint="verify the bundle with `robustzs models verify`",
            ) from error
        if session.get_providers()[0] != self._provider:
            raise _unavailable(self._provider)
        return session

    def _run(
        self, tower: Tower, input_name: str, output_name: str, values: np.ndarray[Any, Any]
    ) -> Float32Array:
        session = self._session(tower)
        try:
            (features,) = session.run([output_name], {input_name: np.ascontiguousarray(values)})
        except _engine_errors() as error:
            # The engine's own words name paths of this machine and of its build: kept as the cause.
            raise InferenceError(
                f"the {tower} encoder failed on {values.dtype} {list(values.shape)} in "
                f"{self._provider}: {type(error).__name__}"
            ) from error
        return check_features(features, len(values), self._bundle.manifest.embed_dim, tower)


def _session_options(ort: ModuleType, threads: int) -> Any:
    """Options for a shared machine: explicit threads that sleep when idle, memory that is bounded.

    Spinning threads burn a core after every request and slow each other down under contention. A
    memory pattern is planned for one batch size and kept for each that comes by.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # weights outside the arena, which would round them up to powers of two
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


def _provider_of(device: str) -> tuple[str, dict[str, str]]:
    """Execution provider and options of a device name.

    Raises:
        UsageError: not a device.
        ProviderUnavailableError: this onnxruntime was built without it.
    """
    name, _, index = device.partition(":")
    options: dict[str, str] = {}
    if device == "cpu":
        return _CPU, options
    if name == "cuda" and (index.isdecimal() or device == "cuda"):
        provider = _CUDA
        options = {
            "device_id": str(int(index or "0")),
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
            # TF32 would move features by 1e-3 and with them the thresholds set on fp32 features
            "use_tf32": "0",
        }
    elif device.endswith("ExecutionProvider"):
        provider = device
    else:
        raise UsageError(
            f"unknown device {device!r}",
            hint="use cpu, cuda, cuda:N, auto or the name of an ONNX Runtime execution provider",
        )
    if provider not in load_onnxruntime().get_available_providers():
        raise _unavailable(provider)
    if provider == _CUDA:
        _preload_cuda()
    return provider, options


@cache
def _preload_cuda() -> None:
    """Load the CUDA libraries that pip installed, which the loader does not find by itself."""
    preload = getattr(load_onnxruntime(), "preload_dlls", None)
    if preload is not None:
        preload()


def _unavailable(provider: str) -> RobustZSError:
    ort = load_onnxruntime()
    hint = "use device cpu"
    if provider == _CUDA:
        hint = (
            "use device cpu, or install robustzs[gpu] in place of robustzs[cpu] on a machine whose "
            "CUDA version matches onnxruntime-gpu's"
        )
    return ProviderUnavailableError(
        f"{provider} was asked for and does not work here "
        f"(ONNX Runtime {ort.__version__} has {', '.join(ort.get_available_providers())})",
        hint=hint,
    )


@cache
def load_onnxruntime() -> ModuleType:
    """The module ``onnxruntime``, silenced; nothing of ours imports it in another way.

    Its official builds keep a device id and report to their maker, unless told not to before they
    are loaded. Whoever wants that sets ``ORT_DISABLE_TELEMETRY`` to 0.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu") from error
    return onnxruntime  # type: ignore[no-any-return]


def load_quantisers() -> ModuleType:
    """The module ``onnxruntime.quantization`` (needs the package onnx), silenced likewise."""
    load_onnxruntime()
    import onnxruntime.quantization.shape_inference

    return onnxruntime.quantization  # type: ignore[no-any-return]


@cache
def _engine_errors() -> tuple[type[Exception], ...]:
    """Every exception that ONNX Runtime raises; they share no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    return (*own, RuntimeError, ValueError)
