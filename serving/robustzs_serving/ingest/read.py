"""The readers of request bodies, one for each kind of request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from starlette.requests import Request

from robustzs.classifier import Options
from robustzs.classifier.options import MAX_TOP_K
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label_set import LabelSet
from robustzs.labels.rules import text_problem
from robustzs_serving.errors import (
    BodyMalformedError,
    FieldTooLargeError,
    FieldValueError,
    MediaTypeError,
    MissingFieldError,
    TextError,
    quoted,
)
from robustzs_serving.ingest.body import (
    JSON_TYPE,
    RawImage,
    chunks_of,
    from_base64,
    media_type,
    need_images,
    read_json,
    read_json_object,
    to_parts,
)
from robustzs_serving.ingest.calls import ClassifyCall, EmbedCall, ImagePart
from robustzs_serving.ingest.costs import check_prompts, check_scores
from robustzs_serving.ingest.fetch import Fetcher
from robustzs_serving.ingest.fields import (
    CLASSIFY_FIELDS,
    EMBED_FIELDS,
    OPTION_KINDS,
    blamed,
    from_json,
    from_text,
    json_or_text,
    unknown_field,
)
from robustzs_serving.ingest.labels import labels_of, templates_of
from robustzs_serving.ingest.multipart import read_multipart
from robustzs_serving.ingest.strict_json import Json
from robustzs_serving.ingest.trees import AskedTrees, stored_trees_of, trees_of
from robustzs_serving.settings import Limits, ServiceSettings

_JSON_FIELDS = ("labels", "hierarchy", "templates")
_POLICIES = {"on_ambiguous": ("error", "first"), "on_unknown": ("error", "attach")}
_HF_TEMPLATE = "This is a photo of {}."
_MAX_ID = 64
_MAX_MODEL = 512

Encoding = Literal["float", "base64"]


async def read_classify(
    request: Request, settings: ServiceSettings, *, fetcher: Fetcher | None = None
) -> ClassifyCall:
    """The body of ``POST /v1/classify``, multipart or JSON.

    Args:
        request: not yet read.
        settings: of the service.
        fetcher: of images by URL; by default one with the service's limits.

    Raises:
        ServiceError: the body, a field or an option is wrong.
        LabelError: wrong labels or templates.
        HierarchyError: a wrong tree.
    """
    images, fields = await _read(request, settings.limits, CLASSIFY_FIELDS)
    need_images(images)
    call = _classify_call(fields, settings)
    return call.with_images(await to_parts(images, settings, fetcher))


async def read_embed(
    request: Request, settings: ServiceSettings, *, fetcher: Fetcher | None = None
) -> EmbedCall:
    """The body of ``POST /v1/embed``, multipart or JSON.

    Raises:
        ServiceError: the body, a field or a text is wrong.
    """
    limits = settings.limits
    kind = media_type(request)
    if kind == JSON_TYPE:
        body = await read_json_object(request, limits)
        images, fields = body.images, body.fields
        texts = _texts(fields)
        for name in fields:
            if name not in EMBED_FIELDS:
                raise unknown_field(name, (*EMBED_FIELDS, "image", "images", "text", "texts"))
    else:
        chunks = chunks_of(request, limits)
        form = await read_multipart(
            _form_type(kind), chunks, limits, known=EMBED_FIELDS, takes_texts=True
        )
        images, texts, fields = form.images, form.texts, dict(form.fields)
    if not images and not texts:
        raise MissingFieldError("there is no image and no text", param="image")
    _check_texts(texts, limits)
    encoding = fields.get("encoding", "float")
    if encoding not in get_args(Encoding):
        raise FieldValueError(
            f"encoding must be float or base64, got {quoted(encoding)}", param="encoding"
        )
    return EmbedCall(
        images=await to_parts(images, settings, fetcher),
        texts=tuple(texts),
        encoding=cast("Encoding", encoding),
        model=_model(fields),
    )


async def read_zero_shot(request: Request, settings: ServiceSettings) -> ClassifyCall:
    """The body of Hugging Face's zero-shot image classification.

    ``{"inputs": BASE64, "parameters": {"candidate_labels": [...], "hypothesis_template": "..."}}``;
    every label is listed in ``top_k``, up to 1000.

    Raises:
        ServiceError: the body or a field is wrong.
        LabelError: wrong labels or template.
    """
    limits = settings.limits
    document = await read_json(request, limits)
    inputs, parameters = _zero_shot_parts(document)
    with blamed("candidate_labels"):
        labels = labels_of(parameters.get("candidate_labels"), limits)
    with blamed("hypothesis_template"):
        templates = templates_of(parameters.get("hypothesis_template") or _HF_TEMPLATE, limits)
    image = from_base64(inputs, "inputs", limits)
    call = ClassifyCall(
        images=(ImagePart(image) if isinstance(image, bytes) else _failed(image),),
        options=Options(top_k=min(len(labels), MAX_TOP_K)),
        labels=labels,
        hierarchy=("flat",),
        templates=templates,
    )
    check_prompts(call, limits)
    return call


async def read_label_set(request: Request, settings: ServiceSettings) -> LabelSet:
    """The body of ``PUT /v1/label-sets/{id}``: a JSON list, or ``{"labels": [...]}``.

    Raises:
        ServiceError: the body is wrong.
        LabelError: the labels are.
    """
    document = await read_json(request, settings.limits)
    value = _only("labels", document) if isinstance(document, dict) else document
    with blamed("labels"):
        return labels_of(value, settings.limits)


async def read_hierarchy(request: Request, settings: ServiceSettings) -> tuple[Hierarchy, ...]:
    """The body of ``PUT /v1/hierarchies/{id}``: a tree in its JSON form, or several.

    Several are a list, or ``{"trees": [...]}``.

    Raises:
        ServiceError: the body is wrong.
        HierarchyError: a tree is.
    """
    document = await read_json(request, settings.limits)
    if isinstance(document, dict) and "trees" in document:
        document = _only("trees", document)
    with blamed("hierarchy"):
        return stored_trees_of(document, settings.limits)


async def _read(
    request: Request, limits: Limits, known: tuple[str, ...]
) -> tuple[list[RawImage], dict[str, Json]]:
    """Images, and fields of which those of a form have become what JSON would have given."""
    kind = media_type(request)
    if kind == JSON_TYPE:
        body = await read_json_object(request, limits)
        for name in body.fields:
            if name not in known:
                raise unknown_field(name, (*known, "image", "images"))
        fields = {
            name: from_json(name, OPTION_KINDS[name], value) if name in OPTION_KINDS else value
            for name, value in body.fields.items()
        }
        return body.images, fields
    form = await read_multipart(_form_type(kind), chunks_of(request, limits), limits, known=known)
    return form.images, {name: _value(name, text, limits) for name, text in form.fields.items()}


def _value(name: str, text: str, limits: Limits) -> Json:
    if name in OPTION_KINDS:
        return from_text(name, OPTION_KINDS[name], text)
    if not text.strip():
        raise FieldValueError(f"{name} is empty", hint="leave the field out", param=name)
    return json_or_text(name, text, limits) if name in _JSON_FIELDS else text


def _classify_call(fields: Mapping[str, Json], settings: ServiceSettings) -> ClassifyCall:
    limits = settings.limits
    check_scores(fields, settings.score_policy)
    options = _options({name: fields[name] for name in OPTION_KINDS if name in fields})
    labels = templates = None
    if "labels" in fields:
        if "label_set" in fields:
            raise FieldValueError("labels and label_set were given", hint="give one of the two")
        with blamed("labels"):
            labels = labels_of(fields["labels"], limits)
    if "templates" in fields:
        with blamed("templates"):
            templates = templates_of(fields["templates"], limits)
    asked = AskedTrees()
    if "hierarchy" in fields:
        with blamed("hierarchy"):
            asked = trees_of(fields["hierarchy"], limits)
    call = ClassifyCall(
        images=(),
        options=options,
        labels=labels,
        label_set_id=_text(fields, "label_set", _MAX_ID),
        hierarchy=asked.trees,
        hierarchy_id=asked.stored_id,
        templates=templates,
        model=_model(fields),
        **{name: _policy(fields, name) for name in _POLICIES},
    )
    check_prompts(call, limits)
    return call


def _options(given: dict[str, Any]) -> Options:
    for name, value in given.items():
        # Alone first, so that the error can name the field.
        with blamed(name):
            Options(**{name: value})
    return Options(**given)


def _policy(fields: Mapping[str, Json], name: str) -> Any:
    value = fields.get(name, "error")
    if value not in _POLICIES[name]:
        raise FieldValueError(
            f"{name} must be {' or '.join(_POLICIES[name])}, got {quoted(value)}", param=name
        )
    return value


def _model(fields: Mapping[str, Json]) -> str | None:
    return _text(fields, "model", _MAX_MODEL)


def _text(fields: Mapping[str, Json], name: str, limit: int) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise FieldValueError(
            f"{name} must be a text of 1 to {limit} characters, got {quoted(value)}", param=name
        )
    return value.strip()


def _texts(fields: dict[str, Json]) -> list[Json]:
    if "text" in fields and "texts" in fields:
        raise FieldValueError("text and texts were given", hint="give one of the two")
    one, several = fields.pop("text", None), fields.pop("texts", None)
    found = [one] if one is not None else ([] if several is None else several)
    if not isinstance(found, list):
        raise FieldValueError(f"texts must be a list, got {quoted(found)}", param="texts")
    return found


def _check_texts(texts: list[Json], limits: Limits) -> None:
    if len(texts) > limits.max_texts:
        raise FieldTooLargeError(f"{len(texts)} texts, the limit is {limits.max_texts}")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise TextError(f"text {number} is {quoted(text)}, not a text", param="texts")
        if not text.strip():
            raise TextError(f"text {number} is empty", param="texts")
        problem = text_problem(text, f"text {number}", limits.max_text_chars)
        if problem:
            raise TextError(problem, param="texts")


def _zero_shot_parts(document: Json) -> tuple[str, dict[str, Json]]:
    if not isinstance(document, dict):
        raise BodyMalformedError("the body must be a JSON object", hint='{"inputs": "..."}')
    for name in document:
        if name not in ("inputs", "parameters"):
            raise unknown_field(name, ("inputs", "parameters"))
    inputs, parameters = document.get("inputs"), document.get("parameters")
    if not isinstance(inputs, str):
        raise MissingFieldError("inputs must be an image in base64", param="inputs")
    if not isinstance(parameters, dict) or "candidate_labels" not in parameters:
        raise MissingFieldError("parameters must have candidate_labels", param="parameters")
    for name in parameters:
        if name not in ("candidate_labels", "hypothesis_template"):
            raise unknown_field(name, ("candidate_labels", "hypothesis_template"))
    return inputs, parameters


def _only(name: str, document: dict[str, Json]) -> Json:
    for key in document:
        if key != name:
            raise unknown_field(key, (name,))
    return document.get(name)


def _failed(image: Any) -> ImagePart:
    return ImagePart(b"", image)


def _form_type(kind: str) -> str:
    if kind.split(";")[0].strip().lower() != "multipart/form-data":
        raise MediaTypeError(
            f"bodies of type {quoted(kind)} are not read",
            hint="send multipart/form-data (curl -F image=@photo.jpg) or application/json",
        )
    return kind
