"""One Triton server: verified before its first answer, and again after every failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from robustzs.backends.triton import contract
from robustzs.backends.triton.contract import BundleLike, Tensor, Tower
from robustzs.backends.triton.failures import no_triton
from robustzs.backends.triton.target import Address, TritonTarget
from robustzs.backends.triton.transport import Document, Transport, connect
from robustzs.bundle.manifest import Precision
from robustzs.errors import (
    BackendError,
    BackendMismatchError,
    BackendUnavailableError,
    InferenceError,
)

_FIRST_REST = 0.25
_LONGEST_REST = 5.0
_CHECK_SECONDS = 5.0  # for what is asked of a server beside inferences
_MAX_BYTES = 60_000_000  # of one request; over HTTP, Triton takes 64 MB
_NANO = 1e-9


@dataclass(frozen=True)
class ServedTower:
    """An encoder as a server has it.

    Attributes:
        model: its name there.
        version: the number that its weights have.
        precision: which of the bundle's variants it is.
        max_rows: of one request.
        kinds: of its instances, such as ``KIND_CPU``.
        bytes_model: the ensemble that takes bytes, where there is one.
    """

    model: str
    version: int
    precision: Precision
    max_rows: int
    kinds: tuple[str, ...]
    bytes_model: str | None = None


@dataclass(frozen=True, kw_only=True)
class TowerStatistics:
    """What a server counted of one encoder since it loaded it.

    Attributes:
        model: its name there.
        requests: answered.
        failures: requests that failed or were rejected.
        rows: in all requests.
        executions: of the model; fewer than requests where batches form.
        queue_seconds: that all requests waited.
        compute_seconds: that all requests were computed, copies included.
    """

    model: str
    requests: int
    failures: int
    rows: int
    executions: int
    queue_seconds: float
    compute_seconds: float


@dataclass(frozen=True, kw_only=True)
class ServerReport:
    """How one server does.

    Attributes:
        url: of it.
        error: what is wrong with it, or ``None`` where it can answer.
        statistics: of both encoders; empty where it cannot answer.
    """

    url: str
    error: BackendError | None
    statistics: tuple[TowerStatistics, ...] = field(default=())


class Endpoint:
    """A server with both encoders of a bundle. Safe to use from several threads.

    Args:
        address: of it.
        target: deadline and certificates.
        bundle: whose weights it must have.
        wanted: precision of an encoder, where not any of the bundle's will do.
        digests: of every variant of each encoder, with its precision.
    """

    def __init__(
        self,
        address: Address,
        target: TritonTarget,
        bundle: BundleLike,
        wanted: Mapping[Tower, Precision],
        digests: Mapping[Tower, Mapping[str, Precision]],
    ) -> None:
        self.address = address
        self._target = target
        self._manifest = bundle.manifest
        self._wanted = wanted
        self._digests = digests
        self._transport: Transport = connect(address, target)
        self._lock = threading.Lock()  # of a verification
        self._towers: Mapping[Tower, ServedTower] | None = None
        self._seen: Mapping[Tower, ServedTower] | None = None  # kept when it fails
        self._n_refusals = 0
        self._refusal: BackendError | None = None
        self._health = threading.Lock()  # of the two below
        self._n_failures = 0
        self._rests_until = 0.0

    @property
    def failing(self) -> bool:
        """Whether it failed when it was last asked, so that others are asked first."""
        return self._n_failures > 0

    @property
    def seen(self) -> Mapping[Tower, ServedTower] | None:
        """What it served when it was last verified; asks nobody, so it never blocks."""
        return self._seen

    def towers(self) -> Mapping[Tower, ServedTower]:
        """What it serves, verified.

        Raises:
            BackendUnavailableError: it does not answer, or not with these weights.
        """
        known = self._towers
        if known is not None:
            return known
        n_refusals = self._n_refusals
        with self._lock:  # a crowd that finds it unverified asks once, and shares what comes of it
            known, refusal = self._towers, self._refusal
            if known is not None:
                return known
            if refusal is not None and self._n_refusals > n_refusals:
                raise type(refusal)(refusal.message, hint=refusal.hint) from refusal
            try:
                known = self._towers = self._verify()
            except BackendError as error:
                self._refusal = error
                self._n_refusals += 1
                raise
            return known

    def infer(
        self, tower: Tower, values: npt.NDArray[Any], *, as_bytes: bool
    ) -> list[npt.NDArray[Any]]:
        """Raw outputs of an encoder, for as many rows at a time as it takes.

        Args:
            tower: which encoder.
            values: its input, or bytes.
            as_bytes: ask the ensemble that takes them.

        Raises:
            BackendError: it failed, or does not answer.
        """
        served = self.towers()[tower]
        tensor, _ = contract.tower_tensors(self._manifest, tower)
        model = served.model
        if as_bytes and served.bytes_model is not None:
            tensor, model = contract.byte_tensor(self._manifest), served.bytes_model
        elif as_bytes:
            values = np.divide(values, np.float32(255.0), dtype=np.float32)
        rows = min(served.max_rows, max(1, _MAX_BYTES // values[0].nbytes))
        return [
            self._transport.infer(
                model,
                served.version,
                tensor,
                np.ascontiguousarray(values[start : start + rows]),
                contract.OUTPUTS[tower],
                self._target.seconds,
            )
            for start in range(0, len(values), rows)
        ]

    def succeeded(self) -> None:
        """It answered."""
        if self._n_failures:
            with self._health:
                self._n_failures, self._rests_until = 0, 0.0

    def failed(self) -> None:
        """It did not: it may have been exchanged for another, so it is verified anew."""
        with self._health:
            self._towers = None
            if time.monotonic() >= self._rests_until:  # requests that fail together count once
                self._rest()

    def look_again(self) -> None:
        """After its rest, see in the background whether a server that failed is back."""
        with self._health:
            if not self._n_failures or time.monotonic() < self._rests_until:
                return
            self._rest()  # the next look comes after this one
        threading.Thread(target=self.report, name="robustzs-triton", daemon=True).start()

    def report(self) -> ServerReport:
        """Verify it now, and ask what it counted."""
        url = str(self.address)
        try:
            towers = self._verify()
            counted = tuple(self._counted(tower.model) for tower in towers.values())
        except BackendError as error:
            self.failed()
            return ServerReport(url=url, error=error)
        self._towers = towers
        self.succeeded()
        return ServerReport(url=url, error=None, statistics=counted)

    def close(self) -> None:
        """Cancel what runs there."""
        self._transport.close()

    def _rest(self) -> None:
        rest = min(_LONGEST_REST, _FIRST_REST * 2.0 ** min(self._n_failures, 10))
        self._n_failures += 1
        self._rests_until = time.monotonic() + rest

    @property
    def _patience(self) -> float:
        return min(_CHECK_SECONDS, self._target.seconds)

    def _verify(self) -> dict[Tower, ServedTower]:
        towers: tuple[Tower, ...] = ("image", "text")
        with self._read():
            self._seen = found = {tower: self._verify_tower(tower) for tower in towers}
        return found

    @contextmanager
    def _read(self) -> Iterator[None]:
        """What is no answer of a Triton (a proxy's page, say) is a server that is not there."""
        try:
            yield
        except InferenceError as error:
            raise no_triton(error.message, where=str(self.address)) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise no_triton(str(error), where=str(self.address)) from error

    def _verify_tower(self, tower: Tower) -> ServedTower:
        name = contract.model_name(self._manifest.name, tower)
        where = str(self.address)
        given, got = contract.tower_tensors(self._manifest, tower)
        config = self._transport.config(name, self._patience)
        digest, precision = self._weights(tower, config)
        _check_tensors(config, given, got, where)
        version = contract.model_version(digest)
        self._check_ready(name, version)
        bytes_model: str | None = None
        if tower == "image":
            bytes_model = contract.model_name(self._manifest.name, "image_bytes")
            ensemble = self._transport.config(bytes_model, self._patience)
            self._weights(tower, ensemble)
            _check_tensors(ensemble, contract.byte_tensor(self._manifest), got, where)
            self._check_ready(bytes_model, version)
        groups = config.get("instance_group", [])
        return ServedTower(
            model=name,
            version=version,
            precision=precision,
            max_rows=int(config.get("max_batch_size", 0)),
            kinds=tuple(sorted({str(group.get("kind", "KIND_AUTO")) for group in groups})),
            bytes_model=bytes_model,
        )

    def _check_ready(self, model: str, version: int) -> None:
        if not self._transport.is_ready(model, version, self._patience):
            raise BackendUnavailableError(
                f"Triton at {self.address} has {model}, and version {version} of it is not ready",
                hint="ask again later",
            )

    def _weights(self, tower: Tower, config: Document) -> tuple[str, Precision]:
        """What a model runs: its digest, and which of the bundle's variants it is."""
        model = config.get("name")
        digest = _parameter(config, contract.DIGEST)
        precision = self._digests[tower].get(digest)
        if precision is None:
            raise BackendMismatchError(
                f"Triton at {self.address} runs other weights as {model}: digest "
                f"{digest[:12] or 'none'}, the bundle {self._manifest.name} has "
                f"{', '.join(known[:12] for known in self._digests[tower])}",
                hint="write its repository anew with `robustzs export --triton`, or ask for the "
                "bundle that it was written from",
            )
        if self._wanted.get(tower, precision) != precision:
            raise BackendMismatchError(
                f"Triton at {self.address} runs {model} in {precision}, asked for was "
                f"{self._wanted[tower]}"
            )
        return digest, precision

    def _counted(self, model: str) -> TowerStatistics:
        with self._read():
            document = self._transport.statistics(model, self._patience)
            return _statistics(model, document)


def _statistics(model: str, document: Document) -> TowerStatistics:
    of_model: Document = next(iter(document.get("model_stats", [])), {})
    times = of_model.get("inference_stats", {})

    def seconds(name: str) -> float:
        return float(times.get(name, {}).get("ns", 0)) * _NANO

    return TowerStatistics(
        model=model,
        requests=int(times.get("success", {}).get("count", 0)),
        failures=int(times.get("fail", {}).get("count", 0)),
        rows=int(of_model.get("inference_count", 0)),
        executions=int(of_model.get("execution_count", 0)),
        queue_seconds=seconds("queue"),
        compute_seconds=sum(seconds(f"compute_{part}") for part in ("input", "infer", "output")),
    )


def _parameter(config: Document, name: str) -> str:
    value = config.get("parameters", {}).get(name, {})
    return str(value.get("string_value", ""))


def _check_tensors(config: Document, given: Tensor, got: Tensor, where: str) -> None:
    for side, wanted in (("input", given), ("output", got)):
        found = [
            Tensor(
                str(tensor.get("name")),
                str(tensor.get("data_type", "")).removeprefix("TYPE_"),  # type: ignore[arg-type]
                tuple(int(size) for size in tensor.get("dims", [])),
            )
            for tensor in config.get(side, [])
        ]
        if found != [wanted] or int(config.get("max_batch_size", 0)) < 1:
            raise BackendMismatchError(
                f"Triton at {where} has {config.get('name')} with {side} {found}, the bundle needs "
                f"{wanted}, in batches",
                hint="write its repository anew with `robustzs export --triton`",
            )
