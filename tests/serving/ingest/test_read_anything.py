"""Whatever comes is read or refused with a typed error; nothing withheld can be asked out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustzs_serving.settings import ServiceSettings

from tests.serving.ingest.asking import (
    IMAGE,
    b64,
    code_of,
    form,
    part,
    read_json,
    status_of_reading,
)

ROUNDED = ServiceSettings(scores="rounded:2")
WITHHELD = ServiceSettings(scores="withheld")


@pytest.mark.parametrize(
    ("settings", "fields", "refused"),
    [
        (ROUNDED, {"theta": 0.25}, None),
        (ROUNDED, {"theta": 0.251}, "theta"),
        (ROUNDED, {"reject": 0.123}, "reject"),
        (ROUNDED, {"reject": True}, None),
        (ROUNDED, {"temperature": 0.1}, "temperature"),
        (WITHHELD, {"theta": 0.25}, "theta"),
        (WITHHELD, {"reject": 0.25}, "reject"),
        (WITHHELD, {"target_accuracy": 0.9}, None),
    ],
)
def test_options_may_not_reveal_what_is_withheld(
    settings: ServiceSettings, fields: dict[str, Any], refused: str | None
) -> None:
    document = {"image": b64(), **fields}
    if refused is None:
        assert read_json(document, settings).images
    else:
        assert code_of(document, settings=settings) == (403, "scores-withheld", refused)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_no_bytes_of_a_form_raise_anything_untyped(noise: bytes, size: int) -> None:
    for body in (noise, part("image", b"x") + noise, form(("labels", noise), IMAGE)):
        assert status_of_reading(body, size=size) < 500


NAMES = ["image", "images", "labels", "label_set", "hierarchy", "templates", "theta", "top_k"]
NAMES += ["level", "root", "reject", "strategy", "model", "on_unknown", "b64", "url", "nodes"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
def test_no_json_raises_anything_untyped(document: dict[str, Any]) -> None:
    for body in (document, {"image": b64(), **document}):
        assert status_of_reading(json.dumps(body).encode(), "application/json") < 500


@given(st.sampled_from([n for n in NAMES if n not in ("b64", "url", "nodes")]), st.text())
def test_no_text_of_a_field_raises_anything_untyped(name: str, text: str) -> None:
    assert status_of_reading(form(IMAGE, (name, text.encode("utf-8", "surrogatepass")))) < 500
