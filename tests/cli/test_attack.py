"""`robustzs attack`, where no model is needed: what is refused before anything is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.cli.conftest import Run, WithoutTorch
from tests.factories import picture

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs the extra train"
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "dog.png"
    picture("dog").save(path)
    return path


def test_help_names_the_exit_codes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = run(["attack", "--help"])
    assert result.code == 0
    assert "Exit codes: 0 the attack ran, whether or not it succeeded" in result.out


def test_without_the_extra_it_says_what_to_install(without_torch: WithoutTorch) -> None:
    done = without_torch(["attack", "x.png"])
    assert 'pip install "robustzs[train]"' in done.stderr


@needs_torch
def test_a_bundle_without_weights_cannot_be_attacked(
    run: Run, image: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "adversarial.png"
    result = run(["attack", image, "--model", tiny_bundle, "--labels", "dog,cat", "-o", output])
    assert result.code == 1
    assert "carries no weights" in result.err
    assert "--weights" in result.err
    assert not output.exists()


@needs_torch
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--eps", "0.5/255"], "less than a PNG can hold"),
        (["--eps", "L2:0.5"], "within Linf"),
        (["-o", "adversarial.jpg"], "is not a PNG"),
        (["--attack", "features", "--target", "cat"], "has no target"),
        (["--on-ambiguous", "ask"], "for `robustzs classify`"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Run, image: Path, tiny_bundle: Path, arguments: list[str], said: str
) -> None:
    result = run(["attack", image, "--model", tiny_bundle, *arguments])
    assert result.code != 0
    assert said in result.err
    assert result.out == ""


@needs_torch
def test_the_image_itself_is_not_overwritten(run: Run, image: Path, tiny_bundle: Path) -> None:
    before = image.read_bytes()
    result = run(["attack", image, "--model", tiny_bundle, "-o", image])
    assert result.code != 0
    assert "is the image itself" in result.err
    assert image.read_bytes() == before
