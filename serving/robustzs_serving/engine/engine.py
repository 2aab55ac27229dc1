"""One model behind every route."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic

import numpy as np

from robustzs.answer import Answer
from robustzs.backends.base import Float32Array
from robustzs.backends.threads import available_cpus
from robustzs.backends.triton import TritonBackend
from robustzs.bundle.registry import ALIASES
from robustzs.classifier import Classifier, Embedder
from robustzs.errors import (
    BackendError,
    BackendUnavailableError,
    ImageError,
    ModelNotFoundError,
)
from robustzs.images.limits import ImageLimits
from robustzs_serving.batching import Batcher
from robustzs_serving.decode.pool import DecodePool
from robustzs_serving.engine.classifiers import Classifiers
from robustzs_serving.engine.lanes import TextLanes
from robustzs_serving.engine.rows import Description, Embedded, ErrorRow
from robustzs_serving.engine.scoring import TogetherScorer
from robustzs_serving.engine.waiting import both, traced, until
from robustzs_serving.engine.watch import TritonWatch
from robustzs_serving.errors import (
    NotReadyError,
    QueueFullError,
    ShuttingDownError,
)
from robustzs_serving.ingest.calls import ClassifyCall, EmbedCall, ImagePart
from robustzs_serving.observe import record, span
from robustzs_serving.observe.metrics import Metrics
from robustzs_serving.observe.readiness import Readiness
from robustzs_serving.settings import ServiceSettings

_SCORERS = 2
_WARM_SECONDS = 3600.0
_MAX_PADDING_ON_CPU = 1 / 8  # there a row of padding costs as much as an image
_SCORED_HERE = 4096  # probabilities; fewer cost less than the way to a thread and back


class Engine:
    """Answers calls; the event loop only waits for processes and threads that work.

    Make it, ``await start()``, call it from one event loop, ``await close()``.

    Args:
        settings: of the service.
        metrics: what is counted.
    """

    def __init__(self, settings: ServiceSettings, *, metrics: Metrics | None = None) -> None:
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._parts: _Parts | None = None
        self._warmed_up = False
        self._accepting = True
        self._n_inside = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Verify and load the model, start decode processes, warm everything up.

        Where it raises, ``close`` is still to be called.

        Raises:
            BundleError: no such model, or not whole.
            BackendError: the engine cannot run it, or not on the device that was asked for.
            NotReadyError: no decode process can be started.
            DeadlineError: the trees to keep ready were not in an hour.
        """
        loop = asyncio.get_running_loop()
        embedder = await loop.run_in_executor(None, _load, self._settings)
        self._parts = parts = _Parts(embedder, self._settings, self._metrics)
        await both(parts.decoder.start(), parts.warm())
        for tree in self._settings.warm:
            call = ClassifyCall(images=(), hierarchy=(tree,))
            with suppress(BackendUnavailableError):  # Triton is not there yet: made when asked for
                await parts.classifiers.get(call, deadline=monotonic() + _WARM_SECONDS)
        self._warmed_up = True
        described = self.description
        self._metrics.model(
            name=described.name,
            digest=described.digest,
            precision=described.precision,
            provider=described.provider,
        )

    async def classify(
        self, call: ClassifyCall, *, deadline: float, caller: str = "anonymous"
    ) -> list[Answer | ErrorRow]:
        """An answer or an error for each image, in order; ``Answer.image`` is its place.

        Args:
            call: checked, and without ids of what is stored.
            deadline: on ``time.monotonic``'s clock.
            caller: whose call it is: nobody fills the queues for texts alone.

        Raises:
            ModelNotFoundError: another model is wanted than this one.
            RobustZSError: labels, trees or options are wrong.
            QueueFullError: too much waits already.
            DeadlineError: the deadline passed first.
            NotReadyError, ShuttingDownError: the service takes no calls.
        """
        with self._inside() as parts:
            _check_model(parts.embedder, call.model)
            known = self._known(parts, call)
            making = partial(
                traced, "classifier", parts.classifiers.get, call, deadline=deadline, caller=caller
            )
            encoding = partial(self._encode, parts, call.images, deadline)
            if known is not None:
                classifier, rows = known, await encoding()
            elif call.images and parts.classifiers.takes_long(call):
                # Nobody has a large tree's texts encoded with what is no image.
                rows = await encoding()
                failed = [row for row in rows if isinstance(row, ErrorRow)]
                if len(failed) == len(rows):
                    self._metrics.images(error=len(failed))
                    return [*failed]
                classifier = await making()
            else:
                classifier, rows = await both(making(), encoding())
            places = [place for place, row in enumerate(rows) if not isinstance(row, ErrorRow)]
            answers = await self._answer(parts, classifier, rows, places, deadline)
            result: list[Answer | ErrorRow] = [
                row if isinstance(row, ErrorRow) else answers[place]
                for place, row in enumerate(rows)
            ]
            self._metrics.images(ok=len(places), error=len(rows) - len(places))
            return result

    async def embed(
        self, call: EmbedCall, *, deadline: float, caller: str = "anonymous"
    ) -> Embedded:
        """Raw features of images and texts; the same errors as ``classify``."""
        with self._inside() as parts:
            _check_model(parts.embedder, call.model)
            rows, texts = await both(
                self._encode(parts, call.images, deadline),
                self._encode_texts(parts, call.texts, deadline, caller),
            )
            n_errors = sum(isinstance(row, ErrorRow) for row in rows)
            self._metrics.images(ok=len(rows) - n_errors, error=n_errors)
            return Embedded(tuple(rows), texts)

    @property
    def description(self) -> Description:
        """The model that answers.

        Raises:
            NotReadyError: it is not loaded.
        """
        embedder = self._loaded().embedder
        manifest, backend = embedder.manifest, embedder.backend
        aliases = tuple(alias for alias, name in ALIASES.items() if name == manifest.name)
        return Description(
            name=manifest.name,
            names=(manifest.name, *aliases),
            digest=embedder.bundle.digest,
            provider=backend.provider,
            precision=getattr(backend, "image_precision", manifest.default_image_precision),
            text_precision=getattr(backend, "text_precision", manifest.default_text_precision),
            embed_dim=manifest.embed_dim,
            image_size=manifest.preprocess.image_size,
            card=embedder.bundle.card(),
        )

    @property
    def ready(self) -> Readiness:
        """What holds now; a model that is loaded was verified, on the device asked for."""
        parts = self._parts
        return Readiness(
            model_verified=parts is not None,
            warmed_up=self._warmed_up,
            provider_as_asked=self._warmed_up,
            decoders_alive=parts is not None and parts.decoder.n_alive > 0,
            backend_answers=parts is None or parts.watch is None or parts.watch.ready,
            accepting=self._accepting,
        )

    def stop_accepting(self) -> None:
        """Refuse new calls from now on; those inside go on."""
        self._accepting = False

    async def close(self, *, seconds: float = 30.0) -> None:
        """Take nothing new, finish what is inside, end threads and processes.

        Args:
            seconds: to wait for what is inside.
        """
        self.stop_accepting()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), seconds)
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.close()

    def _loaded(self) -> _Parts:
        if self._parts is None:
            raise NotReadyError("the model is not loaded", hint="ask again later")
        return self._parts

    @contextmanager
    def _inside(self) -> Iterator[_Parts]:
        if not self._accepting:
            raise ShuttingDownError("the service is shutting down", hint="ask again")
        parts = self._loaded()
        self._n_inside += 1
        self._idle.clear()
        try:
            yield parts
        finally:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._idle.set()

    @staticmethod
    def _known(parts: _Parts, call: ClassifyCall) -> Classifier | None:
        started = monotonic()
        known = parts.classifiers.kept(call)
        if known is not None:
            record("classifier", started, monotonic())
        return known

    async def _encode(
        self, parts: _Parts, images: Sequence[ImagePart], deadline: float
    ) -> list[Float32Array | ErrorRow]:
        """Raw features ``[D]`` of each image or its error."""
        if len(images) > min(parts.decoder.free, parts.batcher.free_rows):
            raise QueueFullError("too many images wait already", hint="ask again later")
        if len(images) == 1:  # most requests: no task of its own
            return [await _encode_one(parts, images[0], deadline)]
        tasks = [asyncio.ensure_future(_encode_one(parts, image, deadline)) for image in images]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _encode_texts(
        self, parts: _Parts, texts: Sequence[str], deadline: float, caller: str
    ) -> Float32Array:
        if not texts:
            return np.empty((0, parts.embedder.manifest.embed_dim), np.float32)

        def encode() -> Float32Array:
            started = monotonic()
            features = parts.embedder.embed_texts(texts)
            self._metrics.texts(len(texts), monotonic() - started)
            return features

        return await until(deadline, parts.lanes.start(encode, n_texts=len(texts), caller=caller))

    async def _answer(
        self,
        parts: _Parts,
        classifier: Classifier,
        rows: Sequence[Float32Array | ErrorRow],
        places: Sequence[int],
        deadline: float,
    ) -> dict[int, Answer]:
        good = [row for row in rows if not isinstance(row, ErrorRow)]
        if not good:
            return {}
        features, names = np.stack(good), [str(place) for place in places]
        if len(good) * sum(map(len, classifier.forest)) <= _SCORED_HERE:
            answers = await parts.together.answers(classifier, features, names)
        else:
            scoring = asyncio.get_running_loop().run_in_executor(
                parts.scorers, classifier.classify_features, features, names
            )
            answers = await until(deadline, scoring)
        return dict(zip(places, answers, strict=True))


class _Parts:
    """What ``start`` makes and ``close`` ends."""

    def __init__(self, embedder: Embedder, settings: ServiceSettings, metrics: Metrics) -> None:
        limits, batching = settings.limits, settings.batching
        self.embedder = embedder
        remote = embedder.backend if isinstance(embedder.backend, TritonBackend) else None
        self.watch = None if remote is None else TritonWatch(remote, metrics)
        # Triton warms its models itself, and puts batches of several clients together: padding
        # would be computed there for nothing.
        sizes = range(1, batching.max_rows + 1)
        self.decoder = DecodePool(
            settings.decoders,
            embedder.manifest.preprocess,
            embedder.limits,
            limits.decode_seconds,
            max_waiting=limits.queue_rows,
            metrics=metrics,
        )
        self.batcher = Batcher(
            embedder.backend.encode_image,
            shape=(3, *embedder.manifest.preprocess.image_size),
            max_rows=batching.max_rows,
            wait_seconds=batching.wait_ms / 1000.0,
            buckets=batching.buckets if remote is None else tuple(sizes),
            queue_rows=limits.queue_rows,
            in_flight=_model_lanes(settings) if remote is None else settings.triton.in_flight,
            max_padding=_MAX_PADDING_ON_CPU if settings.device == "cpu" else 1.0,
            metrics=metrics,
        )
        self.lanes = TextLanes()
        self.classifiers = Classifiers(
            embedder, self.lanes, max_bytes=settings.cache_bytes, metrics=metrics
        )
        self.together = TogetherScorer()
        self.scorers = ThreadPoolExecutor(_SCORERS, thread_name_prefix="robustzs-score")

    async def warm(self) -> None:
        """Make the first request as fast as any; or see whether the Triton servers are there."""
        if self.watch is None:
            await self.batcher.warm()
        else:
            await self.watch.start()

    async def close(self) -> None:
        if self.watch is not None:
            await self.watch.close()
        await self.decoder.close()
        await self.batcher.close()
        await self.lanes.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.scorers.shutdown)
        self.embedder.close()


def _model_lanes(settings: ServiceSettings) -> int:
    """Runs of the image encoder at once, where it runs here.

    Two runs with half of the threads each get more done than one run with all of them: threads
    wait for each other at the end of every operator, the longer the more other work (decoding, the
    event loop) takes their cores away.
    """
    threads = settings.threads or available_cpus()
    return settings.batching.lanes or (2 if settings.device == "cpu" and threads > 1 else 1)


def _load(settings: ServiceSettings) -> Embedder:
    limits = settings.limits
    threads = settings.threads or available_cpus()
    return Embedder.load(
        settings.model,
        device=settings.device,
        image_threads=max(1, threads // _model_lanes(settings)),
        threads=settings.threads or None,
        image_precision=settings.image_precision,
        limits=ImageLimits(max_bytes=limits.max_image_bytes, max_pixels=limits.max_pixels),
        triton=settings.triton_target,
    )


def _check_model(embedder: Embedder, wanted: str | None) -> None:
    name = embedder.manifest.name
    if wanted is not None and name not in (wanted, ALIASES.get(wanted)):
        raise ModelNotFoundError(
            f"there is no model {wanted[:64]!r} here, only {name!r}",
            hint="leave the model out, or ask a service that has it",
        )


async def _encode_one(parts: _Parts, image: ImagePart, deadline: float) -> Float32Array | ErrorRow:
    if image.error is not None:
        return ErrorRow(image.error)
    try:
        with span("decode"):
            pixels = await parts.decoder.decode(image.data, deadline=deadline)
        return await parts.batcher.submit(pixels, deadline=deadline)
    except BackendUnavailableError:
        raise  # no fault of this image: the whole request may come again
    except (ImageError, BackendError) as error:
        return ErrorRow(error)
