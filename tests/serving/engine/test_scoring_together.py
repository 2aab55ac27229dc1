"""What is scored together is answered as if it were scored alone."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from robustzs_serving.engine.scoring import TogetherScorer

from robustzs.answer import Answer
from robustzs.classifier import Classifier, Embedder
from robustzs.errors import InferenceError


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder.load(threads=1)


@pytest.fixture
def classifiers(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Classifier], list[int]]:
    """Two of them, and how many images each call of either had."""
    calls: list[int] = []
    made = [Classifier(embedder, labels="dog, cat, coffee"), Classifier(embedder, labels="a, b")]
    for classifier in made:

        def counted(
            features: np.ndarray, names: list[str], classify=classifier.classify_features
        ) -> list[Answer]:
            calls.append(len(names))
            return classify(features, names)

        monkeypatch.setattr(classifier, "classify_features", counted)
    return made, calls


def features_of(n: int, embedder: Embedder) -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(n, embedder.manifest.embed_dim))
    return drawn.astype(np.float32)


def test_one_call_for_each_classifier(
    embedder: Embedder, classifiers: tuple[list[Classifier], list[int]]
) -> None:
    (first, second), calls = classifiers
    rows = features_of(6, embedder)

    async def ask() -> list[list[Answer]]:
        scorer = TogetherScorer()
        return await asyncio.gather(
            scorer.answers(first, rows[:1], ["0"]),
            scorer.answers(second, rows[1:2], ["0"]),
            scorer.answers(first, rows[2:5], ["0", "2", "3"]),
            scorer.answers(first, rows[5:], ["0"]),
        )

    answers = asyncio.run(ask())
    assert calls == [5, 1]
    assert answers[0] == first.classify_features(rows[:1], ["0"])
    assert answers[1] == second.classify_features(rows[1:2], ["0"])
    assert answers[2] == first.classify_features(rows[2:5], ["0", "2", "3"])
    assert answers[3] == first.classify_features(rows[5:], ["0"])


def test_only_the_request_at_fault_fails_and_who_left_is_not_missed(
    embedder: Embedder, classifiers: tuple[list[Classifier], list[int]]
) -> None:
    (classifier, _), _ = classifiers
    rows = features_of(3, embedder)
    rows[1] = np.nan

    async def ask() -> list[list[Answer] | BaseException]:
        scorer = TogetherScorer()
        tasks = [
            asyncio.ensure_future(scorer.answers(classifier, rows[i : i + 1], [str(i)]))
            for i in range(3)
        ]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    left, poison, good = asyncio.run(ask())
    assert isinstance(left, asyncio.CancelledError)
    assert isinstance(poison, InferenceError)
    assert good == classifier.classify_features(rows[2:], ["2"])
