"""The engine on the embedded model, real photographs and real decode processes."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from robustzs_serving.engine import Engine, ErrorRow
from robustzs_serving.errors import (
    DeadlineError,
    NotReadyError,
    QueueFullError,
    ShuttingDownError,
    UrlFailedError,
)
from robustzs_serving.ingest.calls import ClassifyCall, EmbedCall, ImagePart
from robustzs_serving.settings import Limits, ServiceSettings

from robustzs.answer import Answer
from robustzs.classifier import Classifier, Embedder, Options
from robustzs.errors import (
    BundleError,
    CalibrationError,
    LabelError,
    ModelNotFoundError,
    ProviderUnavailableError,
    UnknownNodeError,
    UsageError,
)
from tests.factories import make_bundle, make_two_precisions
from tests.serving.engine.running import CATS, Counted, fine, labels, photo, run, soon


def test_answers_are_those_of_the_classifier() -> None:
    names = ("chelsea.png", "coffee.jpg", "rocket.jpg")
    images = tuple(photo(name) for name in names)
    calls = [
        ClassifyCall(images=images, labels=CATS, templates="{}"),
        ClassifyCall(images=images, labels=CATS, options=Options(theta=0.99, top_k=2)),
        ClassifyCall(images=images, options=Options(strategy="topdown"), labels=CATS),
    ]

    async def ask(engine: Engine) -> list[list[Answer]]:
        return [fine(await engine.classify(call, deadline=soon())) for call in calls]

    answers = run(ask, batching={"max_rows": 1, "buckets": [1]})
    for call, got in zip(calls, answers, strict=True):
        with Classifier.load(threads=1) as loaded:
            local = Classifier(
                loaded.embedder, call.options, labels=call.labels, templates=call.templates
            )
            wanted = [local.classify(part.data, name=str(i)) for i, part in enumerate(call.images)]
        assert got == wanted
        assert [answer.flat_top1.name for answer in got] == ["cat", "cup of coffee", "rocket"]


def test_a_bad_image_fails_alone_with_its_own_error() -> None:
    metrics = Counted()
    failed = UrlFailedError("the URL gave no image")
    images = (photo(), ImagePart(b"not an image"), ImagePart(b"", failed), photo("rocket.jpg"))

    async def ask(engine: Engine) -> None:
        first, bad, missing, last = await engine.classify(
            ClassifyCall(images=images, labels=CATS), deadline=soon()
        )
        assert isinstance(first, Answer)
        assert isinstance(last, Answer)
        assert (first.image, last.image) == ("0", "3")
        assert (first.flat_top1.name, last.flat_top1.name) == ("cat", "rocket")
        assert isinstance(bad, ErrorRow)
        assert bad.code == "image-format"
        assert isinstance(missing, ErrorRow)
        assert missing.error is failed
        only = await engine.classify(ClassifyCall(images=images[1:2], labels=CATS), deadline=soon())
        assert isinstance(only[0], ErrorRow)

    run(ask, metrics=metrics)
    assert metrics.answered == [2, 3]


def test_the_second_request_encodes_no_text() -> None:
    metrics = Counted()

    async def ask(engine: Engine) -> None:
        call = ClassifyCall(images=(photo(),), labels=CATS)
        await engine.classify(call, deadline=soon())
        assert metrics.prompts == 3
        assert metrics.held > 3 * 768 * 4
        await engine.classify(call, deadline=soon())
        assert metrics.prompts == 3
        assert metrics.lookups == [False, True]
        # another way of answering with the same texts: another classifier, the same features
        other = ClassifyCall(images=(photo(),), labels=CATS, options=Options(theta=0.5))
        await engine.classify(other, deadline=soon())
        assert metrics.prompts == 3
        assert metrics.lookups == [False, True, False]

    run(ask, metrics=metrics)


def test_calls_for_the_same_labels_wait_for_one_making() -> None:
    metrics = Counted()
    fruit = labels(*(f"fruit number {i}" for i in range(40)))

    async def ask(engine: Engine) -> None:
        call = ClassifyCall(images=(photo(),), labels=fruit)
        await asyncio.gather(*(engine.classify(call, deadline=soon()) for _ in range(6)))
        assert metrics.prompts == 40

    run(ask, metrics=metrics)


def test_images_of_several_requests_share_batches() -> None:
    metrics = Counted()

    async def ask(engine: Engine) -> None:
        calls = [ClassifyCall(images=(photo("coffee.jpg"),), labels=CATS) for _ in range(12)]
        answers = await asyncio.gather(*(engine.classify(call, deadline=soon()) for call in calls))
        assert len({fine(rows)[0].model_dump_json() for rows in answers}) == 1

    run(ask, metrics=metrics, batching={"wait_ms": 200, "max_rows": 4, "buckets": [4]})
    assert sum(metrics.rows) == 12
    assert max(metrics.rows) > 1


def test_the_least_recently_used_classifiers_go_when_there_is_no_room() -> None:
    metrics = Counted()

    async def ask(engine: Engine) -> None:
        def call(i: int) -> ClassifyCall:
            return ClassifyCall(images=(photo(),), labels=labels(f"thing {i}", "cat"))

        for i in range(4):
            await engine.classify(call(i), deadline=soon())
            assert metrics.held <= 16_000
        await engine.classify(call(3), deadline=soon())
        assert metrics.lookups[-1] is True
        await engine.classify(call(0), deadline=soon())
        assert metrics.lookups[-1] is False

    run(ask, metrics=metrics, cache_bytes=16_000)

    async def ask_without_room(engine: Engine) -> None:
        for _ in range(2):
            await engine.classify(
                ClassifyCall(images=(photo(),), labels=labels("a", "b")), deadline=soon()
            )
        assert metrics.lookups[-2:] == [False, False]
        assert metrics.held == 0

    run(ask_without_room, metrics=metrics, cache_bytes=0)


def test_errors_of_labels_trees_and_options_are_typed() -> None:
    async def ask(engine: Engine) -> None:
        async def refused(kind: type[Exception], **changes: object) -> None:
            with pytest.raises(kind):
                await engine.classify(
                    ClassifyCall(images=(photo(),), **changes),  # type: ignore[arg-type]
                    deadline=soon(),
                )

        await refused(CalibrationError, labels=CATS, options=Options(target_accuracy=0.9))
        await refused(UnknownNodeError, labels=CATS, options=Options(root="nowhere"))
        await refused(LabelError, labels=CATS, templates=("no place for a label",))
        await refused(UsageError, labels=CATS, hierarchy=("/etc/passwd",))
        await refused(UsageError, label_set_id="not-resolved")
        await refused(ModelNotFoundError, labels=CATS, model="another")
        good = ClassifyCall(images=(photo(),), labels=CATS, model="robustzs-lite")
        assert fine(await engine.classify(good, deadline=soon()))[0].flat_top1.name == "cat"

    run(ask)


def test_embedding_gives_raw_features_of_images_and_texts() -> None:
    metrics = Counted()

    async def ask(engine: Engine) -> None:
        call = EmbedCall(images=(photo(), ImagePart(b"?")), texts=("a cat", "a dog"))
        embedded = await engine.embed(call, deadline=soon())
        first, bad = embedded.images
        assert isinstance(bad, ErrorRow)
        with Classifier.load(threads=1, labels=["x"]) as local:
            ((_, wanted),) = local.embed_images([photo().data])
            assert np.array_equal(first, wanted)  # type: ignore[arg-type]
            assert np.array_equal(embedded.texts, local.embed_texts(["a cat", "a dog"]))
        assert metrics.prompts == 2
        only_texts = await engine.embed(EmbedCall(texts=("a cat",)), deadline=soon())
        assert only_texts.images == ()
        no_texts = await engine.embed(EmbedCall(images=(photo(),)), deadline=soon())
        assert no_texts.texts.shape == (0, 768)

    run(ask, metrics=metrics, batching={"max_rows": 1, "buckets": [1]})


def test_the_precision_that_was_asked_for_runs(tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    two = make_two_precisions(tmp_path / "two", other)

    async def ask(engine: Engine) -> None:
        embedded = await engine.embed(EmbedCall(images=(photo(),)), deadline=soon())
        with Embedder.load(other, threads=1) as local:
            ((_, wanted),) = local.embed_images([photo().data])
        assert np.array_equal(embedded.images[0], wanted)  # type: ignore[arg-type]
        assert engine.description.precision == "int8"

    run(ask, model=str(two), image_precision="int8", batching={"max_rows": 1, "buckets": [1]})


def test_a_deadline_lets_the_waiter_go_and_the_work_goes_on() -> None:
    metrics = Counted()
    many = labels(*(f"a rather long name of the thing with number {i}" for i in range(150)))

    async def ask(engine: Engine) -> None:
        call = ClassifyCall(images=(photo(),), labels=many)
        with pytest.raises(DeadlineError):
            await engine.classify(call, deadline=soon(0.05))
        with pytest.raises(DeadlineError):
            await engine.classify(call, deadline=soon(-1.0))
        assert fine(await engine.classify(call, deadline=soon()))
        assert metrics.prompts == 150, "one making, finished for the one who waited"

    run(ask, metrics=metrics)


def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    metrics = Counted()

    def call(n: int) -> ClassifyCall:
        names = (f"a rather long name of thing {i} of {n} things in all" for i in range(n))
        return ClassifyCall(images=(), labels=labels(*names))

    async def ask(engine: Engine) -> None:
        busy = [asyncio.ensure_future(engine.classify(call(n), deadline=soon())) for n in (70, 71)]
        await asyncio.sleep(0)
        with pytest.raises(DeadlineError):
            await engine.classify(call(5), deadline=soon(0.01))
        await asyncio.gather(*busy)
        await engine.classify(call(6), deadline=soon())
        assert metrics.prompts == 70 + 71 + 6

    run(ask, metrics=metrics)


def test_more_images_than_there_is_room_for_are_refused_at_once() -> None:
    async def ask(engine: Engine) -> None:
        call = ClassifyCall(images=(photo(),) * 5, labels=CATS)
        with pytest.raises(QueueFullError):
            await engine.classify(call, deadline=soon())
        few = ClassifyCall(images=(photo(),) * 3, labels=CATS)
        assert len(fine(await engine.classify(few, deadline=soon()))) == 3

    run(ask, limits=Limits(queue_rows=4))


def test_a_killed_decoder_is_nobodys_error() -> None:
    async def ask(engine: Engine) -> None:
        parts = engine._loaded()
        for pid in parts.decoder.pids:
            os.kill(pid, signal.SIGKILL)
        rows = await engine.classify(
            ClassifyCall(images=(photo(),) * 4, labels=CATS), deadline=soon()
        )
        assert {answer.flat_top1.name for answer in fine(rows)} == {"cat"}

    run(ask)


def test_readiness_and_description() -> None:
    async def main() -> None:
        engine = Engine(ServiceSettings(threads=1, decoders=1))
        assert not engine.ready.ready
        with pytest.raises(NotReadyError):
            await engine.classify(ClassifyCall(images=(photo(),)), deadline=soon())
        await engine.start()
        assert engine.ready.ready
        described = engine.description
        assert described.name in described.names
        assert described.provider == "CPUExecutionProvider"
        assert (described.precision, described.embed_dim) == ("fp32", 768)
        assert described.card is not None
        accepted = asyncio.ensure_future(
            engine.classify(ClassifyCall(images=(photo(),), labels=CATS), deadline=soon())
        )
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(engine.close())
        await asyncio.sleep(0)
        assert not engine.ready.ready
        with pytest.raises(ShuttingDownError):
            await engine.classify(ClassifyCall(images=(photo(),)), deadline=soon())
        assert fine(await accepted), "what was accepted is answered"
        await closing

    asyncio.run(main())


def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    async def start(**changes: object) -> None:
        engine = Engine(ServiceSettings(decoders=1, **changes))  # type: ignore[arg-type]
        try:
            await engine.start()
        finally:
            await engine.close()

    with pytest.raises(BundleError):
        asyncio.run(start(model=str(tmp_path / "nothing")))
    with pytest.raises(ProviderUnavailableError):
        asyncio.run(start(device="CoreMLExecutionProvider"))
