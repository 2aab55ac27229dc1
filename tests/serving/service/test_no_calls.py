"""The service calls nobody: every connect of every process of it, as the kernel saw it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.factories import picture_bytes
from tests.serving.conftest import Service, end_service, free_port

_CALL = re.compile(r"\b(?:connect|sendto|sendmsg)\(.*?sa_family=(AF_\w+)(.*)")


def _strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not _strace_works(), reason="needs strace, and the right to use it")
@pytest.mark.parametrize("command", ["robustzs serve", "bentoml serve"])
def test_no_process_calls_out(command: str, tiny_bundle: Path, tmp_path: Path) -> None:
    port = free_port()
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=connect,sendto,sendmsg"]
    argv += [sys.executable, "-m"]
    if command == "robustzs serve":
        argv += ["robustzs", "serve", "--model", str(tiny_bundle), "--port", str(port)]
    else:
        argv += ["bentoml", "serve", "robustzs_serving.service:RobustZS", "--port", str(port)]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("BENTOML_")},
        "BENTOML_HOME": str(tmp_path / "home"),
        "ROBUSTZS_MODEL": str(tiny_bundle),
        "ROBUSTZS_DECODERS": "1",
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env=environment, cwd=tmp_path)
    service = Service(process, f"http://127.0.0.1:{port}", log, port, environment)
    try:
        service.wait_ready(240)
        for _ in range(3):
            answer = httpx.post(
                f"{service.url}/v1/classify",
                files={"image": picture_bytes("jeep")},
                data={"labels": "jeep,tabby"},
                timeout=60,
            )
            assert answer.status_code == 200
        for path in ("/", "/v1/models", "/metrics", "/readyz"):
            assert httpx.get(f"{service.url}{path}", timeout=60).status_code == 200
    finally:
        end_service(service)
    seen = trace.read_text(encoding="utf-8", errors="replace")
    assert seen, "strace saw nothing, so it proves nothing"
    outside = [
        line for line in seen.splitlines() if (found := _CALL.search(line)) and _leaves(found)
    ]
    assert not outside, outside[:5]


def _leaves(call: re.Match[str]) -> bool:
    family, rest = call.groups()
    if family in ("AF_UNIX", "AF_NETLINK", "AF_UNSPEC"):
        return False
    return '"127.0.0.1"' not in rest and '"::1"' not in rest


def test_the_measure_sees_a_call() -> None:
    """Lines of a strace that did see one."""
    line = (
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("1.1.1.1")}, 16)'
    )
    found = _CALL.search(line)
    assert found is not None
    assert _leaves(found)
    inside = _CALL.search(line.replace("1.1.1.1", "127.0.0.1"))
    assert inside is not None
    assert not _leaves(inside)
