"""The synchronous client."""

from __future__ import annotations

import os
import ssl
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
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
    from typing_extensions import Unpack

T = TypeVar("T")


class Client:
    """Calls a robustzs service. Use it as a context manager, or call ``close``.

    Safe to use from several threads at once.

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
        transport: httpx.BaseTransport | None = None,
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
        self._http = httpx.Client(transport=transport, **self._settings.http_arguments())
        prepare_models()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def classify(self, image: ImageInput, **options: Unpack[ClassifyOptions]) -> Answer:
        """Classify one image.

        Args:
            image: A path, encoded bytes, a binary file, a PIL image, or an array.
            **options: See ``ClassifyOptions``.

        Raises:
            OSError: The image cannot be read here.
            ImageRejectedError: The service could not read the image.
            InvalidRequestError: The labels, the hierarchy or an option are wrong.
            ServerUnavailableError: The service is overloaded or failed.
            ConnectionFailedError: No answer came.
        """
        return self._send(_calls.classify(read_image(image), options))

    def classify_many(
        self,
        images: Iterable[ImageInput],
        *,
        names: Iterable[str] | None = None,
        progress: Progress | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> list[Row]:
        """Classify many images in as many requests as it takes; one bad image fails alone.

        Args:
            images: As for ``classify``.
            names: What to call the images in the answers, instead of their paths.
            progress: Told after each answer.
            **options: See ``ClassifyOptions``.

        Returns:
            One row for each image, in order: an ``Answer``, or an ``AnswerError``.

        Raises:
            InvalidRequestError: The labels, the hierarchy or an option are wrong.
            ServerUnavailableError: The service is overloaded or failed.
            ConnectionFailedError: No answer came.
        """
        return [*self.classify_stream(named(images, names), progress=progress, **options)]

    def classify_stream(
        self,
        images: Iterable[ImageInput | AnswerError],
        *,
        progress: Progress | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> Iterator[Row]:
        """Classify images while they are found; memory does not grow with their number.

        Args:
            images: As for ``classify``; read in the caller's thread, a few batches ahead. A row
                that is an error already keeps its place.
            progress: Told after each answer.
            **options: See ``ClassifyOptions``.

        Yields:
            As ``classify_many`` returns.

        Raises:
            InvalidRequestError: The labels, the hierarchy or an option are wrong.
            ServerUnavailableError: The service is overloaded or failed.
            ConnectionFailedError: No answer came.
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
    ) -> Iterator[Row]:
        """Classify the images in a folder and below, sorted by name, while they are found.

        Args:
            folder: Links to folders in it are not followed.
            progress: Told after each answer.
            **options: See ``ClassifyOptions``.

        Yields:
            As ``classify_stream``; a file that cannot be read is a row that says so.

        Raises:
            NotADirectoryError: It is no folder.
        """
        return self.classify_stream(walk_folder(folder), progress=progress, **options)

    def embed_images(
        self, images: Iterable[ImageInput], *, progress: Progress | None = None
    ) -> list[EmbeddingRow]:
        """Raw features of images; one bad image fails alone.

        Returns:
            One row for each image, in order: an ``Embedding``, or an ``AnswerError``.
        """
        return [*self._stream(images, _calls.embed_images, progress=progress)]

    def embed_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """Raw features of texts, as they are: without templates."""
        parts = _calls.text_batches(texts)
        return [row for part in parts for row in self._send(_calls.embed_texts(part))]

    def models(self) -> list[ModelDetails]:
        """The models of the service, with the execution provider in use and the card."""
        return self._send(_calls.models())

    def ready(self) -> Readiness:
        """Whether the service takes work.

        Raises:
            ConnectionFailedError: Nobody answers.
        """
        return self._send(_calls.ready())

    def put_label_set(
        self, id: str, labels: Labels, *, if_match: str | None = None, create: bool = False
    ) -> StoredInfo:
        """Keep labels in the service; ``classify(..., label_set=id)`` then names them.

        Args:
            id: 1 to 64 of a-z, 0-9 and hyphens.
            labels: Names, or objects.
            if_match: The tag of what may be replaced.
            create: Replace nothing.

        Raises:
            ConflictError: What is there is something else.
        """
        conditions = _calls.preconditions(if_match, create=create)
        return self._send(
            _calls.put("label-sets", id, {"labels": _calls.plain(labels)}, conditions)
        )

    def get_label_set(self, id: str) -> StoredDocument:
        """The labels that are kept under an id."""
        return self._send(_calls.get("label-sets", id))

    def delete_label_set(self, id: str, *, if_match: str | None = None) -> None:
        """Forget the labels that are kept under an id."""
        self._send(_calls.delete("label-sets", id, _calls.preconditions(if_match)))

    def list_label_sets(self) -> list[StoredInfo]:
        """What is kept, by id."""
        return self._list("label-sets")

    def put_hierarchy(
        self,
        id: str,
        hierarchy: Tree | Sequence[Tree],
        *,
        if_match: str | None = None,
        create: bool = False,
    ) -> StoredInfo:
        """Keep a tree, or several, in the service; ``classify(..., hierarchy=id)`` names them.

        Args:
            id: 1 to 64 of a-z, 0-9 and hyphens.
            hierarchy: In the published JSON form.
            if_match: The tag of what may be replaced.
            create: Replace nothing.

        Raises:
            ConflictError: What is there is something else.
        """
        conditions = _calls.preconditions(if_match, create=create)
        return self._send(_calls.put("hierarchies", id, _calls.plain(hierarchy), conditions))

    def get_hierarchy(self, id: str) -> StoredDocument:
        """The trees that are kept under an id."""
        return self._send(_calls.get("hierarchies", id))

    def delete_hierarchy(self, id: str, *, if_match: str | None = None) -> None:
        """Forget the trees that are kept under an id."""
        self._send(_calls.delete("hierarchies", id, _calls.preconditions(if_match)))

    def list_hierarchies(self) -> list[StoredInfo]:
        """What is kept, by id."""
        return self._list("hierarchies")

    # --- sending

    def _list(self, kind: str) -> list[StoredInfo]:
        found: list[StoredInfo] = []
        after: str | None = ""
        while after is not None:
            items, after = self._send(_calls.page(kind, after))
            found += items
        return found

    def _send(self, call: Call[T]) -> T:
        from tenacity import Retrying

        trial = Trial(call, self._settings)
        result: T = Retrying(**trial.policy())(self._try, trial)
        return result

    def _try(self, trial: Trial[T]) -> T:
        with trial.guard():
            response = self._http.send(trial.request(self._http), stream=True)
            try:
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    trial.check_time()
            finally:
                response.close()
        return trial.result(response, bytes(body))

    def _stream(
        self,
        images: Iterable[ImageInput | AnswerError],
        call: Callable[[Sequence[NamedImage]], Call[list[T]]],
        *,
        progress: Progress | None,
    ) -> Iterator[T | AnswerError]:
        batches = Batches(images, self._settings.batching, progress)

        def answer(batch: Batch) -> list[T | AnswerError]:
            return batch.merged(self._send(call(batch.images)) if batch.images else [])

        width = self._settings.batching.concurrency
        with closing(_in_order(answer, batches.next, width)) as parts:
            for rows in parts:
                for row in rows:
                    batches.count()
                    yield row


def _in_order(
    work: Callable[[Batch], T], following: Callable[[], Batch | None], width: int
) -> Generator[T, None, None]:
    """Results in order, of at most ``width`` pieces of work at once."""
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(width, thread_name_prefix="robustzs-client")
    try:
        while (batch := following()) is not None:
            pending.append(pool.submit(work, batch))
            while pending and (len(pending) == width or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
