"""A real Triton server for tests, out of nvidia-pytriton, in an environment of its own.

`make test-triton` makes the environment. The package carries tritonserver with its python backend
and without the onnxruntime one, so `stand_in` changes the `backend` of each model of an exported
repository, and nothing else; `test_repository.py` holds the two against each other.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from robustzs.bundle.store import Bundle

ENVIRONMENT = Path(os.environ.get("ROBUSTZS_TRITON_VENV", ".venv-triton")).absolute()
_START_SECONDS = 90.0


def free_ports(n: int) -> list[int]:
    probes = [socket.socket() for _ in range(n)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def read_config(model: Path) -> Any:
    """`config.pbtxt`, read by Triton's own protobuf."""
    from google.protobuf import text_format

    from robustzs.backends.triton.transport import config_messages

    return text_format.Parse(
        (model / "config.pbtxt").read_text(encoding="utf-8"), config_messages().ModelConfig()
    )


def stand_in(repository: Path, target: Path) -> Path:
    """The same repository on the python backend."""
    from google.protobuf import text_format

    shutil.copytree(repository, target)
    for model in sorted(target.iterdir()):
        config = read_config(model)
        if config.platform == "ensemble":
            continue
        config.backend = "python"
        (model / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
        shutil.copy(Path(__file__).with_name("model.py"), version_of(model) / "model.py")
    return target


def version_of(model: Path) -> Path:
    """The folder of a model's only version."""
    (folder,) = (path for path in model.iterdir() if path.is_dir())
    return folder


@dataclass
class Triton:
    """A tritonserver; `start` it again after `kill`, on the same ports."""

    repository: Path
    log: Path
    http_port: int
    grpc_port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def grpc(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc_port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start(self, *, wait: bool = True) -> None:
        site = next((ENVIRONMENT / "lib").glob("python3.*")) / "site-packages"
        home = site / "pytriton" / "tritonserver"
        command = [
            str(home / "bin" / "tritonserver"),
            f"--model-repository={self.repository}",
            f"--backend-directory={home / 'backends'}",
            "--allow-metrics=false",
            "--http-address=127.0.0.1",
            f"--http-port={self.http_port}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.grpc_port}",
            "--exit-timeout-secs=2",
            # a name for each server: the stubs' shared memory would be mixed up
            f"--backend-config=python,shm-region-prefix-name=robustzs{self.grpc_port}_",
            *self.options,
        ]
        environment = {**os.environ, "ROBUSTZS_TRITON_SITE": str(site), "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, start_new_session=True
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            assert self.process is not None
            assert self.process.poll() is None, self.text()
            try:
                if httpx.get(f"{self.http}/v2/health/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not ready in {_START_SECONDS} s: {self.text()}")

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> None:
        """To the server and the stubs of its models."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """As a crash does: at once."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(timeout=30)
            self.process = None
        # what the stubs share stays behind a crash, a megabyte and more each
        for left in Path("/dev/shm").glob(f"robustzs{self.grpc_port}_*"):
            left.unlink(missing_ok=True)

    def statistics(self, model: str) -> dict[str, object]:
        answer = httpx.get(f"{self.http}/v2/models/{model}/stats", timeout=10).json()
        statistics: dict[str, object] = answer["model_stats"][0]
        return statistics


def launch(repository: Path, folder: Path, *options: str) -> Triton:
    """Start a server of a repository; the caller kills it."""
    http_port, grpc_port = free_ports(2)
    server = Triton(repository, folder / f"triton-{grpc_port}.log", http_port, grpc_port, options)
    server.start()
    return server


def slow_down(server: Triton, model: str, seconds: float) -> None:
    """Have a model take longer for each batch; 0 has it as fast as it is."""
    (server.repository / model / "slow").write_text(str(seconds))


@cache
def shared_server(bundle: Path) -> Triton:
    """One server of a bundle for all tests that leave it as it is; it ends with the process."""
    folder = Path(tempfile.mkdtemp(prefix="robustzs-triton-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = launch(export(bundle, folder), folder)
    atexit.register(server.kill)
    return server


def export(bundle: Path, folder: Path, **options: Any) -> Path:
    """The repository that `robustzs export --triton` writes, on the python backend."""
    from robustzs_serving.triton import ServerOptions, write_repository

    write_repository(
        Bundle.load(bundle), folder / "repository", options=ServerOptions(device="cpu", **options)
    )
    return stand_in(folder / "repository", folder / "stand-in")
