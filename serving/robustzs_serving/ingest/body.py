"""Bodies as they come: which kind, how many bytes, and the images in them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio
from starlette.requests import Request

from robustzs.errors import ImageTooLargeError, RobustZSError
from robustzs_serving.errors import (
    BodyMalformedError,
    BodyTooLargeError,
    FieldValueError,
    MediaTypeError,
    MissingFieldError,
    UrlsOffError,
    quoted,
)
from robustzs_serving.ingest.calls import ImagePart
from robustzs_serving.ingest.fetch import Fetcher
from robustzs_serving.ingest.fields import unknown_field
from robustzs_serving.ingest.multipart import too_many_images
from robustzs_serving.ingest.strict_json import Json, parse_json
from robustzs_serving.settings import Limits, ServiceSettings

RawImage: TypeAlias = bytes | str | RobustZSError
"""Content, a URL, or what is wrong with this one image."""

_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;(?P<parameters>.*))?", re.I | re.A)
JSON_TYPE = "application/json"
_FETCHES_AT_ONCE = 4


@dataclass
class JsonBody:
    """A JSON object, with its images taken out."""

    images: list[RawImage] = field(default_factory=list)
    fields: dict[str, Json] = field(default_factory=dict)


def media_type(request: Request) -> str:
    """The content type of a body; ``JSON_TYPE`` for any JSON, else what stands in the header.

    Raises:
        MediaTypeError: none or several, compressed, or JSON in another encoding than UTF-8.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise MediaTypeError(
            f"the body is encoded as {quoted(encoding)}", hint="send it as it is, not compressed"
        )
    given = request.headers.getlist("content-type")
    if len(given) != 1:
        raise MediaTypeError(
            "the request has no content type" if not given else "there are two content types",
            hint="send multipart/form-data or application/json",
        )
    found = _JSON_TYPE.fullmatch(given[0].strip())
    if found is None:
        return given[0]
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", found["parameters"] or "", re.I | re.A)
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8"):
        raise MediaTypeError(f"JSON is UTF-8, not {quoted(charset[1])}")
    return JSON_TYPE


async def chunks_of(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The body, up to its limit, whether or not a middleware watches it."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limits.max_body_bytes:
            raise BodyTooLargeError(f"the body is larger than {limits.max_body_bytes} bytes")
        yield chunk


async def read_json(request: Request, limits: Limits) -> Json:
    """The body as JSON.

    Raises:
        MediaTypeError: it is not said to be JSON.
        BodyMalformedError: it is none.
    """
    if media_type(request) != JSON_TYPE:
        raise MediaTypeError("the body must be JSON", hint="send application/json")
    content = bytearray()
    async for chunk in chunks_of(request, limits):
        content += chunk
    return parse_json(bytes(content), limits, "the body")


async def read_json_object(request: Request, limits: Limits) -> JsonBody:
    """The body as an object, with ``image`` and ``images`` taken out of it.

    Raises:
        MediaTypeError: it is not said to be JSON.
        BodyMalformedError: it is no JSON object.
        FieldValueError: an image is neither ``{"b64": ...}`` nor ``{"url": ...}``.
        TooManyImagesError: more than allowed.
    """
    document = await read_json(request, limits)
    if not isinstance(document, dict):
        raise BodyMalformedError("the body must be a JSON object", hint='{"images": [...], ...}')
    fields = {name: value for name, value in document.items() if value is not None}
    if "image" in fields and "images" in fields:
        raise FieldValueError("image and images were given", hint="give one of the two")
    one, several = fields.pop("image", None), fields.pop("images", None)
    items = [one] if one is not None else ([] if several is None else several)
    if not isinstance(items, list):
        raise FieldValueError(f"images must be a list, got {quoted(items)}", param="images")
    if len(items) > limits.max_images:
        raise too_many_images(limits)
    param = "images" if one is None else "image"
    return JsonBody([_image(item, param, limits) for item in items], fields)


def from_base64(text: str, param: str, limits: Limits) -> RawImage:
    """An image in base64, strictly.

    Raises:
        FieldValueError: it is no base64.
    """
    if len(text) > 4 * (limits.max_image_bytes // 3 + 1):
        return ImageTooLargeError(f"the image has more than {limits.max_image_bytes} bytes")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        hint = "remove everything up to the comma" if text[:5].lower() == "data:" else ""
        raise FieldValueError(
            f"an image of {param} is not base64: {quoted(text, 24)}", hint=hint, param=param
        ) from error


async def to_parts(
    images: list[RawImage], settings: ServiceSettings, fetcher: Fetcher | None
) -> tuple[ImagePart, ...]:
    """The images, those by URL fetched, a few at a time; what fails, fails alone.

    Raises:
        UrlsOffError: a URL, and the service takes none.
    """
    parts: list[ImagePart | None] = [None] * len(images)
    urls: list[tuple[int, str]] = []
    for position, image in enumerate(images):
        if isinstance(image, bytes):
            parts[position] = ImagePart(image)
        elif isinstance(image, str):
            urls.append((position, image))
        else:
            parts[position] = ImagePart(b"", image)
    if urls and not settings.urls_on:
        raise UrlsOffError(
            "the service takes no images by URL",
            hint="send the image itself; the deployer may set ROBUSTZS_URLS",
            param="image_url",
        )
    if urls:
        await _fetch_all(urls, parts, fetcher or Fetcher(settings.limits))
    return tuple(part for part in parts if part is not None)


def need_images(images: list[RawImage]) -> None:
    """Raise where there is no image.

    Raises:
        MissingFieldError: there is none.
    """
    if not images:
        raise MissingFieldError(
            "there is no image", hint="send a file in the part `image`", param="image"
        )


def _image(item: Json, param: str, limits: Limits) -> RawImage:
    if not isinstance(item, dict):
        raise FieldValueError(
            f"an image is an object, not {quoted(item, 24)}", hint='{"b64": "..."}', param=param
        )
    for key in item:
        if key not in ("b64", "url"):
            raise unknown_field(key, ("b64", "url"), where="key of an image")
    if len(item) != 1:
        raise FieldValueError("an image has either b64 or url", param=param)
    ((key, text),) = item.items()
    if not isinstance(text, str):
        raise FieldValueError(f"{key} of an image must be a text", param=param)
    if key == "b64":
        return from_base64(text, param, limits)
    return text


async def _fetch_all(
    urls: list[tuple[int, str]], parts: list[ImagePart | None], fetcher: Fetcher
) -> None:
    slots = anyio.Semaphore(_FETCHES_AT_ONCE)

    async def one(position: int, url: str) -> None:
        async with slots:
            try:
                parts[position] = ImagePart(await fetcher.fetch(url))
            except RobustZSError as error:
                parts[position] = ImagePart(b"", error)

    async with anyio.create_task_group() as tasks:
        for position, url in urls:
            tasks.start_soon(one, position, url)
