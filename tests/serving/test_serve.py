"""The service as people meet it: a process of its own, real sockets, the SDK and the CLI."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from robustzs_client import Client, ConnectionFailedError, ImageRejectedError, InvalidRequestError

from robustzs.bundle.store import Bundle
from tests.factories import TREE_YAML, picture_bytes


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def url(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = _free_port()
    log = (tmp_path_factory.mktemp("serve") / "log").open("w+")
    command = [sys.executable, "-m", "robustzs", "serve", "--model", str(tiny_bundle)]
    environment = {**os.environ, "ROBUSTZS_BODY_SECONDS": "5"}
    arguments = [*command, "--port", str(port)]
    process = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                if httpx.get(f"{address}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert process.poll() is None, Path(log.name).read_text()
            time.sleep(0.5)
        else:
            pytest.fail(Path(log.name).read_text())
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


@pytest.fixture
def tree() -> dict[str, object]:
    from robustzs.hierarchy.formats import read_hierarchy

    path = Path(__file__).with_name("tree.yaml")
    try:
        path.write_text(TREE_YAML, encoding="utf-8")
        document: dict[str, object] = json.loads(read_hierarchy(path).to_json())
        return document
    finally:
        path.unlink()


def test_sdk_classifies_with_a_tree_of_its_own(url: str, tree: dict[str, object]) -> None:
    with Client(url) as client:
        answer = client.classify(picture_bytes("labrador"), hierarchy=tree, templates="{}")
    assert answer.flat_top1.name == "labrador"
    assert [node.name for node in answer.path] == ["thing", "animal", "dog", "labrador"]


def test_one_bad_image_fails_alone(url: str) -> None:
    images = [picture_bytes("tabby"), b"not an image", picture_bytes("jeep")]
    with Client(url) as client:
        first, bad, last = client.classify_many(images, labels=["tabby", "jeep"], templates="{}")
    assert first.prediction.name == "tabby"  # type: ignore[union-attr]
    assert bad.error.code == "image-format"  # type: ignore[union-attr]
    assert last.prediction.name == "jeep"  # type: ignore[union-attr]


def test_errors_are_typed_and_enveloped(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(ImageRejectedError) as refused:
            client.classify(b"not an image", labels=["tabby"])
        assert refused.value.status == 415
        with pytest.raises(InvalidRequestError, match="theta"):
            client.classify(picture_bytes("tabby"), labels=["tabby"], theta=7)
        with pytest.raises(InvalidRequestError, match="hierarchy"):
            client.classify(picture_bytes("tabby"), hierarchy="/etc/passwd")
    for response in (
        httpx.get(f"{url}/nothing-here"),
        httpx.get(f"{url}/v1/classify"),
        httpx.post(f"{url}/v1/classify", json={}),
        httpx.post(f"{url}/v1/classify", files={"image": b"x"}, data={"oops": "1"}),
        httpx.post(
            f"{url}/v1/classify", content=b"--", headers={"content-type": "multipart/form-data"}
        ),
    ):
        assert 400 <= response.status_code < 500
        assert set(response.json()["error"]) == {"code", "message", "param", "request_id", "docs"}


def test_a_body_over_the_limit_is_refused_declared_or_not(url: str) -> None:
    declared = httpx.post(f"{url}/v1/classify", files={"image": b"\0" * 33_000_000})
    assert declared.status_code == 413

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(34):
            yield b"\0" * 1_000_000

    headers = {"content-type": "multipart/form-data; boundary=x"}
    streamed = httpx.post(f"{url}/v1/classify", content=chunks(), headers=headers)
    assert streamed.status_code == 413
    assert httpx.get(f"{url}/v1/models").status_code == 200


def test_a_stalled_upload_is_told_and_gives_its_place_back(url: str) -> None:
    address = httpx.URL(url)
    request = (
        "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    with socket.create_connection((address.host, address.port or 80), timeout=30) as stalled:
        stalled.sendall(request.encode())
        assert stalled.recv(1000).startswith(b"HTTP/1.1 408 ")
    with Client(url) as client:
        assert client.classify(picture_bytes("jeep"), labels=["jeep"]).prediction.name == "jeep"


def test_cli_prints_the_same_from_the_server_as_here(
    url: str, tiny_bundle: Path, tree_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(picture_bytes("siamese"))
    (tmp_path / "b.png").write_bytes(picture_bytes("jeep")[:90])
    command = [sys.executable, "-m", "robustzs", "classify", str(tmp_path / "a.png")]
    command += [str(tmp_path / "b.png"), str(tmp_path / "missing.png")]
    command += ["--hierarchy", str(tree_file), "--templates", "{}", "--format", "json"]
    here = subprocess.run(
        [*command, "--model", str(tiny_bundle)], capture_output=True, text=True, check=False
    )
    there = subprocess.run([*command, "--server", url], capture_output=True, text=True, check=False)
    assert here.returncode == there.returncode == 1, there.stderr
    assert json.loads(here.stdout) == json.loads(there.stdout)


def test_trees_from_files_mean_the_same_here_and_there(
    url: str, tiny_bundle: Path, tree_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(picture_bytes("siamese"))
    (tmp_path / "labels.csv").write_text(
        "name,prompt\nlabrador,labrador\npoodle,poodle\ntabby,siamese\nsiamese,tabby\n"
        "ambulance,ambulance\njeep,jeep\n"
    )
    command = [sys.executable, "-m", "robustzs", "classify", str(tmp_path / "a.png")]
    command += ["--templates", "{}", "--format", "json", "--hierarchy", str(tree_file)]
    labels = ["--labels", str(tmp_path / "labels.csv")]
    wordnet = ["--hierarchy", "flat", "--hierarchy", "wordnet"]
    for more in (labels, wordnet, [*labels, *wordnet]):
        answers = []
        for where in (["--model", str(tiny_bundle)], ["--server", url]):
            done = subprocess.run([*command, *more, *where], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
            answers.append((json.loads(done.stdout), done.stderr))
        assert answers[0] == answers[1]
        if more[0] == "--labels":
            assert answers[0][0]["flat_top1"]["name"] == "tabby", "prompts are the labels'"


def test_trees_and_names_of_trees_may_be_mixed(url: str, tree: dict[str, object]) -> None:
    with Client(url) as client:
        answer = client.classify(picture_bytes("jeep"), hierarchy=["flat", tree], templates="{}")
        assert [node.name for node in answer.path][1:] == ["jeep"]
        (below,) = answer.forest
        assert [node.name for node in below.path] == ["thing", "vehicle", "jeep"]
        with pytest.raises(InvalidRequestError, match="unknown hierarchy"):
            client.classify(picture_bytes("jeep"), hierarchy=[tree, "/etc/passwd"])


def test_labels_rule_a_tree_that_is_sent(url: str, tree: dict[str, object]) -> None:
    names = ["labrador", "poodle", "tabby", "siamese", "ambulance", "jeep"]
    swapped = {"tabby": "siamese", "siamese": "tabby"}
    labels = [{"name": name, "prompt": swapped.get(name, name)} for name in names]
    with Client(url) as client:
        answer = client.classify(
            picture_bytes("siamese"), labels=labels, hierarchy=tree, templates="{}"
        )
    assert answer.flat_top1.name == "tabby"


def test_another_model_than_the_service_has_is_not_found(url: str, tmp_path: Path) -> None:
    with Client(url) as client:
        name = httpx.get(f"{url}/v1/models").json()["models"][0]["name"]
        assert (
            client.classify(picture_bytes("jeep"), labels=["jeep"], model=name).model.name == name
        )
        with pytest.raises(InvalidRequestError) as refused:
            client.classify(picture_bytes("jeep"), labels=["jeep"], model="robustzs-lite")
    assert (refused.value.status, refused.value.code) == (404, "model-not-found")
    (tmp_path / "a.png").write_bytes(picture_bytes("jeep"))
    command = [sys.executable, "-m", "robustzs", "classify", str(tmp_path / "a.png")]
    command += ["--labels", "jeep,poodle", "--server", url, "--model"]
    for model, code in ((name, 0), ("robustzs-lite", 1)):
        done = subprocess.run([*command, model], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert ("model-not-found" in done.stderr) == (code > 0)


def test_a_digest_binds_the_service_too(url: str, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture_bytes("jeep"))
    command = [sys.executable, "-m", "robustzs", "classify", str(tmp_path / "a.png")]
    command += ["--labels", "jeep,poodle", "--server", url, "--expect-digest"]
    own = Bundle.load(tiny_bundle).digest
    for digest, code in ((own, 0), ("0" * 64, 1), ("0", 2)):
        done = subprocess.run([*command, digest], capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        assert (b"digest" in done.stderr) == (code > 0)
        assert bool(done.stdout) == (code == 0)


def test_nobody_listening_is_one_line_that_names_the_address(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture_bytes("jeep"))
    address = f"http://127.0.0.1:{_free_port()}"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "robustzs",
            "classify",
            str(tmp_path / "a.png"),
            "--server",
            address,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert address in done.stderr
    assert "Traceback" not in done.stderr
    with Client(address) as client, pytest.raises(ConnectionFailedError):
        client.classify(picture_bytes("jeep"))
