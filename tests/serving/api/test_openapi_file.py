"""The OpenAPI document: valid, in step with code and files, and honest about bodies."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from robustzs_serving.api.__main__ import documents
from robustzs_serving.api.openapi import openapi
from robustzs_serving.api.operations import OPERATIONS
from robustzs_serving.app import create_app
from robustzs_serving.codes import CODES
from robustzs_serving.settings import Limits, ServiceSettings
from starlette.routing import Route

from robustzs.schemas.__main__ import schemas
from tests.factories import picture_bytes

Served = Callable[..., httpx.Response]
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi(ServiceSettings())


def _validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": document["components"]})


def _response_schema(
    document: dict[str, Any], path: str, method: str, response: httpx.Response
) -> dict[str, Any]:
    answers = document["paths"][path][method.lower()]["responses"]
    assert str(response.status_code) in answers, (path, response.status_code, response.text)
    answer = answers[str(response.status_code)]
    for name in answer["headers"]:
        assert name.lower() in response.headers
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if not response.content:
        assert "content" not in answer
        return {}
    schema: dict[str, Any] = answer["content"][media_type]["schema"]
    return schema


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    errors = list(OpenAPIV31SpecValidator(document).iter_errors())
    assert not errors, errors[0].message
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_files_are_what_the_code_says() -> None:
    for name, text in documents().items():
        kept = (DOCS / name).read_text(encoding="utf-8")
        assert kept == text, f"run python -m robustzs_serving.api: docs/{name} is another"


def test_every_route_is_an_operation_and_every_operation_a_route() -> None:
    app = create_app(ServiceSettings())
    routes = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert routes == {(operation.path, operation.method) for operation in OPERATIONS}
    assert len({operation.id for operation in OPERATIONS}) == len(OPERATIONS)


def test_every_code_is_one_that_some_operation_answers() -> None:
    used = {code for operation in OPERATIONS for code in operation.errors}
    assert used <= CODES.keys()
    # These two belong to no operation: they say that there is none.
    assert CODES.keys() - used == {"not-found", "method-not-allowed"}


def test_a_result_is_the_answer_of_core_with_two_fields_more(document: dict[str, Any]) -> None:
    answer = schemas()["answer.schema.json"]["$defs"]
    ours = document["components"]["schemas"]
    for name, of_core in (("OkResult", "Answer"), ("FailedResult", "AnswerError")):
        result = json.loads(json.dumps(ours[name]).replace("#/components/schemas/", "#/$defs/"))
        assert result["properties"].pop("index")["minimum"] == 0
        assert result["properties"].pop("status")["const"] in ("ok", "error")
        assert result["properties"] == answer[of_core]["properties"]
        assert set(result["required"]) == {*answer[of_core]["required"], "index", "status"}


def test_the_served_document_has_the_limits_of_the_service(tiny: Any) -> None:
    service = tiny(limits=Limits(max_images=3), scores="withheld")
    served = service("GET", "/openapi.json").json()
    body = served["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    assert body["multipart/form-data"]["schema"]["properties"]["image"]["maxItems"] == 3
    node = served["components"]["schemas"]["Node"]["properties"]
    assert node["probability"]["type"] == "null"
    image = base64.b64encode(picture_bytes("tabby")).decode()
    response = service(
        "POST", "/v1/classify", json={"image": {"b64": image}, "labels": ["tabby", "jeep"]}
    )
    schema = _response_schema(served, "/v1/classify", "post", response)
    _validator(served, schema).validate(response.json())


def test_answers_are_as_described(served: Served, document: dict[str, Any], photo: bytes) -> None:
    b64 = base64.b64encode(photo).decode()
    image, nothing = {"b64": b64}, {"b64": base64.b64encode(b"nothing").decode()}
    hf = "/v1/hf/zero-shot-image-classification"
    parameters = {"candidate_labels": ["cat", "dog"]}
    keep = "/v1/label-sets/{id}"
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/classify", {"json": {"image": image}}),
        ("POST", "/v1/classify", {"json": {"image": image, "hierarchy": ["wordnet", "flat"]}}),
        ("POST", "/v1/classify", {"json": {"images": [image, nothing], "labels": "a,b"}}),
        ("POST", "/v1/classify", {"json": {"image": nothing}}),
        ("POST", "/v1/classify", {"json": {}}),
        ("POST", "/v1/classify", {"content": b"x", "headers": {"content-type": "text/csv"}}),
        ("POST", "/v1/embed", {"json": {"image": image, "text": "cat"}}),
        ("POST", "/v1/embed", {"json": {"images": [image, nothing], "encoding": "base64"}}),
        ("POST", "/v1/embed", {"json": {"text": " "}}),
        ("POST", hf, {"json": {"inputs": b64, "parameters": parameters}}),
        ("POST", hf, {"json": {"inputs": b64}}),
        ("PUT", keep, {"json": ["cat", "dog"]}),
        ("PUT", keep, {"json": ["cat", "dog"]}),
        ("PUT", keep, {"json": ["cat"], "headers": {"If-None-Match": "*"}}),
        ("GET", keep, {}),
        ("GET", keep, {"headers": {"If-None-Match": "*"}}),
        ("GET", "/v1/label-sets", {}),
        ("DELETE", keep, {}),
        ("DELETE", keep, {}),
        ("GET", "/v1/hierarchies", {}),
        ("GET", "/v1/models", {}),
        ("GET", "/v1/models/{name}", {}),
        ("GET", "/v1/errors", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/", {}),
        ("GET", "/livez", {}),
        ("GET", "/readyz", {}),
    ]
    statuses = []
    for method, path, request in asked:
        response = served(method, path.format(id="pets", name="robustzs-lite"), **request)
        statuses.append(response.status_code)
        schema = _response_schema(document, path, method, response)
        if response.headers.get("content-type") == "application/json":
            _validator(document, schema).validate(response.json())
    assert statuses[:6] == [200, 200, 207, 415, 400, 415]
    assert statuses[11:19] == [201, 200, 412, 200, 304, 200, 204, 404]
    assert set(statuses[19:]) == {200}


# Each is wrong, and the document must say so, as the service does.
_WRONG: list[tuple[str, str, Any]] = [
    ("/v1/classify", "post", {}),
    ("/v1/classify", "post", {"image": None}),
    ("/v1/classify", "post", {"image": "x"}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE", "url": "https://x.org"}}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "oops": 1}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "theta": "0.5"}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "theta": 1.5}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "target_accuracy": 1}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "temperature": 0}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "top_k": 0}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "top_k": 1.5}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "level": -1}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "reject": "true"}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "strategy": "best"}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "labels": []}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "labels": [""]}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "labels": ["x" * 513]}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "labels": ["x\u0000"]}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "labels": ["x"] * 2001}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "labels": [{"name": "x", "y": 1}]}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "labels": [1]}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "label_set": "A"}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "hierarchy": []}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "hierarchy": ["flat"] * 6}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "hierarchy": {"nodes": []}}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "templates": []}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "templates": ["no place"]}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "on_unknown": "ask"}),
    ("/v1/classify", "post", {"image": {"b64": "IMAGE"}, "model": ""}),
    ("/v1/classify", "post", {"images": [{"b64": "IMAGE"}] * 33}),
    ("/v1/embed", "post", {}),
    ("/v1/embed", "post", {"texts": None}),
    ("/v1/embed", "post", {"texts": [""]}),
    ("/v1/embed", "post", {"texts": ["x"] * 257}),
    ("/v1/embed", "post", {"texts": ["x" * 2001]}),
    ("/v1/embed", "post", {"texts": ["a"], "encoding": "hex"}),
    ("/v1/hf/zero-shot-image-classification", "post", {"inputs": "IMAGE"}),
    (
        "/v1/hf/zero-shot-image-classification",
        "post",
        {"inputs": "IMAGE", "parameters": {"candidate_labels": []}},
    ),
    ("/v1/label-sets/{id}", "put", []),
    ("/v1/label-sets/{id}", "put", {"labels": ["a"], "x": 1}),
    ("/v1/label-sets/{id}", "put", 7),
    ("/v1/hierarchies/{id}", "put", "wordnet"),
    ("/v1/hierarchies/{id}", "put", {"trees": []}),
]


def test_what_the_document_forbids_is_refused_and_the_other_way(
    served: Served, document: dict[str, Any], photo: bytes
) -> None:
    b64 = base64.b64encode(photo).decode()
    for path, method, body in _WRONG:
        shown = json.dumps(body)[:200]
        body = json.loads(json.dumps(body).replace("IMAGE", b64))
        request = document["paths"][path][method]["requestBody"]["content"]["application/json"]
        assert not _validator(document, request["schema"]).is_valid(body), shown
        response = served(method.upper(), path.format(id="x"), json=body)
        assert 400 <= response.status_code < 500, shown


def test_what_the_document_allows_is_taken(
    served: Served, document: dict[str, Any], photo: bytes
) -> None:
    b64 = base64.b64encode(photo).decode()
    options: list[dict[str, Any]] = [
        {"theta": 0, "rule": "climb", "top_k": 1, "model": "robustzs-lite"},
        {"labels": "cat,dog", "strategy": "topdown", "reject": True},
        {"labels": [{"name": "cat", "synset": None, "aliases": []}, "dog"], "reject": -1.5},
        {"labels": [{"synset": "cat.n.01"}, {"synset": "dog.n.01"}], "hierarchy": "wordnet"},
        {"hierarchy": ["wordnet", "flat"], "level": 0, "theta": None},
        {"hierarchy": "wordnet", "root": "animal.n.01", "level": "3", "temperature": 2},
        {"labels": ["cat", "dog"], "templates": ["{}", "a photo of {}."]},
        {"labels": ["cat", "dog"], "templates": "articles", "on_ambiguous": "first"},
    ]
    request = document["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    validator = _validator(document, request["application/json"]["schema"])
    for fields in options:
        body = {"image": {"b64": b64}, **fields}
        validator.validate(body)
        response = served("POST", "/v1/classify", json=body)
        assert response.status_code == 200, (fields, response.text)
