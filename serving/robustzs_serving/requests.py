"""From an HTTP request to images and options. Nothing that a client sends is trusted.

File names, content types and declared sizes are not looked at; trees and labels come as data, never
as paths; what is too large is refused while it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from robustzs.classifier import Options
from robustzs.errors import LabelError, UsageError
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.hierarchy.load import BUILT_IN
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.entries import Entry, build_labels
from robustzs.labels.label_set import LabelSet
from robustzs_serving.errors import BodyTooLargeError
from robustzs_serving.settings import ServiceSettings

_OPTIONS = (
    "strategy",
    "rule",
    "theta",
    "temperature",
    "top_k",
    "level",
    "root",
    "reject",
    "n_hyponyms",
)
_FIELDS = (*_OPTIONS, "labels", "hierarchy", "templates", "on_ambiguous", "on_unknown", "model")
_TREE_LIMITS = HierarchyLimits(max_nodes=5_000, max_depth=32)
_MAX_TREES = 5


@dataclass(frozen=True)
class ClassifyRequest:
    """One request, checked.

    Attributes:
        images: Encoded images.
        options: How to classify.
        arguments: The other keyword arguments of ``Classifier``.
        model: Name of the model that the client wants; ``None`` takes the one that is there.
        key: The same for requests that the same classifier answers.
    """

    images: tuple[bytes, ...]
    options: Options
    arguments: dict[str, Any]
    model: str | None
    key: str


async def read_request(request: Request, settings: ServiceSettings) -> ClassifyRequest:
    """Parse and check a multipart request.

    Raises:
        BodyTooLargeError: more bytes than ``settings.limits.max_body_bytes``, declared or sent.
        UsageError: not multipart, unknown or repeated fields, values out of range.
        LabelError: wrong labels.
        HierarchyError: a wrong tree.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise UsageError("the body must be multipart/form-data", hint="curl -F image=@photo.jpg")
    form = await _read_form(request, settings)
    try:
        images, fields = await _split(form, settings)
    finally:
        await form.close()
    model = fields.pop("model", None)
    return ClassifyRequest(
        images=images,
        options=_options(fields),
        arguments=_arguments(fields, settings),
        model=model or None,
        key=json.dumps(fields, sort_keys=True),
    )


async def _read_form(request: Request, settings: ServiceSettings) -> FormData:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.limits.max_body_bytes:
        raise _too_large(settings)
    received = 0

    async def capped() -> Any:
        nonlocal received
        async for chunk in request.stream():
            received += len(chunk)
            if received > settings.limits.max_body_bytes:
                raise _too_large(settings)
            yield chunk

    parser = MultiPartParser(
        request.headers,
        capped(),
        max_files=settings.limits.max_images,
        max_fields=len(_FIELDS),
        max_part_size=settings.limits.max_field_bytes,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise UsageError(f"the multipart body is refused: {error.message}") from error


def _too_large(settings: ServiceSettings) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {settings.limits.max_body_bytes} bytes")


async def _split(
    form: FormData, settings: ServiceSettings
) -> tuple[tuple[bytes, ...], dict[str, str]]:
    images: list[bytes] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "image":
                raise UsageError(
                    f"a file in part {name[:64]!r}", hint="files belong in parts `image`"
                )
            images.append(await value.read())
        elif name not in _FIELDS:
            raise UsageError(f"unknown part {name[:64]!r}", hint=f"use {', '.join(_FIELDS)}")
        elif name in fields:
            raise UsageError(f"part {name!r} is there twice")
        else:
            fields[name] = value
    if not images:
        raise UsageError("there is no image", hint="send a file in the part `image`")
    return tuple(images), fields


def _options(fields: Mapping[str, str]) -> Options:
    given: dict[str, Any] = {name: fields[name] for name in _OPTIONS if fields.get(name)}
    for name, kind in (
        ("theta", float),
        ("temperature", float),
        ("top_k", int),
        ("n_hyponyms", int),
    ):
        if name in given:
            given[name] = _number(name, given[name], kind)
    if "reject" in given:
        words = {"true": True, "false": False}
        text = given["reject"].lower()
        given["reject"] = words[text] if text in words else _number("reject", text, float)
    return Options(**given)


def _number(name: str, text: str, kind: type[float] | type[int]) -> float:
    try:
        return kind(text)
    except ValueError as error:
        raise UsageError(f"{name} must be a number, got {text[:32]!r}") from error


def _arguments(fields: Mapping[str, str], settings: ServiceSettings) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        name: fields[name] for name in ("on_ambiguous", "on_unknown") if fields.get(name)
    }
    if fields.get("labels"):
        arguments["labels"] = _labels(fields["labels"], settings)
    if fields.get("hierarchy"):
        arguments["hierarchy"] = _trees(fields["hierarchy"])
    if fields.get("templates"):
        arguments["templates"] = _templates(fields["templates"])
    return arguments


def _json_or_text(text: str, what: str) -> Any:
    # A template may be `{}` and a label may begin with a brace, so an object must look like one.
    if not text.lstrip().startswith(("[", '{"')):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} looks like JSON and is not") from error


def _labels(text: str, settings: ServiceSettings) -> LabelSet:
    value = _json_or_text(text, "labels")
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list) or not value:
        raise LabelError("labels must be a list", hint='["cat", "dog"] or cat,dog')
    if len(value) > settings.limits.max_labels:
        raise LabelError(f"{len(value)} labels, the limit is {settings.limits.max_labels}")
    return LabelSet(
        build_labels([_entry(i, item) for i, item in enumerate(value)], source="labels")
    )


def _entry(position: int, item: Any) -> Entry:
    place = f"label {position + 1}"
    if isinstance(item, str):
        return Entry(place, name=item)
    if not isinstance(item, dict) or not set(item) <= {"id", "name", "prompt", "synset", "aliases"}:
        raise LabelError(
            f"{place} is neither a text nor an object of id, name, prompt, synset and aliases"
        )
    texts = {key: value for key, value in item.items() if key != "aliases" and value is not None}
    aliases = item.get("aliases") or []
    if not isinstance(aliases, list) or not all(
        isinstance(text, str) for text in (*texts.values(), *aliases)
    ):
        raise LabelError(f"{place} has a field that is not a text")
    return Entry(place, aliases=tuple(aliases), **texts)


def _trees(text: str) -> list[str | Hierarchy]:
    value = _json_or_text(text, "hierarchy")
    several = value if isinstance(value, list) else [value]
    if not 1 <= len(several) <= _MAX_TREES:
        raise UsageError(f"{len(several)} hierarchies, the limit is {_MAX_TREES}")
    return [_tree(item) for item in several]


def _tree(item: Any) -> str | Hierarchy:
    if isinstance(item, dict):
        return Hierarchy.from_json(json.dumps(item), source="hierarchy", limits=_TREE_LIMITS)
    # Names, and only names: the service opens no file that a client points to.
    if item in BUILT_IN:
        return str(item)
    raise UsageError(
        f"unknown hierarchy {str(item)[:64]!r}",
        hint=f"{', '.join(BUILT_IN)}, or trees in their JSON form",
    )


def _templates(text: str) -> str | list[str]:
    value = _json_or_text(text, "templates")
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise UsageError("templates must be a text or a list of texts")
