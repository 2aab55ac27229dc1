"""The scripts of examples/ run, with the tiny model wherever robustzs-lite is not there."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.factories import COLOURS, IMAGE_SIZE

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def models(tiny_bundle: Path) -> None:
    """The tiny model under the name that the scripts use; an embedded one of that name wins."""
    folder = Path(os.environ["ROBUSTZS_MODELS"]) / "robustzs-lite-clean"
    shutil.copytree(tiny_bundle, folder)


def lines_of(script: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_readme_names_every_script() -> None:
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+\.py)`", readme, re.MULTILINE)) == {
        path.name for path in EXAMPLES.glob("*.py")
    }


@pytest.mark.usefixtures("models")
def test_classify_shows_the_path_with_one_mark() -> None:
    lines = lines_of("classify.py")
    assert lines[0].endswith("1.000  entity")
    assert sum(line.startswith(">") for line in lines) == 1


@pytest.mark.usefixtures("models")
def test_taxonomy_has_a_line_per_photo_and_the_error_of_what_is_none() -> None:
    lines = lines_of("taxonomy.py")
    photos = ["chelsea.png", "coffee.jpg", "rocket.jpg", "things.csv"]
    assert [line.split(":")[0] for line in lines] == photos
    assert lines[-1] == "things.csv: image-format"


@pytest.mark.usefixtures("models")
def test_forest_has_a_line_per_tree() -> None:
    things, places = lines_of("forest.py")
    assert re.fullmatch(r"things: (animal|vehicle|drink) \d\.\d\d", things)
    assert re.fullmatch(r"places: (at home|outdoors|in the air) \d\.\d\d", places)


@pytest.fixture
def service(tiny_bundle: Path, tmp_path: Path) -> Iterator[str]:
    """Address of a service with the tiny model, a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "robustzs", "serve", "--model", str(tiny_bundle)]
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
    try:
        patience = time.monotonic() + 60
        while not _is_ready(url):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < patience, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_ask_service_asks(service: str) -> None:
    first, *photos = lines_of("ask_service.py", service)
    assert first.endswith(", by tiny")
    names = sorted(path.name for path in (EXAMPLES / "photos").iterdir() if path.suffix != ".md")
    found = [re.fullmatch(r"(\S+): [a-z ]+ \d\.\d\d", line) for line in photos]
    assert [match[1] for match in found if match] == names


def test_attack_endpoint_turns_a_picture_and_counts_its_queries(
    service: str, tmp_path: Path
) -> None:
    colours = np.asarray(COLOURS["labrador"]) * 0.52 + np.asarray(COLOURS["poodle"]) * 0.48
    pixels = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    pixels[:] = np.rint(40 + 170 * colours)
    picture, perturbed = tmp_path / "picture.png", tmp_path / "perturbed.png"
    Image.fromarray(pixels).save(picture)
    asked = ["--labels", "labrador,poodle", "--templates", "{}", "--size", str(IMAGE_SIZE)]
    limits = ["--eps", "12", "--queries", "40", "--output", str(perturbed)]
    before, after, cost = lines_of(
        "attack_endpoint.py", str(picture), "--url", service, *asked, *limits
    )
    assert before.startswith("before: labrador")
    assert after == "after: poodle, turned"
    counted = re.fullmatch(r"(\d+) queries, \d+\.\d a second; largest change (\d+)/255", cost)
    assert counted is not None
    assert int(counted[1]) <= 40
    moved = np.abs(np.asarray(Image.open(perturbed)).astype(int) - pixels).max()
    assert moved == int(counted[2]) <= 12


def test_attack_endpoint_leaves_the_services_of_others_alone() -> None:
    command = [sys.executable, str(EXAMPLES / "attack_endpoint.py"), "--url", "http://example.org"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 2
    assert "not on this machine" in done.stderr


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
