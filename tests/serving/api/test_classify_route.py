"""``/v1/classify``, Hugging Face's form of it, and ``/v1/embed``."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from robustzs_serving.settings import Limits

from robustzs.classifier import Classifier
from tests.factories import picture_bytes

Served = Callable[..., httpx.Response]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def test_the_answer_is_the_one_of_the_classifier(served: Served, photo: bytes) -> None:
    response = served(
        "POST",
        "/v1/classify",
        files=[("image", ("a.png", photo)), ("image", ("b.png", photo))],
        data={"labels": "tabby cat,collie,teapot", "hierarchy": "wordnet", "theta": "0.5"},
    )
    assert response.status_code == 200, response.text
    body = response.json()
    with Classifier.load(
        labels=["tabby cat", "collie", "teapot"], hierarchy="wordnet", theta=0.5, threads=1
    ) as classifier:
        expected = classifier.classify(photo).model_dump(mode="json")
    for index, result in enumerate(body["results"]):
        assert (result.pop("index"), result.pop("status"), result["image"]) == (
            index,
            "ok",
            str(index),
        )
        for name in ("stop", "hierarchy", "model", "warnings", "forest", "strategy", "rejected"):
            assert result[name] == expected[name]
        assert result.keys() == expected.keys()
        assert [node["id"] for node in result["path"]] == [n["id"] for n in expected["path"]]
        near = [node["probability"] for node in expected["top_k"]]
        assert [node["probability"] for node in result["top_k"]] == pytest.approx(near, abs=1e-5)
    assert body["request_id"] == response.headers["x-request-id"]
    timing = body["timing"]
    assert 0 < timing["decode_ms"] < timing["total_ms"] < 60_000
    assert 0 < timing["model_ms"] < timing["total_ms"]
    assert 0 <= timing["queue_ms"] < timing["total_ms"]
    assert 0 <= timing["labels_ms"] < timing["total_ms"]


def test_forms_and_json_say_the_same(served: Served, photo: bytes) -> None:
    labels = ["tabby cat", "dog", "teapot"]
    form = served("POST", "/v1/classify", files={"image": photo}, data={"labels": ",".join(labels)})
    json = served("POST", "/v1/classify", json={"images": [{"b64": _b64(photo)}], "labels": labels})
    one = served("POST", "/v1/classify", json={"image": {"b64": _b64(photo)}, "labels": labels})
    assert form.json()["results"] == json.json()["results"] == one.json()["results"]
    assert form.json()["results"][0]["prediction"]["name"] == "tabby cat"


def test_one_bad_image_of_several_is_a_207_and_alone_it_is_the_status(
    served: Served, photo: bytes
) -> None:
    files = [("image", ("a", photo)), ("image", ("b", b"nothing")), ("image", ("c", photo[:500]))]
    mixed = served("POST", "/v1/classify", files=files, data={"labels": "cat,dog"})
    assert mixed.status_code == 207
    good, bad, cut = mixed.json()["results"]
    assert (good["status"], bad["status"], cut["status"]) == ("ok", "error", "error")
    assert (bad["index"], bad["image"], bad["error"]["code"]) == (1, "1", "image-format")
    assert cut["error"]["code"] == "image-truncated"
    for data, status, code in ((b"nothing", 415, "image-format"), (photo[:500], 422, None)):
        alone = served("POST", "/v1/classify", files={"image": data}, data={"labels": "cat,dog"})
        assert alone.status_code == status
        assert alone.json()["error"]["code"] == (code or "image-truncated")
        assert alone.json()["error"]["request_id"] == alone.headers["x-request-id"]


def test_hugging_face_clients_get_labels_and_scores(served: Served, photo: bytes) -> None:
    parameters = {"candidate_labels": ["dog", "tabby cat", "teapot"]}
    request = {"inputs": _b64(photo), "parameters": parameters}
    path = "/v1/hf/zero-shot-image-classification"
    rows = served("POST", path, json=request).json()
    assert rows[0]["label"] == "tabby cat"
    assert {row["label"] for row in rows} == set(parameters["candidate_labels"])
    assert [row["score"] for row in rows] == sorted((r["score"] for r in rows), reverse=True)
    assert sum(row["score"] for row in rows) == pytest.approx(1.0, abs=1e-5)
    ours = served(
        "POST",
        "/v1/classify",
        json={
            "image": {"b64": _b64(photo)},
            "labels": parameters["candidate_labels"],
            "templates": "This is a photo of {}.",
        },
    ).json()["results"][0]
    assert rows[0]["score"] == ours["top_k"][0]["probability"]
    bad = served("POST", path, json={**request, "inputs": _b64(b"nothing")})
    assert (bad.status_code, bad.json()["error"]["code"]) == (415, "image-format")


def test_features_are_raw_in_both_encodings(served: Served, photo: bytes) -> None:
    request = {"images": [{"b64": _b64(photo)}], "texts": ["a cat", "a dog"]}
    plain = served("POST", "/v1/embed", json=request).json()
    packed = served("POST", "/v1/embed", json={**request, "encoding": "base64"}).json()
    assert (plain["encoding"], packed["encoding"]) == ("float", "base64")
    for name, count in (("images", 1), ("texts", 2)):
        rows = [np.array(row["embedding"], np.float32) for row in plain[name]]
        assert len(rows) == count
        assert all(len(row) == plain["dim"] for row in rows)
        for row, other in zip(rows, packed[name], strict=True):
            np.testing.assert_array_equal(
                np.frombuffer(base64.b64decode(other["embedding"]), "<f4"), row
            )
    with Classifier.load(labels=["cat", "dog"], threads=1) as classifier:
        texts = classifier.embed_texts(request["texts"])
        ((_, image),) = classifier.embed_images([photo])
    np.testing.assert_allclose([r["embedding"] for r in plain["texts"]], texts, atol=1e-6)
    np.testing.assert_allclose(plain["images"][0]["embedding"], image, atol=1e-5)


def test_bad_images_among_what_is_embedded(served: Served, photo: bytes) -> None:
    images = [{"b64": _b64(b"nothing")}, {"b64": _b64(photo)}]
    mixed = served("POST", "/v1/embed", json={"images": images})
    assert mixed.status_code == 207
    assert [row["status"] for row in mixed.json()["images"]] == ["error", "ok"]
    alone = served("POST", "/v1/embed", json={"images": images[:1]})
    assert alone.status_code == 415
    with_text = served("POST", "/v1/embed", json={"images": images[:1], "texts": ["a cat"]})
    assert with_text.status_code == 207
    assert with_text.json()["texts"][0]["status"] == "ok"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"theta": 7}, 400, "usage"),
        ({"thetta": 0.5}, 400, "field-unknown"),
        ({"labels": ["cat", "Cat"]}, 422, "label-duplicate"),
        ({"labels": [" "]}, 422, "label"),
        ({"templates": "a photo"}, 422, "template"),
        ({"hierarchy": {"nodes": []}}, 422, "hierarchy-format"),
        ({"hierarchy": ["/etc/passwd"]}, 400, "usage"),
        ({"hierarchy": "nothing-kept"}, 404, "stored-not-found"),
        ({"labels": None, "label_set": "nothing-kept"}, 404, "stored-not-found"),
        ({"labels": None, "label_set": "../x"}, 400, "usage"),
        ({"model": "another"}, 404, "model-not-found"),
        ({"target_accuracy": 0.9}, 422, "calibration"),
        ({"labels": ["crane"], "hierarchy": "wordnet"}, 422, "label-ambiguous"),
        ({"labels": ["qwxyz"], "hierarchy": "wordnet"}, 422, "label-unknown"),
        ({"root": "nowhere"}, 422, "hierarchy-unknown-node"),
        ({"image": None}, 400, "field-missing"),
        ({"image": {"url": "https://example.com/a.png"}}, 400, "url-off"),
        ({"image": {"b64": "!"}}, 400, "usage"),
    ],
)
def test_what_is_wrong_is_told_by_its_code(
    served: Served, photo: bytes, change: dict[str, Any], status: int, code: str
) -> None:
    request = {"image": {"b64": _b64(photo)}, "labels": ["cat", "dog"], **change}
    response = served("POST", "/v1/classify", json=request)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text


def test_scores_are_full_rounded_or_withheld(tiny: Any) -> None:
    picture = picture_bytes("tabby")
    request = {"image": {"b64": _b64(picture)}, "labels": ["tabby", "jeep"], "templates": "{}"}
    hf = {"inputs": _b64(picture), "parameters": {"candidate_labels": ["tabby", "jeep"]}}
    path = "/v1/hf/zero-shot-image-classification"
    rounded, withheld = tiny(scores="rounded:2"), tiny(scores="withheld")
    answer = rounded("POST", "/v1/classify", json=request).json()["results"][0]
    probability = answer["prediction"]["probability"]
    assert probability == round(probability, 2)
    assert rounded("POST", path, json=hf).json()[0]["score"] <= 1
    answer = withheld("POST", "/v1/classify", json=request).json()["results"][0]
    assert answer["prediction"]["name"] == "tabby"
    assert answer["prediction"]["probability"] is None
    assert answer["similarity"] is None
    assert withheld("POST", path, json=hf).status_code == 403
    for service in (rounded, withheld):
        refused = service("POST", "/v1/embed", json={"texts": ["tabby"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scores-withheld")


def test_limits_are_those_of_the_settings(tiny: Any) -> None:
    picture = {"b64": _b64(picture_bytes("tabby"))}
    service = tiny(limits=Limits(max_images=2, max_labels=2, max_prompts=3))
    for change, status in (
        ({"images": [picture] * 3, "labels": ["tabby", "jeep"]}, 413),
        ({"images": [picture], "labels": ["tabby", "jeep", "poodle"]}, 422),
        ({"images": [picture], "labels": ["tabby", "jeep"], "templates": ["{}", "a {}"]}, 422),
        ({"images": [picture] * 2, "labels": ["tabby", "jeep"], "templates": "{}"}, 200),
    ):
        assert service("POST", "/v1/classify", json=change).status_code == status
