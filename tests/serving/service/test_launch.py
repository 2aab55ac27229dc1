"""`robustzs serve` tells at once what is wrong, whatever folder it is started in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from robustzs_serving import launch
from robustzs_serving.settings import ServiceSettings

from tests.serving.conftest import Service


def _refused(*options: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "robustzs", "serve", *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert "serves" not in done.stderr
    return " ".join(done.stderr.split())


def test_a_port_in_use_is_told(tiny_bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        message = _refused("--model", str(tiny_bundle), "--port", port)
    assert f"127.0.0.1:{port} is in use" in message
    assert "--port" in message


def test_a_model_that_is_not_there_is_told() -> None:
    assert "no-such-model" in _refused("--model", "no-such-model")


def test_a_broken_model_is_told(tiny_bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_bundle.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    with (broken / "image_encoder.onnx").open("r+b") as graph:
        graph.seek(100)
        graph.write(b"\0\0\0\0")
    assert "image_encoder.onnx" in _refused("--model", str(broken))


def test_a_precision_that_is_not_there_is_told(tiny_bundle: Path) -> None:
    message = _refused("--model", str(tiny_bundle), "--image-precision", "int8")
    assert "no image encoder of precision 'int8'" in message
    assert "it has fp32" in message
    message = _refused("--model", str(tiny_bundle), ROBUSTZS_IMAGE_PRECISION="int4")
    assert "ROBUSTZS_IMAGE_PRECISION" in message


def test_keys_that_cannot_be_read_are_told(tiny_bundle: Path, tmp_path: Path) -> None:
    message = _refused("--model", str(tiny_bundle), "--keys", str(tmp_path / "nowhere.json"))
    assert "nowhere.json" in message


def test_a_wrong_variable_is_told(tiny_bundle: Path) -> None:
    message = _refused("--model", str(tiny_bundle), ROBUSTZS_MAX_IMAGES="many")
    assert "ROBUSTZS_MAX_IMAGES" in message


@pytest.mark.parametrize("host", ["no such host", "203.0.113.7", ""])
def test_an_address_that_is_not_ours_is_told(host: str) -> None:
    with pytest.raises((launch.AddressError, launch.UsageError)):
        launch.check_address(launch.resolve_host(host), 3000)


def test_names_become_addresses() -> None:
    assert launch.resolve_host("localhost") in ("127.0.0.1", "::1")
    assert launch.resolve_host("0.0.0.0") == "0.0.0.0"


def test_options_outweigh_variables_and_paths_hold_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {
        "ROBUSTZS_PORT": "4000",
        "ROBUSTZS_WORKERS": "3",
        "ROBUSTZS_STORE_DIR": "store",
        "ROBUSTZS_METRICS_DIR": "/somebody/else's",
        "PROMETHEUS_MULTIPROC_DIR": "/somebody/else's",
    }
    made = launch.service_environment(environ, {"port": 5000, "workers": None})
    settings = ServiceSettings.from_env(made)
    assert (settings.port, settings.workers) == (5000, 3)
    assert settings.store_dir == tmp_path / "store"
    assert made["BENTOML_DO_NOT_TRACK"] == "True"
    assert "ROBUSTZS_METRICS_DIR" not in made
    assert "PROMETHEUS_MULTIPROC_DIR" not in made


def test_only_proxies_that_are_named_say_who_the_client_is(
    serve: Callable[..., Service],
) -> None:
    variables = {"ROBUSTZS_REQUESTS_PER_SECOND_PER_KEY": "0.01", "ROBUSTZS_BURST_PER_KEY": "2"}

    def statuses(service: Service) -> list[int]:
        return [
            httpx.get(f"{service.url}/v1/errors", headers={"X-Forwarded-For": client}).status_code
            for client in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
        ]

    assert statuses(serve(**variables)) == [200, 200, 429, 429]
    assert statuses(serve("--trusted-proxies", "127.0.0.1", **variables)) == [200] * 4


def test_a_store_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = ServiceSettings(store_dir=tmp_path / "file" / "store")
    with pytest.raises(launch.FileAccessError, match="store"):
        launch.check_files(settings)


def test_the_start_says_what_is_served_where(service: Service, tiny_bundle: Path) -> None:
    from robustzs.bundle.store import Bundle

    bundle = Bundle.load(tiny_bundle)
    first = service.text().splitlines()[0]
    assert bundle.manifest.name in first
    assert service.url in first
    (ready,) = [line for line in service.lines() if line["message"] == "worker ready"][:1]
    assert ready["digest"] == bundle.digest
    assert ready["provider"] == "CPUExecutionProvider"
