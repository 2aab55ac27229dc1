"""From features to answers: what becomes ready at the same time is scored together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustzs.answer import Answer
from robustzs.backends.base import Float32Array
from robustzs.classifier import Classifier


@dataclass(frozen=True, eq=False)
class _Asked:
    """Images of one request."""

    features: Float32Array
    names: Sequence[str]
    future: asyncio.Future[list[Answer]]


class TogetherScorer:
    """Scores images of several requests in one call, where the same classifier answers them.

    A run of the model ends for many requests at once. One call for all of them costs less than
    one each: the classes and the code stay in the processor's cache. What an image is scored with
    does not change its answer. Use from one event loop.
    """

    def __init__(self) -> None:
        self._waiting: dict[Classifier, list[_Asked]] = {}

    async def answers(
        self, classifier: Classifier, features: Float32Array, names: Sequence[str]
    ) -> list[Answer]:
        """Answers for raw features ``[B, D]``, in the next turn of the event loop."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._score_all)
        asked = _Asked(features, names, loop.create_future())
        self._waiting.setdefault(classifier, []).append(asked)
        return await asked.future

    def _score_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for classifier, together in waiting.items():
            try:
                _score(classifier, together)
            except Exception:  # noqa: BLE001  whatever it is, only the request at fault fails
                for asked in together:
                    _score_alone(classifier, asked)


def _score(classifier: Classifier, together: Sequence[_Asked]) -> None:
    features = np.concatenate([asked.features for asked in together])
    names = [name for asked in together for name in asked.names]
    answers = iter(classifier.classify_features(features, names))
    for asked in together:
        own = [next(answers) for _ in asked.names]
        if not asked.future.done():  # the client may have left
            asked.future.set_result(own)


def _score_alone(classifier: Classifier, asked: _Asked) -> None:
    try:
        _score(classifier, [asked])
    except Exception as error:  # noqa: BLE001  whoever waits is told
        if not asked.future.done():
            asked.future.set_exception(error)
