"""Multipart bodies, read as they come: every part is bounded while it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from robustzs.errors import ImageTooLargeError, RobustZSError
from robustzs_serving.errors import (
    BodyMalformedError,
    FieldTooLargeError,
    FieldValueError,
    RepeatedFieldError,
    TooManyImagesError,
    quoted,
)
from robustzs_serving.ingest.fields import unknown_field
from robustzs_serving.settings import Limits

_MAX_BOUNDARY = 70  # RFC 2046
_MAX_HEADERS = 16
_MAX_HEADER_BYTES = 4_096
_MAX_NAME = 64
# What the parts of a form never are, though mail has it.
_ENCODINGS = (b"", b"binary", b"7bit", b"8bit", b"identity")

IMAGE = "image"
IMAGE_URL = "image_url"
TEXT = "text"


@dataclass
class Form:
    """The parts of a body, in order.

    Attributes:
        images: content of parts ``image`` as bytes, of ``image_url`` as text, or what is wrong
            with one of them alone.
        texts: content of parts ``text``.
        fields: content of all other parts, by name.
    """

    images: list[bytes | str | RobustZSError] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


async def read_multipart(
    content_type: str,
    chunks: AsyncIterator[bytes],
    limits: Limits,
    *,
    known: Collection[str],
    takes_texts: bool = False,
) -> Form:
    """Read a form.

    What a part is, its name says alone: file names and content types are not looked at.

    Args:
        content_type: header with the boundary.
        chunks: the body.
        limits: on parts.
        known: names of fields that may be there once.
        takes_texts: whether ``text`` may be there, any number of times.

    Raises:
        BodyMalformedError: no multipart, or cut off.
        UnknownFieldError: a part of another name.
        RepeatedFieldError: a field twice.
        FieldTooLargeError: a field that is too large.
        TooManyImagesError: more images than allowed.
        FieldValueError: a field that is no UTF-8.
    """
    parts = _Parts(limits, known, takes_texts)
    try:
        parser = MultipartParser(
            _boundary(content_type),
            {
                "on_part_begin": parts.begin,
                "on_part_data": parts.data,
                "on_part_end": parts.end,
                "on_header_field": parts.header_name,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_finished,
                "on_end": parts.finish,
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=_MAX_HEADER_BYTES,
        )
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise BodyMalformedError(
            "the body is no multipart/form-data with the boundary of its content type",
            hint="let the HTTP library write the content type, as curl -F does",
        ) from error
    if not parts.finished:
        raise BodyMalformedError("the multipart body ends before its last boundary")
    return parts.form


class _Parts:
    """Collects what the parser finds."""

    def __init__(self, limits: Limits, known: Collection[str], takes_texts: bool) -> None:
        self.form = Form()
        self.finished = False
        self._limits = limits
        repeated = (IMAGE, IMAGE_URL, *((TEXT,) if takes_texts else ()))
        self._names = (*known, *repeated)
        self._repeated = repeated
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._content = bytearray()
        self._room = 0
        self._overfull = False

    def begin(self) -> None:
        self._headers = {}
        self._header = (bytearray(), bytearray())
        self._content = bytearray()
        self._overfull = False

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def header_end(self) -> None:
        name = bytes(self._header[0]).lower()
        if name in self._headers:
            raise BodyMalformedError(
                f"a part has the header {quoted(name.decode('latin-1'))} twice"
            )
        self._headers[name] = bytes(self._header[1])
        self._header = (bytearray(), bytearray())

    def headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise BodyMalformedError("a part has no `Content-Disposition: form-data; name=...`")
        if self._headers.get(b"content-transfer-encoding", b"").lower() not in _ENCODINGS:
            raise BodyMalformedError("a part has a Content-Transfer-Encoding: send it as it is")
        self._name = options[b"name"].decode("utf-8", "replace")
        if self._name not in self._names:
            raise unknown_field(self._name[: _MAX_NAME + 1], self._names, where="part")
        if self._name in self._repeated:
            self._count()
        elif self._name in self.form.fields:
            raise RepeatedFieldError(f"the part {self._name!r} is there twice", param=self._name)
        limits = self._limits
        self._room = {
            IMAGE: limits.max_image_bytes,
            IMAGE_URL: 4 * limits.max_url_chars,
            TEXT: 4 * limits.max_text_chars,
        }.get(self._name, limits.max_field_bytes)

    def data(self, data: bytes, start: int, end: int) -> None:
        if len(self._content) + end - start <= self._room and not self._overfull:
            self._content += data[start:end]
            return
        if self._name != IMAGE:
            raise FieldTooLargeError(
                f"the part {self._name!r} is larger than {self._room} bytes", param=self._name
            )
        # Only this image is refused: what follows of it is dropped.
        self._overfull = True
        self._content.clear()

    def end(self) -> None:
        if self._name == IMAGE:
            self.form.images.append(
                _too_large(self._limits) if self._overfull else bytes(self._content)
            )
        else:
            text = _decoded(self._name, bytes(self._content))
            if self._name == IMAGE_URL:
                self.form.images.append(text)
            elif self._name == TEXT and TEXT in self._repeated:
                self.form.texts.append(text)
            else:
                self.form.fields[self._name] = text
        self._content = bytearray()

    def finish(self) -> None:
        self.finished = True

    def _count(self) -> None:
        if self._name == TEXT:
            if len(self.form.texts) >= self._limits.max_texts:
                raise FieldTooLargeError(
                    f"more than {self._limits.max_texts} texts",
                    hint="send them in several requests",
                )
        elif len(self.form.images) >= self._limits.max_images:
            raise too_many_images(self._limits)


def too_many_images(limits: Limits) -> TooManyImagesError:
    """The error for more images than one request may bring."""
    return TooManyImagesError(
        f"more than {limits.max_images} images",
        hint="send them in several requests",
        param=IMAGE,
    )


def _too_large(limits: Limits) -> ImageTooLargeError:
    return ImageTooLargeError(f"the image has more than {limits.max_image_bytes} bytes")


def _boundary(content_type: str) -> bytes:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= _MAX_BOUNDARY:
        raise BodyMalformedError(
            f"the content type names no boundary of 1 to {_MAX_BOUNDARY} characters",
            hint="let the HTTP library write the content type, as curl -F does",
        )
    return boundary


def _decoded(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FieldValueError(
            f"the part {name!r} is not UTF-8 at byte {error.start}", param=name
        ) from error
