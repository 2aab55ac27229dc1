"""The client's types are the published schemas; both clients say the same."""

from __future__ import annotations

import inspect
import json
from importlib import resources
from typing import Any, get_type_hints

import pytest
import robustzs_client as sdk
from pydantic import BaseModel, TypeAdapter
from robustzs_client._calls import ClassifyOptions
from robustzs_serving.api import schemas
from robustzs_serving.ingest.fields import CLASSIFY_FIELDS

SCHEMA = json.loads(
    resources.files("robustzs.schemas").joinpath("answer.schema.json").read_text("utf-8")
)


def _client_schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(mode="validation")
    return {
        model.__name__: {k: v for k, v in schema.items() if k != "$defs"},
        **schema.get("$defs", {}),
    }


def _kind(schema: dict[str, Any]) -> str:
    """What a field holds: type, reference, items and whether null; not its bounds."""
    if "anyOf" in schema:
        return " | ".join(sorted(_kind(one) for one in schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = str(schema.get("type", "any"))
    return f"{kind} of {_kind(schema['items'])}" if "items" in schema else kind


@pytest.mark.parametrize("name", SCHEMA["$defs"])
def test_types_are_those_of_the_published_schema_field_for_field(name: str) -> None:
    published = SCHEMA["$defs"][name]
    ours = _client_schema(getattr(sdk, name))[name]
    assert ours["properties"].keys() == published["properties"].keys()
    for field, expected in published["properties"].items():
        assert _kind(ours["properties"][field]) == _kind(expected), field
        assert ours["properties"][field].get("default") == expected.get("default"), field
    # Less may be asked of a service than it promises, never more.
    assert set(ours.get("required", [])) <= set(published["required"])


@pytest.mark.parametrize("name", ["StoredInfo", "ModelDetails"])
def test_types_are_those_of_the_services_answers(name: str) -> None:
    theirs = getattr(schemas, name).model_json_schema()["properties"]
    ours = getattr(sdk, name).model_json_schema()["properties"]
    assert ours.keys() == theirs.keys()


def test_options_are_the_fields_of_the_service() -> None:
    assert set(ClassifyOptions.__annotations__) == set(CLASSIFY_FIELDS)


def test_an_answer_goes_through_unchanged() -> None:
    from tests.classifier.test_golden import __file__ as golden

    text = golden.replace("test_golden.py", "golden_answer.json")
    with open(text, encoding="utf-8") as stream:
        document = json.load(stream)
    assert sdk.Answer.model_validate(document).model_dump(mode="json") == document


def test_what_a_newer_service_adds_is_passed_over() -> None:
    error = sdk.AnswerError.model_validate(
        {"image": "a", "error": {"code": "c", "message": "m", "new": 1}, "new": {}}
    )
    assert error.error.code == "c"


def _public(kind: type) -> dict[str, Any]:
    return {
        name: member
        for name, member in vars(kind).items()
        if callable(member) and not name.startswith("_")
    }


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    one, other = _public(sdk.Client), _public(sdk.AsyncClient)
    assert one.keys() == other.keys()
    for name in [*one, "__init__"]:
        sync, later = (inspect.signature(vars(k)[name]) for k in (sdk.Client, sdk.AsyncClient))
        arguments = [
            [(p.name, p.kind, p.default) for p in signature.parameters.values()]
            for signature in (sync, later)
        ]
        assert arguments[0] == arguments[1], name
    streams = {"classify_stream", "classify_folder"}
    for name, method in other.items():
        assert inspect.iscoroutinefunction(method) != (name in streams), name


def test_public_names_are_all_there_and_sorted() -> None:
    assert sdk.__all__ == sorted(sdk.__all__)
    assert all(hasattr(sdk, name) for name in sdk.__all__)
    assert TypeAdapter(sdk.Row).validate_python(
        {"image": "a", "error": {"code": "c", "message": "m"}}
    )
    assert "labels" in get_type_hints(ClassifyOptions)
