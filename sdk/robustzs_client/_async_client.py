"""The asynchronous client: the same methods, to be awaited."""

from __future__ import annotations

import os
import ssl
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import httpx

from robustzs_client import _calls
from robustzs_client._batches import Batch, Batches, Progress, named
from robustzs_client._calls import Call, ClassifyOptions, EmbeddingRow, Labels, Row, Tree
from robustzs_client._images import ImageInput, NamedImage, read_image, walk_folder
from robustzs_client._models import (
    Answer,
    AnswerError,
    Embedding,
    ModelDetails,
    Readiness,
    StoredDocument,
    StoredInfo,
)
from robustzs_client._settings import Batching, Retries, Timeouts
from robustzs_client._transport import Settings, Trial, prepare_models

if TYPE_CHECKING:
    import asyncio  # otherwise in the functions: a fifth of what importing this module would cost

    from typing_extensions import Unpack

T = TypeVar("T")


class AsyncClient:
    """Calls a robustzs service. Use it as a context manager, or call ``close``.

    For asyncio; used in the loop in which it was first awaited. See ``Client`` for every method.

    Args:
        base_url: Where the service is, such as ``http://127.0.0.1:3000``.
        api_key: Sent with every request.
        headers: Sent with every request.
        timeouts: How long to wait.
        retries: How often to try.
        batching: How many images to send at once.
        verify: ``False`` trusts any certificate; or a context that says which to trust.
        transport: An ``httpx`` transport, for proxies of your own and for tests.

    Raises:
        ValueError: ``base_url`` is not an address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        batching: Batching | None = None,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = Settings(
            base_url=base_url,
            api_key=api_key,
            headers=headers or {},
            timeouts=timeouts or Timeouts(),
            retries=retries or Retries(),
            batching=batching or Batching(),
            verify=verify,
        )
        self._http = httpx.AsyncClient(transport=transport, **self._settings.http_arguments())
        prepare_models()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def classify(self, image: ImageInput, **options: Unpack[ClassifyOptions]) -> Answer:
        """Classify one image; see ``Client.classify``."""
        import asyncio

        read = await asyncio.to_thread(read_image, image)
        return await self._send(_calls.classify(read, options))

    async def classify_many(
        self,
        images: Iterable[ImageInput],
        *,
        names: Iterable[str] | None = None,
        progress: Progress | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> list[Row]:
        """Classify many images; one bad image fails alone; see ``Client.classify_many``."""
        rows = self.classify_stream(named(images, names), progress=progress, **options)
        return [row async for row in rows]

    def classify_stream(
        self,
        images: Iterable[ImageInput | AnswerError],
        *,
        progress: Progress | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> AsyncIterator[Row]:
        """Classify images while they are found; see ``Client.classify_stream``.

        ``images`` is read in a thread, one item after the other.
        """
        _calls.fields_of(options)  # a wrong name is told now, not with the first row
        return self._stream(
            images, lambda sent: _calls.classify_rows(sent, options), progress=progress
        )

    def classify_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> AsyncIterator[Row]:
        """Classify the images in a folder and below; see ``Client.classify_folder``."""
        return self.classify_stream(walk_folder(folder), progress=progress, **options)

    async def embed_images(
        self, images: Iterable[ImageInput], *, progress: Progress | None = None
    ) -> list[EmbeddingRow]:
        """Raw features of images; see ``Client.embed_images``."""
        return [row async for row in self._stream(images, _calls.embed_images, progress=progress)]

    async def embed_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """Raw features of texts; see ``Client.embed_texts``."""
        parts = _calls.text_batches(texts)
        return [row for part in parts for row in await self._send(_calls.embed_texts(part))]

    async def models(self) -> list[ModelDetails]:
        """The models of the service, with the execution provider in use and the card."""
        return await self._send(_calls.models())

    async def ready(self) -> Readiness:
        """Whether the service takes work."""
        return await self._send(_calls.ready())

    async def put_label_set(
        self, id: str, labels: Labels, *, if_match: str | None = None, create: bool = False
    ) -> StoredInfo:
        """Keep labels in the service; see ``Client.put_label_set``."""
        conditions = _calls.preconditions(if_match, create=create)
        return await self._send(
            _calls.put("label-sets", id, {"labels": _calls.plain(labels)}, conditions)
        )

    async def get_label_set(self, id: str) -> StoredDocument:
        """The labels that are kept under an id."""
        return await self._send(_calls.get("label-sets", id))

    async def delete_label_set(self, id: str, *, if_match: str | None = None) -> None:
        """Forget the labels that are kept under an id."""
        await self._send(_calls.delete("label-sets", id, _calls.preconditions(if_match)))

    async def list_label_sets(self) -> list[StoredInfo]:
        """What is kept, by id."""
        return await self._list("label-sets")

    async def put_hierarchy(
        self,
        id: str,
        hierarchy: Tree | Sequence[Tree],
        *,
        if_match: str | None = None,
        create: bool = False,
    ) -> StoredInfo:
        """Keep a tree, or several, in the service; see ``Client.put_hierarchy``."""
        conditions = _calls.preconditions(if_match, create=create)
        return await self._send(_calls.put("hierarchies", id, _calls.plain(hierarchy), conditions))

    async def get_hierarchy(self, id: str) -> StoredDocument:
        """The trees that are kept under an id."""
        return await self._send(_calls.get("hierarchies", id))

    async def delete_hierarchy(self, id: str, *, if_match: str | None = None) -> None:
        """Forget the trees that are kept under an id."""
        await self._send(_calls.delete("hierarchies", id, _calls.preconditions(if_match)))

    async def list_hierarchies(self) -> list[StoredInfo]:
        """What is kept, by id."""
        return await self._list("hierarchies")

    # --- sending

    async def _list(self, kind: str) -> list[StoredInfo]:
        found: list[StoredInfo] = []
        after: str | None = ""
        while after is not None:
            items, after = await self._send(_calls.page(kind, after))
            found += items
        return found

    async def _send(self, call: Call[T]) -> T:
        import asyncio

        from tenacity import AsyncRetrying

        trial = Trial(call, self._settings)
        tries = AsyncRetrying(**trial.policy())
        try:
            result: T = await asyncio.wait_for(tries(self._try, trial), trial.left())
        except asyncio.TimeoutError as error:
            raise trial.timed_out() from error
        return result

    async def _try(self, trial: Trial[T]) -> T:
        with trial.guard():
            response = await self._http.send(trial.request(self._http), stream=True)
            try:
                body = b"".join([piece async for piece in response.aiter_bytes()])
            finally:
                await response.aclose()
        return trial.result(response, body)

    async def _stream(
        self,
        images: Iterable[ImageInput | AnswerError],
        call: Callable[[Sequence[NamedImage]], Call[list[T]]],
        *,
        progress: Progress | None,
    ) -> AsyncIterator[T | AnswerError]:
        batches = Batches(images, self._settings.batching, progress)

        async def answer(batch: Batch) -> list[T | AnswerError]:
            return batch.merged(await self._send(call(batch.images)) if batch.images else [])

        width = self._settings.batching.concurrency
        # Closed by us: a caller who leaves the stream leaves no request under way.
        async with aclosing(_in_order(answer, batches.next, width)) as parts:
            async for rows in parts:
                for row in rows:
                    batches.count()
                    yield row


async def _in_order(
    work: Callable[[Batch], Awaitable[T]], following: Callable[[], Batch | None], width: int
) -> AsyncGenerator[T, None]:
    """Results in order, of at most ``width`` pieces of work at once."""
    import asyncio

    pending: deque[asyncio.Task[T]] = deque()
    try:
        while (batch := await asyncio.to_thread(following)) is not None:
            pending.append(asyncio.ensure_future(work(batch)))
            while pending and (len(pending) == width or pending[0].done()):
                yield await pending.popleft()
        while pending:
            yield await pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
