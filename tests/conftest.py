from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.factories import TREE_YAML, make_bundle

# Some tests import onnxruntime before our backend, which turns its reports off, does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A busy machine is slow, not wrong; what is too slow is found by the timeout of the whole test.
settings.register_profile("robustzs", deadline=None)
settings.load_profile("robustzs")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, models and stored label sets."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ROBUSTZS_CACHE", str(home / "cache"))
    monkeypatch.setenv("ROBUSTZS_MODELS", str(home / "models"))
    monkeypatch.setenv("ROBUSTZS_STORE_DIR", str(home / "stored"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny bundle; read only."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def tree_file(tmp_path: Path) -> Path:
    """A small tree over words that the tiny bundle knows."""
    path = tmp_path / "tree.yaml"
    path.write_text(TREE_YAML, encoding="utf-8")
    return path
