"""Classifiers: made once, at one time by one thread, and kept while there is room."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from functools import partial

from robustzs.classifier import Classifier, Embedder
from robustzs.errors import UsageError
from robustzs.hierarchy.load import BUILT_IN
from robustzs_serving.engine.lanes import LONG, TextLanes
from robustzs_serving.engine.weight import bytes_held, prompts_needed
from robustzs_serving.errors import DeadlineError
from robustzs_serving.ingest.calls import ClassifyCall
from robustzs_serving.observe.metrics import Metrics


class Classifiers:
    """The least recently used classifiers go when all together hold too many bytes.

    Calls that want the same classifier wait for one making of it. A call whose deadline passes
    goes away without it; it is made all the same, for the next one. Use from one event loop.

    Args:
        embedder: the model.
        lanes: threads that make them.
        max_bytes: of all that are kept; one that is larger by itself is made for each call.
        metrics: what is counted.
    """

    def __init__(
        self,
        embedder: Embedder,
        lanes: TextLanes,
        *,
        max_bytes: int,
        metrics: Metrics | None = None,
    ) -> None:
        self._embedder = embedder
        self._lanes = lanes
        self._max_bytes = max_bytes
        self._metrics = metrics or Metrics()
        self._kept: OrderedDict[str, tuple[Classifier, int]] = OrderedDict()
        self._making: dict[str, _Making] = {}
        self._n_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def n_bytes(self) -> int:
        """Bytes that are held, about."""
        return self._n_bytes

    def takes_long(self, call: ClassifyCall) -> bool:
        """Whether the classifier is not there, and making it may encode many texts.

        Raises:
            RobustZSError: the call names what is stored, a tree that is none, or wrong templates.
        """
        _check(call)
        key = call.cache_key
        if key in self._kept or key in self._making:
            return False
        return prompts_needed(call, self._embedder.manifest.templates) >= LONG

    def kept(self, call: ClassifyCall) -> Classifier | None:
        """The classifier that answers a call, where it is there already."""
        found = self._kept.get(call.cache_key)
        if found is None:
            return None
        self._metrics.looked_up("classifiers", hit=True)
        self._kept.move_to_end(call.cache_key)
        return found[0]

    async def get(self, call: ClassifyCall, *, deadline: float, caller: str = "") -> Classifier:
        """The classifier that answers a call; made in a thread where it is not there.

        Args:
            call: without ids of what is stored.
            deadline: on ``time.monotonic``'s clock.
            caller: whose call it is; none fills the threads' queues alone.

        Raises:
            RobustZSError: labels, trees or options are wrong.
            QueueFullError: too many are being made.
            DeadlineError: it was not made in time; it will be there later.
        """
        _check(call)
        kept = self.kept(call)
        if kept is not None:
            return kept
        key = call.cache_key
        self._metrics.looked_up("classifiers", hit=False)
        making = self._making.get(key)
        if making is None or making.result.cancelled():
            n_texts = prompts_needed(call, self._embedder.manifest.templates)
            making = _Making()
            making.result = self._lanes.start(
                partial(self._make, call, making), n_texts=n_texts, caller=caller
            )
            making.result.add_done_callback(partial(self._made, key, making))
            self._making[key] = making
        try:
            return await making.wait(deadline)
        except asyncio.TimeoutError as error:
            raise DeadlineError(
                "labels and tree were not ready in time", hint="ask again: they will be soon"
            ) from error

    def _made(
        self, key: str, making: _Making, result: asyncio.Future[tuple[Classifier, int]]
    ) -> None:
        if self._making.get(key) is making:
            del self._making[key]
        if result.cancelled() or result.exception() is not None:
            return
        self._kept[key] = result.result()
        self._n_bytes += result.result()[1]
        while self._n_bytes > self._max_bytes:
            _, (_, n_bytes) = self._kept.popitem(last=False)
            self._n_bytes -= n_bytes
        self._metrics.cached("classifiers", self._n_bytes)

    def _make(self, call: ClassifyCall, making: _Making) -> tuple[Classifier, int]:
        """In a thread of a lane."""
        making.has_begun = True
        started = time.monotonic()
        count = _Count()
        classifier = Classifier(
            self._embedder,
            call.options,
            labels=call.labels,
            hierarchy=call.hierarchy,
            templates=call.templates,
            on_ambiguous=call.on_ambiguous,
            on_unknown=call.on_unknown,
            progress=count,
        )
        self._metrics.texts(count.total, time.monotonic() - started)
        return classifier, bytes_held(classifier)


def _check(call: ClassifyCall) -> None:
    if call.label_set_id is not None or call.hierarchy_id is not None:
        raise UsageError("a call still names what is stored", hint="resolve it first")
    for tree in call.hierarchy or ():
        if isinstance(tree, str) and tree not in BUILT_IN:  # core would open it as a file
            raise UsageError(f"unknown hierarchy {tree[:64]!r}", hint=", ".join(BUILT_IN))


class _Making:
    """A classifier that is being made, or waits for its thread."""

    result: asyncio.Future[tuple[Classifier, int]]

    def __init__(self) -> None:
        self.has_begun = False
        self._n_waiting = 0

    async def wait(self, deadline: float) -> Classifier:
        """The classifier, when it is made.

        What nobody waits for any more is made only if it has begun: its work would be lost, and
        the next one will ask.

        Raises:
            asyncio.TimeoutError: at the deadline.
        """
        self._n_waiting += 1
        try:
            left = max(0.0, deadline - time.monotonic())
            return (await asyncio.wait_for(asyncio.shield(self.result), left))[0]
        finally:
            self._n_waiting -= 1
            if self._n_waiting == 0 and not self.has_begun:
                self.result.cancel()


class _Count:
    """Counts prompts from reports of progress, which begin anew for each tree."""

    def __init__(self) -> None:
        self.total = 0
        self._before = 0

    def __call__(self, done: int, of: int) -> None:
        self.total += done - self._before
        self._before = 0 if done == of else done
