"""One decode process, seen from the one thread that talks to it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Literal

import numpy as np
import numpy.typing as npt

from robustzs.images.config import PreprocessConfig
from robustzs.images.limits import ImageLimits
from robustzs_serving.decode import wire
from robustzs_serving.errors import DecodeCrashedError, DecodeTimeoutError, NotReadyError
from robustzs_serving.observe.metrics import Metrics

UInt8Array = npt.NDArray[np.uint8]

_logger = logging.getLogger(__name__)

# -I: no PYTHON* variables, no user site, no current folder; the path is the service's own.
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]);"
    "from robustzs_serving.decode.worker import main; main()"
)
_START_SECONDS = 60.0
_END_SECONDS = 2.0
_BYTES_PER_PIXEL = 24  # the picture, its turned copy, 16-bit and float rows, the codec's own
_BYTES_BESIDE = 1 << 30  # address space of the interpreter and its libraries


class DecodeSlot:
    """A place for a decode process; a process that fails is replaced by a new one.

    Not safe to use from two threads at once, but for ``end``.

    Args:
        preprocess: rule of the model.
        limits: on every image.
        seconds: that one image may take.
        memory_bytes: address space that the process may have; by default what the largest image
            of ``limits`` needs.
        metrics: what is counted.
    """

    def __init__(
        self,
        preprocess: PreprocessConfig,
        limits: ImageLimits,
        seconds: float,
        memory_bytes: int | None,
        metrics: Metrics,
    ) -> None:
        self._size = preprocess.image_size
        self._seconds = seconds
        self._metrics = metrics
        self._settings = json.dumps(
            {
                "preprocess": preprocess.model_dump(mode="json"),
                "limits": asdict(limits),
                "max_bytes": memory_bytes or limits.max_pixels * _BYTES_PER_PIXEL + _BYTES_BESIDE,
            }
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._ready = False

    @property
    def pid(self) -> int | None:
        """Of the process that takes work, ``None`` where there is none, or it is not warm yet."""
        process = self._process
        if process is None or not self._ready or process.poll() is not None:
            return None
        return process.pid

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, warm or about to be."""
        process = self._process
        return process is not None and process.poll() is None

    def start(self) -> None:
        """Start a process, if there is none, and wait until it is warm.

        Raises:
            NotReadyError: it does not come up.
        """
        if self._process is not None and self._process.poll() is not None:
            self._replace("crashed")  # while it was idle: no image's fault
        for is_last in (False, True):
            if self._connection is None:
                self._spawn()
            if self._ready or self._becomes_ready():
                return
            if is_last:
                raise _unavailable()

    def decode(self, data: bytes) -> UInt8Array:
        """Pixels ``[3, H, W]`` of one image file, not yet divided by 255.

        Where the process dies, the image is tried once more in a new one: who killed it is not
        known.

        Raises:
            ImageError: what is wrong with the image.
            DecodeTimeoutError: it took too long; the process was killed.
            DecodeCrashedError: two processes died of it.
            NotReadyError: no process comes up.
        """
        for _ in range(2):
            self.start()
            try:
                return self._exchange(data)
            except TimeoutError as error:
                self._replace("timeout")
                raise DecodeTimeoutError(
                    f"decoding the image took more than {self._seconds:g} s",
                    hint="save it smaller, or in another format",
                ) from error
            except wire.Gone:
                self._replace("crashed")
        raise DecodeCrashedError(
            "the image cannot be decoded: its decoder died of it twice",
            hint="save it in another format",
        )

    def end(self) -> None:
        """End the process: at once if it does not end by itself."""
        connection, process = self._connection, self._process
        self._connection = self._process = None
        self._ready = False
        if connection is not None:
            connection.close()
        if process is not None:
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _exchange(self, data: bytes) -> UInt8Array:
        connection = self._connection
        if connection is None:
            raise wire.Gone("no connection")
        deadline = time.monotonic() + self._seconds
        height, width = self._size
        wire.send(connection, wire.LENGTH.pack(len(data)), deadline)
        wire.send(connection, data, deadline)
        marker = wire.read(connection, 1, deadline)
        if marker == wire.REFUSED:
            refusal = wire.read_refusal(connection, deadline)
            raise refusal.kind(refusal.message, hint=refusal.hint)
        if marker != wire.OK:
            raise wire.Gone("an answer that is none")
        values = np.frombuffer(wire.read(connection, 3 * height * width, deadline), np.uint8)
        return values.reshape(3, height, width)

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        path = json.dumps([os.path.abspath(entry) for entry in sys.path])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, path, self._settings],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,  # codecs write what files say: it is nobody's log
                stderr=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
            )
        except OSError as error:
            ours.close()
            raise _unavailable() from error
        finally:
            theirs.close()
        self._connection = ours
        self._ready = False

    def _becomes_ready(self) -> bool:
        """Wait for the greeting of a process; one that sends none is killed."""
        connection = self._connection
        try:
            if connection is not None:
                greeting = wire.read(connection, 1, time.monotonic() + _START_SECONDS)
                self._ready = greeting == wire.READY
        except (wire.Gone, TimeoutError) as error:
            _logger.warning("a decode process did not come up: %s", error or "too slow")
        if not self._ready:
            self._kill()
        return self._ready

    def _replace(self, reason: Literal["timeout", "crashed"]) -> None:
        """Kill the process and start another, which warms up while this thread goes on."""
        pid = None if self._process is None else self._process.pid
        self._kill()
        self._metrics.decoder_replaced(reason)
        _logger.warning("decode process %s is replaced: %s", pid, reason)
        with contextlib.suppress(NotReadyError):  # the next image tries again, and says so
            self._spawn()

    def _kill(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None
        self._ready = False


def _environment() -> dict[str, str]:
    """Nothing of the service's environment, which may hold secrets, but what the loader needs."""
    kept = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TZ")
    values = {name: os.environ[name] for name in kept if name in os.environ}
    # Large pictures give their memory back when they are freed; for small ones it is kept, since
    # asking for it anew costs a third of the decoding.
    return {
        **values,
        "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _unavailable() -> NotReadyError:
    return NotReadyError("no decode process can be started", hint="ask again later")
