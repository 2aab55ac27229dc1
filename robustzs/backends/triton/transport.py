"""gRPC and HTTP to one Triton server; the only module that imports tritonclient.

The blocking clients, and not those of asyncio: a ``Backend`` blocks by contract, and the service
calls it in threads of its own (the batcher's and the text lanes'), so that its event loop only
waits. An asyncio client would need a second loop in those threads for nothing.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from robustzs.backends.triton.contract import Tensor
from robustzs.backends.triton.failures import failure, no_triton, unreachable
from robustzs.backends.triton.target import Address, TritonTarget
from robustzs.backends.triton.threads import Threads
from robustzs.errors import BackendUnavailableError, InferenceError, MissingExtraError

T = TypeVar("T")
_MAX_MESSAGE = 2**31 - 1
# A server that comes back is found at once: gRPC would wait up to two minutes. "min" is the time
# that one attempt to connect may take; with less, a busy server is never reached.
_RECONNECT_MS = {"initial": 100, "min": 3_000, "max": 1_000}
_KEEPALIVE_MS = (20_000, 5_000)

Document = dict[str, Any]
"""What a server says in JSON, in the shape of Triton's own protobuf."""


class Transport(Protocol):
    """The calls that are made to one server. Safe to use from several threads."""

    def config(self, model: str, seconds: float) -> Document:
        """The configuration of a model that is loaded."""
        ...

    def is_ready(self, model: str, version: int, seconds: float) -> bool:
        """Whether a version of a model can be asked."""
        ...

    def statistics(self, model: str, seconds: float) -> Document:
        """What was counted of a model since it was loaded."""
        ...

    def infer(
        self,
        model: str,
        version: int,
        tensor: Tensor,
        values: npt.NDArray[Any],
        output: str,
        seconds: float,
    ) -> npt.NDArray[Any]:
        """Run that version of a model on ``values``, its batch axis first."""
        ...

    def close(self) -> None:
        """Cancel what runs, and let go of the connections."""
        ...


def connect(address: Address, target: TritonTarget) -> Transport:
    """A transport for one server; nothing is sent yet.

    Raises:
        MissingExtraError: tritonclient is not installed.
    """
    return (GrpcTransport if address.protocol == "grpc" else HttpTransport)(address, target)


class GrpcTransport:
    """Over gRPC: one channel for all threads; calls can be cancelled."""

    def __init__(self, address: Address, target: TritonTarget) -> None:
        self._module = _load("grpc")
        self._where = str(address)
        with _errors(self._where, "the connection"):
            self._client = self._module.InferenceServerClient(
                address.place,
                ssl=address.tls,
                root_certificates=_path(target.ca_file),
                private_key=_path(target.key_file),
                certificate_chain=_path(target.cert_file),
                channel_args=[
                    ("grpc.max_send_message_length", _MAX_MESSAGE),
                    ("grpc.max_receive_message_length", _MAX_MESSAGE),
                    ("grpc.keepalive_time_ms", _KEEPALIVE_MS[0]),
                    ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS[1]),
                    ("grpc.use_local_subchannel_pool", 1),
                    *(
                        (f"grpc.{name}_reconnect_backoff_ms", wait)
                        for name, wait in _RECONNECT_MS.items()
                    ),
                ],
            )
        self._calls: set[Any] = set()
        self._lock = threading.Lock()
        self._closed = False

    def config(self, model: str, seconds: float) -> Document:
        """The configuration of a model that is loaded."""
        with _errors(self._where, model):
            found = self._client.get_model_config(model, as_json=True, client_timeout=seconds)
        return dict(found["config"])

    def is_ready(self, model: str, version: int, seconds: float) -> bool:
        """Whether a version of a model can be asked."""
        with _errors(self._where, model):
            return bool(self._client.is_model_ready(model, str(version), client_timeout=seconds))

    def statistics(self, model: str, seconds: float) -> Document:
        """What was counted of a model since it was loaded."""
        with _errors(self._where, model):
            return dict(
                self._client.get_inference_statistics(model, as_json=True, client_timeout=seconds)
            )

    def infer(
        self,
        model: str,
        version: int,
        tensor: Tensor,
        values: npt.NDArray[Any],
        output: str,
        seconds: float,
    ) -> npt.NDArray[Any]:
        """Run that version of a model on ``values``, its batch axis first."""
        given = self._module.InferInput(tensor.name, list(values.shape), tensor.kind)
        given.set_data_from_numpy(values)
        done: Future[Any] = Future()

        def finished(result: Any, error: Any) -> None:
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        with _errors(self._where, model):
            call = self._client.async_infer(
                model,
                [given],
                finished,
                model_version=str(version),
                outputs=[self._module.InferRequestedOutput(output)],
                client_timeout=seconds,
                # the queue of the server drops it by itself when nobody waits any more
                timeout=int(seconds * 1e6),
            )
            self._keep(call)
            try:
                result = done.result()
            except BaseException:  # Ctrl-C, too: the server need not go on
                call.cancel()
                raise
            finally:
                with self._lock:
                    self._calls.discard(call)
        try:
            return _output(result, output, self._where)
        except ValueError as error:
            raise no_triton(str(error), where=self._where) from error

    def close(self) -> None:
        """Cancel what runs, and let go of the connection."""
        with self._lock:
            self._closed = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        self._client.close()

    def _keep(self, call: Any) -> None:
        with self._lock:
            self._calls.add(call)
            closed = self._closed
        if closed:
            call.cancel()


class HttpTransport:
    """Over HTTP: a client for each of its threads, since tritonclient's is bound to one."""

    def __init__(self, address: Address, target: TritonTarget) -> None:
        self._module = _load("http")
        self._threads = Threads(self._leave, where=str(address))
        self._where = str(address)
        self._address = address
        self._target = target
        self._local = threading.local()

    def config(self, model: str, seconds: float) -> Document:
        """The configuration of a model that is loaded."""
        return self._call(
            model, seconds, lambda: dict(self._client(seconds).get_model_config(model))
        )

    def is_ready(self, model: str, version: int, seconds: float) -> bool:
        """Whether a version of a model can be asked."""
        return self._call(
            model, seconds, lambda: bool(self._client(seconds).is_model_ready(model, str(version)))
        )

    def statistics(self, model: str, seconds: float) -> Document:
        """What was counted of a model since it was loaded."""
        return self._call(
            model, seconds, lambda: dict(self._client(seconds).get_inference_statistics(model))
        )

    def infer(
        self,
        model: str,
        version: int,
        tensor: Tensor,
        values: npt.NDArray[Any],
        output: str,
        seconds: float,
    ) -> npt.NDArray[Any]:
        """Run that version of a model on ``values``, its batch axis first."""
        given = self._module.InferInput(tensor.name, list(values.shape), tensor.kind)
        given.set_data_from_numpy(values)

        def ask() -> npt.NDArray[Any]:
            result = self._client(seconds).infer(
                model,
                [given],
                model_version=str(version),
                outputs=[self._module.InferRequestedOutput(output)],
                timeout=int(seconds * 1e6),
            )
            return _output(result, output, self._where)

        return self._call(model, seconds, ask)

    def close(self) -> None:
        """Let go of the connections; what runs ends with its thread."""
        self._threads.close()

    def _call(self, model: str, seconds: float, ask: Callable[[], T]) -> T:
        def told() -> T:
            with self._errors(model):
                return ask()

        return self._threads.run(told, seconds)

    def _client(self, seconds: float) -> Any:
        """This thread's client; its time limit is its own, so it is made anew for another one."""
        if getattr(self._local, "seconds", None) != seconds:
            self._forget()
            self._local.client = self._module.InferenceServerClient(
                self._address.place,
                ssl=self._address.tls,
                ssl_context_factory=self._context if self._address.tls else None,
                connection_timeout=seconds,
                network_timeout=seconds,
            )
            self._local.seconds = seconds
        return self._local.client

    def _leave(self) -> None:
        from gevent import get_hub

        self._forget()
        get_hub().destroy(destroy_loop=True)

    def _forget(self) -> None:
        client = self._local.__dict__.pop("client", None)
        self._local.__dict__.pop("seconds", None)
        if client is not None:
            client.close()

    def _context(self) -> ssl.SSLContext:
        from gevent.ssl import create_default_context

        context: ssl.SSLContext = create_default_context(cafile=_path(self._target.ca_file))
        if self._target.cert_file is not None:
            context.load_cert_chain(self._target.cert_file, self._target.key_file)
        return context

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            with _errors(self._where, what):
                try:
                    yield
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    if isinstance(error, OSError):  # a certificate's is a ValueError, too
                        raise
                    raise no_triton(str(error), where=self._where) from error
        except BaseException:
            self._forget()  # what is left on a broken connection is nobody's answer
            raise


def config_messages() -> Any:
    """Triton's own protobuf of a model's configuration, ``model_config_pb2``.

    Raises:
        MissingExtraError: tritonclient is not installed.
    """
    _load("grpc")
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2


def _load(protocol: str) -> Any:
    try:
        import tritonclient.grpc
        import tritonclient.http
    except ImportError as error:
        raise MissingExtraError(f"tritonclient[{protocol}]", "triton") from error
    return tritonclient.grpc if protocol == "grpc" else tritonclient.http


@contextmanager
def _errors(where: str, what: str) -> Iterator[None]:
    """Everything that tritonclient and what lies below it raise, as ours."""
    from tritonclient.utils import InferenceServerException

    try:
        yield
    except InferenceServerException as error:
        raise failure(error.status(), error.message() or "", where=where, what=what) from error
    except (OSError, HTTPException, json.JSONDecodeError) as error:  # TLS's are OSErrors, too
        raise unreachable(error, where=where) from error
    except ValueError as error:  # a channel that was closed
        raise BackendUnavailableError(
            f"the connection to Triton at {where} is closed", hint="load the classifier again"
        ) from error


def _output(result: Any, name: str, where: str) -> npt.NDArray[Any]:
    values = result.as_numpy(name)
    if not isinstance(values, np.ndarray):
        raise InferenceError(f"Triton at {where} gave no tensor {name!r}")
    return values


def _path(file: object) -> str | None:
    return None if file is None else str(file)
