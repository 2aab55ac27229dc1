"""Both clients and the command line against a real service."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import robustzs_client as sdk
from robustzs_client import AsyncClient, Batching, Client

from robustzs.classifier import Classifier, Embedder
from tests.factories import LEAVES, picture_bytes
from tests.serving.conftest import Service


def test_both_clients_answer_as_the_classifier_here(service_url: str, tiny_bundle: Path) -> None:
    images = [picture_bytes(leaf) for leaf in LEAVES]
    here = Classifier.load(tiny_bundle, labels=list(LEAVES), templates="{}")
    expected = [answer.flat_top1.name for answer in here.classify_many(images)]
    batching = Batching(max_images=2)
    with Client(service_url, batching=batching) as client:
        rows = client.classify_many(images, labels=LEAVES, templates="{}")

    async def later() -> list[sdk.Row]:
        async with AsyncClient(service_url, batching=batching) as client:
            return await client.classify_many(images, labels=LEAVES, templates="{}")

    assert rows == asyncio.run(later())
    assert [row.flat_top1.name for row in rows if isinstance(row, sdk.Answer)] == expected
    assert expected == list(LEAVES)


def test_features_are_those_of_the_embedder_here(service_url: str, tiny_bundle: Path) -> None:
    images, texts = [picture_bytes("jeep"), picture_bytes("tabby")], ["a photo of a jeep", "cat"]
    here = Embedder.load(tiny_bundle)
    with Client(service_url) as client:
        seen, bad = client.embed_images([*images, b"nothing"])[:2], client.embed_images([b"x"])
        read = client.embed_texts(texts)
    assert isinstance(bad[0], sdk.AnswerError)
    sent = np.array([row.embedding for row in seen if isinstance(row, sdk.Embedding)])
    expected = np.array([features for _, features in here.embed_images(images)])
    np.testing.assert_allclose(sent, expected, atol=1e-6)
    np.testing.assert_allclose([row.embedding for row in read], here.embed_texts(texts), atol=1e-6)


def test_the_page_on_the_client_works_as_it_stands(service_url: str, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "sdk.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "photos").mkdir()
    for path in ("cat.jpg", "photos/a.png"):
        (tmp_path / path).write_bytes(picture_bytes("tabby"))
    for block in blocks:
        code = block.replace("http://127.0.0.1:3000", service_url).replace(
            'hierarchy="wordnet"', 'labels=["tabby", "jeep"]'
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
    for name in _public_methods():
        assert f"`{name}(" in text, name
    for name in sdk.__all__:
        if name.endswith("Error") and name != "AnswerError":
            assert name in text, name
    for option in sdk.ClassifyOptions.__annotations__:
        assert f"`{option}`" in text, option


def _public_methods() -> list[str]:
    streams = ["classify", "classify_many", "classify_stream", "classify_folder", "embed_images"]
    return [*streams, "embed_texts", "models", "ready", "put_label_set", "put_hierarchy"]


def test_labels_and_trees_are_kept_and_used(service_url: str) -> None:
    with Client(service_url) as client:
        kept = client.put_label_set("sdk-pets", ["labrador", {"name": "tabby"}])
        assert kept.etag == client.get_label_set("sdk-pets").etag
        answer = client.classify(picture_bytes("tabby"), label_set="sdk-pets", templates="{}")
        assert answer.flat_top1.name == "tabby"
        with pytest.raises(sdk.ConflictError):
            client.put_label_set("sdk-pets", ["x"], create=True)
        with pytest.raises(sdk.ConflictError):
            client.delete_label_set("sdk-pets", if_match='"' + "0" * 32 + '"')
        assert "sdk-pets" in [item.id for item in client.list_label_sets()]
        client.delete_label_set("sdk-pets", if_match=kept.etag)
        with pytest.raises(sdk.NotFoundError):
            client.get_label_set("sdk-pets")


def test_the_service_tells_of_itself(service_url: str) -> None:
    with Client(service_url) as client:
        (model,) = client.models()
        assert (model.name, model.provider) == ("tiny", "CPUExecutionProvider")
        assert client.ready().ready


def test_an_error_names_the_request_in_the_services_log(service: Service) -> None:
    with Client(service.url) as client, pytest.raises(sdk.InvalidRequestError) as refused:
        client.classify(picture_bytes("jeep"), labels=["jeep"], theta=7)
    assert refused.value.param == "theta"
    until = time.monotonic() + 10.0
    while refused.value.request_id not in service.text():  # the line follows the answer
        assert time.monotonic() < until, service.text()
        time.sleep(0.05)


def _run(arguments: list[str], folder: Path) -> tuple[int, bytes, bytes]:
    command = [sys.executable, "-m", "robustzs", "classify", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, check=False, cwd=folder, env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def pictures(tmp_path: Path, tree_file: Path) -> Path:
    (tmp_path / "in" / "below").mkdir(parents=True)
    for number, leaf in enumerate(LEAVES * 4):
        (tmp_path / "in" / f"{number:02}.png").write_bytes(picture_bytes(leaf))
    (tmp_path / "in" / "below" / "cut.png").write_bytes(picture_bytes("jeep")[:90])
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    (tmp_path / "in" / "text.png").write_bytes(b"not a picture")
    (tmp_path / "labels.csv").write_text("name,prompt\nmy car,jeep\nmy cat,tabby\n")
    return tmp_path


CASES: list[list[str]] = [
    ["in/00.png", "--labels", "labrador,tabby,jeep"],
    ["in/00.png", "--labels", "labrador,tabby,jeep", "--format", "json"],
    ["in/00.png", "--labels", "labrador,tabby,jeep", "--format", "jsonl"],
    ["in/00.png", "--labels", "labels.csv", "--format", "csv"],
    ["in/05.png", "--hierarchy", "tree.yaml"],
    ["in/05.png", "--hierarchy", "tree.yaml", "--format", "json", "--theta", "0.2", "-k", "2"],
    ["in", "--hierarchy", "tree.yaml"],
    ["in", "--hierarchy", "tree.yaml", "--format", "json"],
    ["in", "--hierarchy", "tree.yaml", "--format", "jsonl", "--batch-size", "5"],
    ["in", "missing.png", "--labels", "labrador,jeep", "--format", "csv"],
    ["in/text.png", "--labels", "labrador,jeep"],
    ["in/text.png", "--labels", "labrador,jeep", "--format", "json"],
    ["in/below/cut.png", "--labels", "labrador,jeep", "--format", "jsonl"],
    ["in/0[0-3].png", "--labels", "dog,cat", "--hierarchy", "wordnet", "--path"],
    ["in/01.png", "--hierarchy", "tree.yaml", "--hierarchy", "flat", "--format", "json"],
    ["in/01.png", "--labels", "labrador,jeep", "--reject-below", "0.99", "--format", "json"],
    ["in/01.png", "--hierarchy", "tree.yaml", "--level", "1", "--root", "animal"],
]


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_the_command_prints_the_same_from_a_service_byte_for_byte(
    case: list[str], service_url: str, tiny_bundle: Path, pictures: Path
) -> None:
    case = [*case, "--templates", "{}"]
    here = _run([*case, "--model", str(tiny_bundle)], pictures)
    there = _run([*case, "--server", service_url], pictures)
    assert there == here
    assert here[1]


@pytest.mark.parametrize(
    "case",
    [
        ["in/00.png", "--labels", "labrador,labrador"],
        ["in/00.png", "--labels", "labrador,jeep", "--theta", "7"],
        ["in/00.png", "--hierarchy", "nowhere.yaml"],
        ["in/00.png", "--labels", "labrador,jeep", "--level", "nine"],
    ],
    ids=" ".join,
)
def test_the_command_refuses_the_same(
    case: list[str], service_url: str, tiny_bundle: Path, pictures: Path
) -> None:
    here = _run([*case, "--model", str(tiny_bundle)], pictures)
    there = _run([*case, "--server", service_url], pictures)
    assert here[0] != 0
    assert there[0] != 0
    assert (there[1], here[1]) == (b"", b"")
    assert b"Traceback" not in there[2]


def test_a_key_goes_by_the_environment(
    serve: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    made = subprocess.run(
        [sys.executable, "-m", "robustzs", "keys", "make", "sdk", "--file", str(file)],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    if made.returncode:
        pytest.fail(made.stderr)
    key = made.stdout.strip()
    running = serve(ROBUSTZS_KEYS_FILE=str(file))
    (tmp_path / "a.png").write_bytes(picture_bytes("jeep"))
    ask = ["a.png", "--labels", "jeep,tabby", "--server", running.url]
    refused: tuple[int, Any, Any] = _run(ask, tmp_path)
    assert refused[0] == 1
    assert b"ROBUSTZS_API_KEY" in refused[2]
    monkeypatch.setenv("ROBUSTZS_API_KEY", key)
    assert _run(ask, tmp_path)[0] == 0
    with Client(running.url, api_key=key) as client:
        assert client.models()
