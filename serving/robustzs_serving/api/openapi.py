"""The OpenAPI document, from the table of operations.

``python -m robustzs_serving.api`` writes it to ``docs/``.
"""

from __future__ import annotations

import copy
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from robustzs._version import __version__
from robustzs_serving.api.bodies import bodies
from robustzs_serving.api.operations import OPERATIONS, Operation, Success
from robustzs_serving.api.schemas import ErrorEnvelope
from robustzs_serving.codes import CODES
from robustzs_serving.ingest.fields import CLASSIFY_FIELDS, EMBED_FIELDS
from robustzs_serving.settings import ServiceSettings
from robustzs_serving.stored import ID_PATTERN
from robustzs_serving.stored.store import MAX_PAGE

Document = dict[str, Any]

_REF = "#/components/schemas/{model}"
_SCORES = frozenset({"probability", "conditional_probability", "similarity"})
_TAGS = {
    "Classify": "Images in, answers out.",
    "Embed": "Images and texts in, features out.",
    "Kept": "Label sets and hierarchies that a key keeps under ids of its own, encoded once.",
    "About": "What the service says of itself.",
    "Operate": "For orchestrators and Prometheus; no key is needed.",
}
_TAG_LIST = r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$'
PARAMETERS: dict[str, Document] = {
    "id": {
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": ID_PATTERN},
        "description": "of the client's choice",
        "example": "pets",
    },
    "name": {
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
        "example": "robustzs-lite",
    },
    "after": {
        "in": "query",
        "schema": {"type": "string", "maxLength": 64, "default": ""},
        "description": "only ids behind this one",
    },
    "limit": {
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100},
    },
    "If-Match": {
        "in": "header",
        "schema": {"type": "string", "maxLength": 2000, "pattern": _TAG_LIST},
        "description": "go on only if the ETag is one of these; `*` for any",
    },
    "If-None-Match": {
        "in": "header",
        "schema": {"type": "string", "maxLength": 2000, "pattern": _TAG_LIST},
        "description": "go on only if the ETag is none of these; `*`: only if nothing is there",
    },
}
_HEADERS: dict[str, Document] = {
    "X-Request-ID": {
        "description": "names the request in the service's log",
        "required": True,
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "of the content; for If-Match",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9a-f]{32}"$'},
    },
    "Last-Modified": {
        "description": "when it was put",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {"description": "where it is", "required": True, "schema": {"type": "string"}},
    "Cache-Control": {"description": "", "required": True, "schema": {"type": "string"}},
    "Retry-After": {
        "description": "seconds to wait",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "how to send a key",
        "required": True,
        "schema": {"type": "string"},
    },
}
_OF_STATUS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


def openapi(settings: ServiceSettings) -> Document:
    """The document of a service with these limits, keys and scores."""
    return _Builder(settings).document()


class _Builder:
    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._schemas: dict[str, Document] = {}

    def document(self) -> Document:
        paths: dict[str, Document] = {}
        for operation in OPERATIONS:
            paths.setdefault(operation.path, {})[operation.method.lower()] = self._operation(
                operation
            )
        components: Document = {
            "schemas": dict(sorted(self._schemas.items())),
            "headers": copy.deepcopy(_HEADERS),
            "parameters": {
                name: {"name": name, **copy.deepcopy(about)} for name, about in PARAMETERS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        }
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "robustzs",
                "version": __version__,
                "summary": "Adversarially robust, hierarchical zero-shot image classification",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
            "paths": paths,
            "components": components,
        }

    def _operation(self, operation: Operation) -> Document:
        made: Document = {
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
        }
        if operation.description:
            made["description"] = operation.description
        if operation.parameters:
            made["parameters"] = [
                {"$ref": f"#/components/parameters/{name}"} for name in operation.parameters
            ]
        if operation.body is not None:
            made["requestBody"] = self._body(operation)
        made["responses"] = self._responses(operation)
        if operation.is_public:
            made["security"] = []
        else:
            keyed: list[Document] = [{"bearer": []}, {"apiKey": []}]
            made["security"] = keyed if self._settings.keys_file is not None else [{}, *keyed]
        return made

    def _body(self, operation: Operation) -> Document:
        models = bodies(self._settings)
        by_name = {
            "classify": models.classify,
            "embed": models.embed,
            "zero-shot": models.zero_shot,
            "label-set": models.label_set,
            "hierarchy": models.hierarchy,
        }
        schema = self._schema(by_name[str(operation.body)], "validation")
        content: Document = {"application/json": {"schema": schema}}
        if operation.body in ("classify", "embed"):
            content = {"multipart/form-data": self._form(operation), **content}
        return {"required": True, "content": content}

    def _form(self, operation: Operation) -> Document:
        """The same fields as parts of a form: all are text but the images."""
        is_embed = operation.body == "embed"
        fields = EMBED_FIELDS if is_embed else CLASSIFY_FIELDS
        limits = self._settings.limits
        image = {"type": "string", "contentMediaType": "application/octet-stream"}
        properties: Document = {
            "image": {
                "type": "array",
                "items": image,
                "maxItems": limits.max_images,
                "description": "files; repeat the part. Names and content types are not looked at",
            },
            "image_url": {
                "type": "array",
                "items": {"type": "string", "pattern": "^https://"},
                "description": "images by URL, where the deployer turned them on",
            },
        }
        if is_embed:
            properties["text"] = {
                "type": "array",
                "items": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": limits.max_text_chars,
                },
                "maxItems": limits.max_texts,
                "description": "texts; repeat the part",
            }
        for name in fields:
            properties[name] = _FORM_FIELDS[name]
        form: Document = {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        }
        either = ("image", "image_url", "text") if is_embed else ("image", "image_url")
        form["anyOf"] = [
            {"required": [name], "properties": {name: {"minItems": 1}}} for name in either
        ]
        return {
            "schema": form,
            "encoding": {
                name: {"contentType": "text/plain"} for name in properties if name != "image"
            }
            | {"image": {"contentType": "application/octet-stream"}},
        }

    def _responses(self, operation: Operation) -> Document:
        made = {
            str(status): self._success(success) for status, success in operation.answers.items()
        }
        by_status: dict[int, list[str]] = {}
        for code in dict.fromkeys(operation.errors):
            by_status.setdefault(CODES[code][0], []).append(code)
        for status in sorted(by_status):
            made[str(status)] = self._error(status, by_status[status])
        return made

    def _success(self, success: Success) -> Document:
        made: Document = {"description": success.description, "headers": _headers(success.headers)}
        if success.media_type is not None:
            schema: Document = {"type": "string"}
            if success.model is not None:
                schema = self._schema(success.model, "serialization")
            made["content"] = {success.media_type: {"schema": schema}}
        return made

    def _error(self, status: int, codes: list[str]) -> Document:
        """The envelope with these codes alone."""
        envelope = self._schema(ErrorEnvelope, "serialization")
        only = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
        return {
            "description": ", ".join(f"`{code}`" for code in codes),
            "headers": _headers(_OF_STATUS.get(status, ())),
            "content": {"application/json": {"schema": {"allOf": [envelope, only]}}},
        }

    def _schema(self, model: Any, mode: JsonSchemaMode) -> Document:
        schema = _plain_arrays(TypeAdapter(model).json_schema(mode=mode, ref_template=_REF))
        for name, definition in schema.pop("$defs", {}).items():
            self._define(name, definition)
        title = schema.get("title")
        if title is not None and "properties" in schema:
            self._define(str(title), schema)
            return {"$ref": _REF.format(model=title)}
        return schema

    def _define(self, name: str, definition: Document) -> None:
        if self._settings.score_policy.kind == "withheld":
            definition = _without_scores(definition)
        known = self._schemas.setdefault(name, definition)
        if known != definition:
            raise ValueError(f"two schemas have the name {name}")


def _headers(names: tuple[str, ...]) -> Document:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *names)}


def _plain_arrays(value: Any) -> Any:
    """Tuples of one kind as lists of a fixed length: the same, and all tools know it."""
    if isinstance(value, list):
        return [_plain_arrays(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _plain_arrays(item) for key, item in value.items()}
    places = made.get("prefixItems")
    if places and all(place == places[0] for place in places):
        made["items"] = made.pop("prefixItems")[0]
    return made


def _without_scores(definition: Document) -> Document:
    """What is withheld is null."""
    changed = copy.deepcopy(definition)
    for name, about in changed.get("properties", {}).items():
        if name in _SCORES:
            description = {k: v for k, v in about.items() if k in ("title", "description")}
            changed["properties"][name] = {**description, "type": "null"}
    return changed


_FORM_FIELDS: Document = {
    "strategy": {"type": "string", "enum": ["marginal", "topdown", "hyponyms", "level"]},
    "rule": {"type": "string", "enum": ["greedy", "climb"]},
    "theta": {"type": "number", "minimum": 0, "maximum": 1},
    "target_accuracy": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "temperature": {"type": "number", "minimum": 1e-6, "maximum": 1e6},
    "top_k": {"type": "integer", "minimum": 1, "maximum": 1000},
    "level": {"type": "string", "minLength": 1, "description": "a depth or the name of a rank"},
    "root": {"type": "string", "minLength": 1, "description": "an id, a synset or a name"},
    "reject": {"type": "string", "description": "true, false, or the least similarity"},
    "n_hyponyms": {"type": "integer", "minimum": 1, "maximum": 1000},
    "labels": {"type": "string", "minLength": 1, "description": "`cat,dog`, or JSON as below"},
    "label_set": {"type": "string", "pattern": ID_PATTERN},
    "hierarchy": {
        "type": "string",
        "minLength": 1,
        "description": "`wordnet`, `wordnet-nouns`, `flat`, the id of a kept one, or JSON as below",
    },
    "templates": {"type": "string", "minLength": 1, "description": "a name, a template, or JSON"},
    "on_ambiguous": {"type": "string", "enum": ["error", "first"]},
    "on_unknown": {"type": "string", "enum": ["error", "attach"]},
    "model": {"type": "string", "minLength": 1},
    "encoding": {"type": "string", "enum": ["float", "base64"]},
}
