"""Every error has its row in the table, and an envelope that gives nothing away."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator

import pytest
import robustzs_serving
from hypothesis import given
from hypothesis import strategies as st
from robustzs_serving.codes import CODES, codes_document
from robustzs_serving.errors import (
    MAX_MESSAGE,
    ServiceError,
    UnknownFieldError,
    problem_of,
    quoted,
    status_of,
    to_envelope,
)
from starlette.exceptions import HTTPException

from robustzs import errors
from robustzs.errors import RobustZSError

ROOMS = (errors.ImageError, errors.LabelError, errors.HierarchyError, errors.CalibrationError)


def kinds(base: type[RobustZSError]) -> Iterator[type[RobustZSError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


def import_rooms() -> None:
    for found in pkgutil.walk_packages(robustzs_serving.__path__, "robustzs_serving."):
        if not found.name.endswith((".service", ".__main__")):  # they start something
            importlib.import_module(found.name)


def test_every_error_of_the_service_has_its_row() -> None:
    import_rooms()
    ours = {kind for kind in kinds(RobustZSError) if kind.__module__.startswith("robustzs_serving")}
    assert len(ours) > 25
    for kind in ours:
        # Bases, which are never raised, and what no request can meet.
        if kind.code in ("stored", "internal") or kind.__module__.endswith(".launch"):
            continue
        assert kind.code in CODES, kind
        assert CODES[kind.code][0] == status_of(kind), kind


def test_every_error_of_the_core_that_a_request_may_cause_has_its_row() -> None:
    for room in ROOMS:
        for kind in kinds(room):
            if status_of(kind) < 500:
                assert CODES[kind.code][0] == status_of(kind), kind
    assert CODES["usage"][0] == status_of(errors.UsageError)
    assert CODES["model-not-found"][0] == status_of(errors.ModelNotFoundError)


def test_the_table_is_sound() -> None:
    for code, (status, meaning) in CODES.items():
        assert code == code.lower().replace(" ", "-")
        assert 400 <= status < 600
        assert meaning
    assert len(codes_document()["codes"]) == len(CODES)


@pytest.mark.parametrize(
    "error",
    [
        errors.BundleDigestError("/srv/model/image_encoder.onnx differs"),
        errors.InferenceError("ONNXRuntimeError at 0x7f00"),
        errors.MissingExtraError("nltk", "wordnet"),
        errors.ServerError("upstream at 10.0.0.1", status=404),
        ZeroDivisionError("/srv/model"),
        OSError(2, "No such file", "/srv/model"),
        HTTPException(500, "/srv"),
    ],
)
def test_what_went_wrong_inside_stays_inside(error: Exception) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code) == (500, "internal")
    assert problem.message == CODES["internal"][1]


def test_an_envelope_has_its_five_fields_and_headers() -> None:
    error = UnknownFieldError("no field 'a'", hint="use b", param="a", headers={"X-More": "1"})
    response = to_envelope(error, "request-1")
    assert json.loads(bytes(response.body)) == {
        "error": {
            "code": "field-unknown",
            "message": "no field 'a' (use b)",
            "param": "a",
            "request_id": "request-1",
            "docs": "/v1/errors#field-unknown",
        }
    }
    assert response.headers["x-request-id"] == "request-1"
    assert response.headers["x-more"] == "1"


@given(st.text(st.characters(), max_size=3_000), st.text(st.characters(), max_size=100))
def test_texts_of_clients_cannot_break_an_envelope(text: str, param: str) -> None:
    for error in (errors.LabelError(text, hint=text), ServiceError(text), UnknownFieldError(text)):
        response = to_envelope(error, "id")
        message = json.loads(bytes(response.body))["error"]["message"]
        assert len(message) <= MAX_MESSAGE
        assert "\n" not in message
        assert "\x1b" not in message
        assert "\u202e" not in message
    for name in (param, param + "\ud800\n"):  # JSON can name a field by half a character
        response = to_envelope(UnknownFieldError("x", param=name), "id")
        shown = json.loads(bytes(response.body))["error"]["param"]
        assert "\n" not in shown
        shown.encode("utf-8")  # fails for half characters
    assert "\ud800" not in json.loads(bytes(response.body))["error"]["param"]
    assert len(quoted(text)) <= 6 * 70 + 5
