"""The synchronous client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import httpx

from robustzs_client._errors import ConnectionFailedError, api_error
from robustzs_client._models import Answer, AnswerError

ImageInput = str | PathLike[str] | bytes | BinaryIO
Labels = Sequence[str] | Sequence[dict[str, Any]]

DEFAULT_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class Client:
    """Calls a robustzs service. Use it as a context manager, or call ``close``.

    Args:
        base_url: Where the service is, such as ``http://127.0.0.1:3000``.
        timeout: Seconds, or an ``httpx.Timeout``.
        transport: An ``httpx`` transport; ``httpx.ASGITransport`` and the like serve in tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=timeout, transport=transport)

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

    def classify(self, image: ImageInput, **options: Any) -> Answer:
        """Classify one image.

        Args:
            image: A path, encoded bytes, or a binary file.
            **options: As for ``classify_many``.

        Raises:
            ImageRejectedError: The service could not read the image.
            InvalidRequestError: The labels, the hierarchy or an option are wrong.
            ServerUnavailableError: The service is overloaded or failed.
            ConnectionFailedError: No answer came.
        """
        result = self.classify_many([image], **options)[0]
        if isinstance(result, AnswerError):
            raise api_error(422, result.error.code, result.error.message, None)
        return result

    def classify_many(
        self,
        images: Sequence[ImageInput],
        *,
        names: Sequence[str] | None = None,
        labels: Labels | None = None,
        hierarchy: str | dict[str, Any] | Sequence[str | dict[str, Any]] | None = None,
        **options: str | float | bool | None,
    ) -> list[Answer | AnswerError]:
        """Classify several images in one request; one bad image fails alone.

        Args:
            images: Paths, encoded bytes, or binary files.
            names: What to call the images in the answers, instead of their file names.
            labels: Names, or objects with ``name``, ``synset``, ``prompt``, ``aliases``.
            hierarchy: ``"wordnet"``, ``"wordnet-nouns"``, ``"flat"``, a tree in the published JSON
                form, or several of them.
            **options: ``theta``, ``strategy``, ``rule``, ``root``, ``level``, ``top_k``,
                ``templates``, ``reject``, ``model``: as on the command line.

        Returns:
            One result per image, in order.

        Raises:
            InvalidRequestError: The labels, the hierarchy or an option are wrong.
            ServerUnavailableError: The service is overloaded or failed.
            ConnectionFailedError: No answer came.
        """
        read = [_read(image) for image in images]
        called = list(names) if names is not None else [name for name, _ in read]
        # Names stay here: the service needs no path of the caller's.
        files = [("image", (f"{index}", content)) for index, (_, content) in enumerate(read)]
        fields = {key: _field(value) for key, value in options.items() if value is not None}
        if labels is not None:
            fields["labels"] = json.dumps(list(labels))
        if hierarchy is not None:
            fields["hierarchy"] = hierarchy if isinstance(hierarchy, str) else json.dumps(hierarchy)
        payload = self._post("/v1/classify", data=fields, files=files)
        return [
            (AnswerError if "error" in item else Answer)
            .model_validate(item)
            .model_copy(update={"image": name})
            for name, item in zip(called, payload["results"], strict=True)
        ]

    def _post(self, path: str, **request: Any) -> dict[str, Any]:
        try:
            response = self._http.post(path, **request)
        except httpx.HTTPError as error:
            raise ConnectionFailedError(
                f"no answer from {self._http.base_url}: {type(error).__name__}"
            ) from error
        try:
            payload = response.json()
        except ValueError:
            payload = None
        if isinstance(payload, dict) and "results" in payload:
            return payload
        body = payload.get("error") if isinstance(payload, dict) else None
        body = body if isinstance(body, dict) else {}
        raise api_error(
            response.status_code,
            str(body.get("code", "unknown")),
            str(body.get("message", "the service gave no reason")),
            body.get("request_id"),
        )


def _read(image: ImageInput) -> tuple[str, bytes]:
    if isinstance(image, bytes):
        return "image", image
    if isinstance(image, (str, PathLike)):
        path = Path(image)
        return str(path), path.read_bytes()
    return str(getattr(image, "name", "image")), image.read()


def _field(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
