"""``docs/api-reference.md``, from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from robustzs_serving.codes import CODES

Document = dict[str, Any]

_HEAD = """# API reference

Made from `docs/openapi.json` by `python -m robustzs_serving.api`; do not edit it. A service gives
its own document, with its own limits, at `/openapi.json`. `docs/service.md` explains how things
hang together.
"""


def reference(document: Document) -> str:
    """The reference as Markdown.

    Args:
        document: from ``openapi``.
    """
    parts = [_HEAD, *_operations(document), *_codes(), *_schemas(document)]
    return "\n".join(parts).rstrip() + "\n"


def _operations(document: Document) -> Iterator[str]:
    for tag in document["tags"]:
        yield f"## {tag['name']}\n\n{tag['description']}\n"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(document, path, method, operation)


def _operation(document: Document, path: str, method: str, operation: Document) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n\n{operation['summary']}.\n"
    if "description" in operation:
        yield f"{operation['description']}\n"
    if not operation["security"]:
        yield "Needs no key.\n"
    if parameters := operation.get("parameters"):
        rows = []
        for parameter in parameters:
            found = _resolved(document, parameter)
            name = f"`{found['name']}`" + (" (required)" if found.get("required") else "")
            text = found.get("description", "")
            rows.append(f"| {name} | {found['in']} | {_type(found['schema'])} | {_cell(text)} |")
        yield "\n".join(["| parameter | in | type | |", "|---|---|---|---|", *rows]) + "\n"
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body, `{media_type}`: {_type(content['schema'])}\n"
        if "properties" in content["schema"]:
            yield _properties(content["schema"])
    rows = [
        f"| {status} | {_body_type(response)} | {_cell(response['description'])} |"
        for status, response in operation["responses"].items()
    ]
    yield "\n".join(["| status | body | |", "|---|---|---|", *rows]) + "\n"


def _codes() -> Iterator[str]:
    yield "## Error codes\n"
    rows = [f"| `{code}` | {status} | {_cell(text)} |" for code, (status, text) in CODES.items()]
    yield "\n".join(["| code | status | |", "|---|---|---|", *rows]) + "\n"


def _schemas(document: Document) -> Iterator[str]:
    yield "## Schemas\n"
    for name, schema in document["components"]["schemas"].items():
        yield f"### {name}\n"
        if "description" in schema:
            yield f"{' '.join(schema['description'].split())}\n"
        if "properties" in schema:
            yield _properties(schema)
        else:
            yield f"{_type(schema)}\n"


def _properties(schema: Document) -> str:
    required = set(schema.get("required", ()))
    rows = []
    for name, about in schema["properties"].items():
        text = about.get("description", "")
        if "default" in about and about["default"] is not None:
            text = f"{text}; default `{_plain(about['default'])}`".removeprefix("; ")
        mark = "yes" if name in required else ""
        rows.append(f"| `{name}` | {_type(about)} | {mark} | {_cell(text)} |")
    return "\n".join(["| field | type | required | |", "|---|---|---|---|", *rows]) + "\n"


def _body_type(response: Document) -> str:
    contents = response.get("content", {})
    if not contents:
        return ""
    media_type, content = next(iter(contents.items()))
    schema = content["schema"]
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    return _type(schema) if media_type == "application/json" else f"`{media_type}`"


def _type(schema: Document) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema and "type" not in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[key]))
    if "const" in schema:
        return f"`{_plain(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{_plain(value)}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        inside = schema.get("prefixItems")
        if inside is not None:
            return "[" + ", ".join(_type(one) for one in inside) + "]"
        return f"list of {_type(schema.get('items', {}))}{_bounds(schema)}"
    return f"{schema.get('format') or kind}{_bounds(schema)}"


_BOUNDS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "pattern": "`{}`",
}


def _bounds(schema: Document) -> str:
    found = [text.format(_cell(str(schema[key]))) for key, text in _BOUNDS.items() if key in schema]
    return f" ({', '.join(found)})" if found else ""


def _resolved(document: Document, parameter: Document) -> Document:
    found: Document = document["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
    return found


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
