from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustzs import Classifier
from robustzs.backends.fake import FakeBackend
from robustzs.bundle.store import Bundle
from robustzs.classifier import Embedder, Options
from tests.factories import colour_tokens


@pytest.fixture
def load(tiny_bundle: Path, tree_file: Path) -> Callable[..., Classifier]:
    """``Classifier.load`` with the tiny bundle, and the small tree unless told otherwise."""

    def loader(**options: Any) -> Classifier:
        if "hierarchy" not in options and "labels" not in options:
            options["hierarchy"] = tree_file
        return Classifier.load(options.pop("model", tiny_bundle), threads=1, **options)

    return loader


@pytest.fixture
def fake(tiny_bundle: Path, tree_file: Path) -> Callable[..., Classifier]:
    """The same on the fake backend."""

    def loader(**options: Any) -> Classifier:
        bundle = Bundle.load(tiny_bundle)
        embedder = Embedder(bundle, FakeBackend(bundle.manifest, colours=colour_tokens()))
        return Classifier(embedder, Options(**options), hierarchy=tree_file)

    return loader
