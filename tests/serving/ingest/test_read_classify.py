"""Multipart and JSON become the same calls; whatever else comes is refused with its code."""

from __future__ import annotations

import json

import pytest
from robustzs_serving.errors import ServiceError
from robustzs_serving.settings import Limits, ServiceSettings

from tests.serving.ingest.asking import (
    BOUNDARY,
    IMAGE,
    TREE,
    b64,
    code_of,
    form,
    part,
    read,
    read_json,
)


def test_both_forms_give_the_same_call() -> None:
    by_form = read(
        form(
            IMAGE,
            ("image", b"second"),
            ("labels", '["cat", "dog"]'),
            ("hierarchy", json.dumps(TREE)),
            ("templates", "a photo of {}"),
            ("theta", "0.5"),
            ("top_k", "2"),
            ("level", "1"),
            ("reject", "0.25"),
            ("on_ambiguous", "first"),
            ("model", "robustzs-lite"),
        )
    )
    by_json = read_json(
        {
            "images": [b64(), b64(b"second")],
            "labels": ["cat", "dog"],
            "hierarchy": TREE,
            "templates": ["a photo of {}"],
            "theta": 0.5,
            "top_k": 2,
            "level": 1,
            "reject": 0.25,
            "on_ambiguous": "first",
            "model": "robustzs-lite",
        }
    )
    assert [image.data for image in by_form.images] == [b"picture", b"second"]
    assert by_form.images == by_json.images
    assert by_form.options == by_json.options
    assert by_form.labels == by_json.labels
    assert by_form.hierarchy == by_json.hierarchy
    assert by_form.cache_key == by_json.cache_key
    assert by_form.model == by_json.model == "robustzs-lite"


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_form_may_come_in_pieces_of_any_size(size: int) -> None:
    content = bytes(range(256)) * 20 + f"\r\n--{BOUNDARY[:4]}\r\n--".encode()
    call = read(form(("image", content), ("labels", "cat,dog")), size=size)
    assert call.images[0].data == content
    assert call.labels is not None
    assert call.labels.names == ("cat", "dog")


def test_file_names_and_types_of_parts_mean_nothing() -> None:
    body = b"".join(
        [
            part("labels", '["cat"]').replace(
                b'"labels"', b'"labels"; filename="/etc/passwd"\r\nContent-Type: image/png'
            ),
            part("image", b"picture", "Content-Type: text/plain"),
            f"--{BOUNDARY}--".encode(),
        ]
    )
    call = read(body)
    assert call.images[0].data == b"picture"
    assert call.labels is not None
    assert call.labels.names == ("cat",)


def test_names_with_commas_are_quoted_as_on_the_command_line() -> None:
    call = read(form(IMAGE, ("labels", '"salt, sea", pepper,')))
    assert call.labels is not None
    assert call.labels.names == ("salt, sea", "pepper")


def test_a_hierarchy_is_built_in_or_stored_or_data() -> None:
    assert read(form(IMAGE, ("hierarchy", "flat, wordnet"))).hierarchy == ("flat", "wordnet")
    stored = read(form(IMAGE, ("hierarchy", "my-tree")))
    assert (stored.hierarchy, stored.hierarchy_id) == (None, "my-tree")
    mixed = read_json({"image": b64(), "hierarchy": ["flat", TREE]}).hierarchy
    assert mixed is not None
    assert mixed[0] == "flat"
    assert read(form(IMAGE, ("label_set", "pets"))).label_set_id == "pets"


TINY = ServiceSettings(
    limits=Limits(
        max_images=2,
        max_image_bytes=10,
        max_field_bytes=2_000,
        max_labels=3,
        max_label_chars=20,
        max_prompts=4,
        max_tree_nodes=3,
        max_tree_depth=1,
        max_trees=1,
        max_body_bytes=20_000,
    )
)
NODES = TREE["nodes"]
assert isinstance(NODES, list)
DEEP = {
    **TREE,
    "nodes": [{"id": "a"}, {"id": "b", "parent": "a"}, {"id": "c", "parent": "b"}],
}

REFUSED_FORMS = {
    "no image": (form(("labels", "cat")), (400, "field-missing", "image")),
    "unknown part": (form(IMAGE, ("lables", "cat")), (400, "field-unknown", "lables")),
    "part twice": (form(IMAGE, ("theta", "0"), ("theta", "1")), (400, "field-repeated", "theta")),
    "empty field": (form(IMAGE, ("theta", " ")), (400, "usage", "theta")),
    "word for a number": (form(IMAGE, ("theta", "half")), (400, "usage", "theta")),
    "number in other digits": (form(IMAGE, ("top_k", "٣")), (400, "usage", "top_k")),
    "underscore": (form(IMAGE, ("top_k", "1_0")), (400, "usage", "top_k")),
    "nan": (form(IMAGE, ("theta", "nan")), (400, "usage", "theta")),
    "out of range": (form(IMAGE, ("theta", "7")), (400, "usage", "theta")),
    "unknown strategy": (form(IMAGE, ("strategy", "best")), (400, "usage", "strategy")),
    "both thetas": (form(IMAGE, ("theta", "1"), ("target_accuracy", "0.9")), (400, "usage", None)),
    "bad policy": (form(IMAGE, ("on_unknown", "ask")), (400, "usage", "on_unknown")),
    "no text": (form(IMAGE, ("labels", b"\xff\xfe")), (400, "usage", "labels")),
    "lines": (form(IMAGE, ("labels", "cat\ndog")), (422, "label", "labels")),
    "broken JSON": (form(IMAGE, ("labels", '["cat"')), (400, "body-malformed", "labels")),
    "empty list": (form(IMAGE, ("labels", "[]")), (422, "label", "labels")),
    "not a label": (form(IMAGE, ("labels", "[7]")), (422, "label", "labels")),
    "label twice": (form(IMAGE, ("labels", "cat,Cat")), (422, "label-duplicate", "labels")),
    "control": (form(IMAGE, ("labels", '["a\\u0000b"]')), (422, "label", "labels")),
    "surrogate": (form(IMAGE, ("labels", '["\\ud800"]')), (422, "label", "labels")),
    "label key": (
        form(IMAGE, ("labels", '[{"nmae": "cat"}]')),
        (400, "field-unknown", "nmae"),
    ),
    "labels and id": (form(IMAGE, ("labels", "a"), ("label_set", "b")), (400, "usage", None)),
    "a path": (form(IMAGE, ("hierarchy", "/etc/passwd")), (400, "usage", "hierarchy")),
    "dots": (form(IMAGE, ("hierarchy", "../x")), (400, "usage", "hierarchy")),
    "no braces": (form(IMAGE, ("templates", "a photo")), (422, "template", "templates")),
    "attribute": (form(IMAGE, ("templates", "{0.__class__}")), (422, "template", "templates")),
    "wrong tree": (
        form(IMAGE, ("hierarchy", '{"nodes": []}')),
        (422, "hierarchy-format", "hierarchy"),
    ),
    "url": (form(("image_url", "https://x.example/a")), (400, "url-off", "image_url")),
}


@pytest.mark.parametrize("name", REFUSED_FORMS)
def test_forms_are_refused_by_code_and_field(name: str) -> None:
    body, expected = REFUSED_FORMS[name]
    assert code_of(body) == expected


OVER_LIMITS = {
    "images": (form(IMAGE, IMAGE, IMAGE), (413, "too-many-images", "image")),
    "field": (form(IMAGE, ("labels", "x" * 2_001)), (413, "field-too-large", "labels")),
    "labels": (form(IMAGE, ("labels", "a,b,c,d")), (422, "label", "labels")),
    "label": (form(IMAGE, ("labels", "x" * 21)), (422, "label", "labels")),
    "template": (form(IMAGE, ("templates", "x" * 19 + "{}")), (422, "template", "templates")),
    "prompts": (
        form(IMAGE, ("labels", "a,b,c"), ("templates", '["{}","a {}"]')),
        (422, "label", "templates"),
    ),
    "built-in tree": (form(IMAGE, ("templates", "a {}")), (422, "label", "templates")),
    "nodes": (
        form(IMAGE, ("hierarchy", json.dumps({**TREE, "nodes": [*NODES, {"id": "x"}]}))),
        (422, "hierarchy-limit", "hierarchy"),
    ),
    "depth": (
        form(IMAGE, ("hierarchy", json.dumps(DEEP))),
        (422, "hierarchy-limit", "hierarchy"),
    ),
    "trees": (form(IMAGE, ("hierarchy", "flat,wordnet")), (422, "hierarchy-limit", "hierarchy")),
    "body": (form(IMAGE, *[IMAGE] * 400), (413, "too-many-images", "image")),
}


@pytest.mark.parametrize("name", OVER_LIMITS)
def test_every_limit_has_its_code(name: str) -> None:
    body, expected = OVER_LIMITS[name]
    assert code_of(body, settings=TINY) == expected


def test_a_body_over_the_limit_is_refused_while_it_comes() -> None:
    body = part("image", b"x" * 30_000)
    assert code_of(body, settings=TINY) == (413, "body-too-large", None)
    document = json.dumps({"image": b64(b"x" * 30_000)}).encode()
    assert code_of(document, json=True, settings=TINY) == (413, "body-too-large", None)


def test_an_image_over_the_limit_fails_alone() -> None:
    by_form = read(form(("image", b"x" * 11), ("image", b"fine")), settings=TINY)
    by_json = read_json({"images": [b64(b"x" * 13), b64(b"fine")]}, TINY)
    for call in (by_form, by_json):
        first, second = call.images
        assert first.error is not None
        assert first.error.code == "image-too-large"
        assert second.data == b"fine"
        assert second.error is None


WRONG_MULTIPART = {
    "cut off": form(IMAGE)[:-8],
    "no end": part(*IMAGE),
    "nothing": b"",
    "another boundary": form(IMAGE).replace(BOUNDARY.encode(), b"other"),
    "no name": form(IMAGE).replace(b'; name="image"', b""),
    "no disposition": form(IMAGE).replace(b"Content-Disposition", b"Content-Type"),
    "attachment": form(IMAGE).replace(b"form-data", b"attachment"),
    "base64 part": part("image", b"aaaa", "Content-Transfer-Encoding: base64")
    + f"--{BOUNDARY}--".encode(),
    "header twice": part("image", b"a", 'Content-Disposition: form-data; name="labels"')
    + f"--{BOUNDARY}--".encode(),
    "many headers": part("image", b"a", *[f"X-{i}: y" for i in range(40)])
    + f"--{BOUNDARY}--".encode(),
    "long header": part("image", b"a", "X-Long: " + "y" * 9_000) + f"--{BOUNDARY}--".encode(),
}


@pytest.mark.parametrize("name", WRONG_MULTIPART)
def test_what_is_no_multipart_is_said_so(name: str) -> None:
    assert code_of(WRONG_MULTIPART[name])[:2] == (400, "body-malformed")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (None, (415, "media-type")),
        ("text/plain", (415, "media-type")),
        ("image/jpeg", (415, "media-type")),
        ("application/x-www-form-urlencoded", (415, "media-type")),
        ("application/json; charset=utf-16", (415, "media-type")),
        ("multipart/form-data", (400, "body-malformed")),
        ("multipart/form-data; boundary=", (400, "body-malformed")),
        ("multipart/form-data; boundary=" + "x" * 71, (400, "body-malformed")),
        ("multipart/mixed; boundary=x", (415, "media-type")),
    ],
)
def test_content_types_are_checked(content_type: str | None, expected: tuple[int, str]) -> None:
    assert code_of(form(IMAGE), content_type=content_type)[:2] == expected


WRONG_JSON = {
    "no JSON": (b"{", "body-malformed"),
    "no UTF-8": (b'{"image": "\xff"}', "body-malformed"),
    "UTF-16": ('{"image": 1}'.encode("utf-16"), "body-malformed"),
    "a list": (b"[]", "body-malformed"),
    "key twice": (b'{"theta": 1, "theta": 0}', "body-malformed"),
    "key twice inside": (b'{"labels": [{"name": "a", "name": "b"}]}', "body-malformed"),
    "NaN": (b'{"theta": NaN}', "body-malformed"),
    "infinity": (b'{"theta": 1e999}', "body-malformed"),
    "long number": (b'{"top_k": ' + b"1" * 5_000 + b"}", "body-malformed"),
    "deep": (b'{"labels": ' + b"[" * 100 + b"]" * 100 + b"}", "body-malformed"),
    "very deep": (b"[" * 200_000, "body-malformed"),
    "many values": (b'{"labels": [' + b"[]," * 600_000 + b"0]}", "body-malformed"),
    "unknown field": (b'{"thetta": 1}', "field-unknown"),
    "text for number": (json.dumps({"image": b64(), "theta": "0.5"}).encode(), "usage"),
    "true for number": (json.dumps({"image": b64(), "top_k": True}).encode(), "usage"),
    "no object": (b'{"images": ["abc"]}', "usage"),
    "image key": (b'{"images": [{"base64": "abc"}]}', "field-unknown"),
    "bad base64": (b'{"images": [{"b64": "ab*c"}]}', "usage"),
    "spaces in base64": (b'{"images": [{"b64": "YWJj\\nYWJj"}]}', "usage"),
    "data URI": (b'{"images": [{"b64": "data:image/png;base64,YWJj"}]}', "usage"),
    "no padding": (b'{"images": [{"b64": "YQ"}]}', "usage"),
    "both": (b'{"image": {"b64": ""}, "images": []}', "usage"),
    "empty": (b'{"images": []}', "field-missing"),
    "url": (b'{"images": [{"url": "https://x.example/"}]}', "url-off"),
}


@pytest.mark.parametrize("name", WRONG_JSON)
def test_json_is_strict(name: str) -> None:
    body, code = WRONG_JSON[name]
    status, found, _ = code_of(body, json=True)
    assert (status, found) == (400, code)


def test_the_closest_field_is_named() -> None:
    with pytest.raises(ServiceError, match="did you mean 'hierarchy'"):
        read_json({"image": b64(), "hierachy": "flat"})
    with pytest.raises(ServiceError, match="did you mean 'label_set'"):
        read(form(IMAGE, ("labelset", "pets")))
