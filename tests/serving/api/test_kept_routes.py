"""Label sets and hierarchies by id, over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from robustzs_serving.settings import Limits

from robustzs.hierarchy.formats import read_hierarchy
from tests.factories import TREE_YAML, picture_bytes

Served = Callable[..., httpx.Response]
NAMES = ["labrador", "poodle", "tabby", "siamese", "ambulance", "jeep"]


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "tree.yaml"
    path.write_text(TREE_YAML, encoding="utf-8")
    document: dict[str, Any] = json.loads(read_hierarchy(path).to_json())
    return document


def _ask(service: Served, **fields: Any) -> httpx.Response:
    image = {"b64": base64.b64encode(picture_bytes("tabby")).decode()}
    return service("POST", "/v1/classify", json={"image": image, "templates": "{}", **fields})


def test_a_label_set_lives_from_put_to_delete(tiny: Any) -> None:
    service = tiny()
    path = "/v1/label-sets/pets"
    made = service("PUT", path, json={"labels": NAMES})
    assert (made.status_code, made.headers["location"]) == (201, path)
    assert made.json()["etag"] == made.headers["etag"]
    got = service("GET", path)
    assert (got.status_code, got.headers["etag"]) == (200, made.headers["etag"])
    assert [label["name"] for label in got.json()["labels"]] == NAMES
    again = service("PUT", path, json=got.json())  # what GET gives, PUT takes
    assert (again.status_code, again.headers["etag"]) == (200, made.headers["etag"])
    assert service("HEAD", path).headers["etag"] == made.headers["etag"]
    answer = _ask(service, label_set="pets").json()["results"][0]
    assert answer == _ask(service, labels=NAMES).json()["results"][0]
    assert answer["prediction"]["name"] == "tabby"
    page = service("GET", "/v1/label-sets").json()
    assert [item["id"] for item in page["items"]] == ["pets"]
    gone = service("DELETE", path)
    assert (gone.status_code, gone.content) == (204, b"")
    for response in (
        service("GET", path),
        service("DELETE", path),
        _ask(service, label_set="pets"),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "stored-not-found")


def test_trees_and_forests_live_likewise(tiny: Any, tree: dict[str, Any]) -> None:
    service = tiny()
    assert service("PUT", "/v1/hierarchies/things", json=tree).status_code == 201
    assert service("GET", "/v1/hierarchies/things").json() == tree
    kept = _ask(service, hierarchy="things").json()["results"][0]
    assert kept == _ask(service, hierarchy=tree).json()["results"][0]
    assert [node["name"] for node in kept["path"]] == ["thing", "animal", "cat", "tabby"]
    other = {**tree, "name": "again"}
    other.pop("digest")
    for body in ([tree, other], {"trees": [tree, other]}):
        assert service("PUT", "/v1/hierarchies/both", json=body).status_code in (200, 201)
    got = service("GET", "/v1/hierarchies/both").json()
    assert [one["name"] for one in got["trees"]] == [tree["name"], "again"]
    assert service("PUT", "/v1/hierarchies/both", json=got).status_code == 200
    assert len(_ask(service, hierarchy="both").json()["results"][0]["forest"]) == 1
    assert service("DELETE", "/v1/hierarchies/both").status_code == 204


def test_texts_are_encoded_at_put_and_never_again(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustzs.backends.onnx import OnnxBackend

    encoded: list[int] = []
    original = OnnxBackend.encode_text

    def counting(self: OnnxBackend, token_ids: Any) -> Any:
        encoded.append(len(token_ids))
        return original(self, token_ids)

    monkeypatch.setattr(OnnxBackend, "encode_text", counting)
    service = tiny()
    assert service("PUT", "/v1/label-sets/pets", json=NAMES).status_code == 201
    assert encoded
    encoded.clear()
    image = {"b64": base64.b64encode(picture_bytes("tabby")).decode()}
    other = tiny()  # another process would find them on disk, too
    for one in (service, other):
        asked = one("POST", "/v1/classify", json={"image": image, "label_set": "pets"})
        assert asked.status_code == 200
    assert encoded == []


def test_kept_labels_are_not_encoded_again_in_the_order_of_another_tree(
    tiny: Any, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUSTZS_CACHE", str(tmp_path / "cache"))
    served = tiny()
    labels = [{"synset": f"{name}.n.01"} for name in ("teapot", "cat", "sailboat", "beagle")]
    assert served("PUT", "/v1/label-sets/mixed", json=labels).status_code == 201
    kept = list((tmp_path / "cache" / "text-features").iterdir())
    request = {"files": {"image": photo}}
    for tree in ("flat", "wordnet"):
        data = {"label_set": "mixed", "hierarchy": tree}
        answer = served("POST", "/v1/classify", data=data, **request)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["results"][0]["top_k"]) == len(labels)
    # In WordNet's tree the animals are neighbours; in the request they are not.
    assert list((tmp_path / "cache" / "text-features").iterdir()) == kept


def test_conditions_are_those_of_http(tiny: Any) -> None:
    service = tiny()
    path = "/v1/label-sets/pets"
    fresh = {"If-None-Match": "*"}
    first = service("PUT", path, json=NAMES, headers=fresh)
    assert first.status_code == 201
    refused = service("PUT", path, json=NAMES[:2], headers=fresh)
    assert (refused.status_code, refused.json()["error"]["code"]) == (412, "precondition-failed")
    mine = {"If-Match": first.headers["etag"]}
    second = service("PUT", path, json=NAMES[:3], headers=mine)
    assert second.status_code == 200
    for method, body in (("PUT", NAMES), ("DELETE", None)):
        assert service(method, path, json=body, headers=mine).status_code == 412
    known = service("GET", path, headers={"If-None-Match": f'"x", {second.headers["etag"]}'})
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == second.headers["etag"]
    assert service("GET", path, headers={"If-None-Match": first.headers["etag"]}).status_code == 200
    wrong = service("GET", path, headers={"If-None-Match": "nothing like a tag"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "usage")
    nowhere = service("PUT", "/v1/label-sets/new", json=NAMES, headers={"If-Match": "*"})
    assert nowhere.status_code == 412
    assert service("DELETE", path, headers={"If-Match": "*"}).status_code == 204


def test_no_other_id_is_one(tiny: Any) -> None:
    service = tiny()
    ids = ["A", "a_b", "a.b", "%2e%2e", "..%5c", "a" * 65, "%00", "é", "a%0a", "%ff"]
    for path in (f"/v1/{kind}/{id_}" for kind in ("label-sets", "hierarchies") for id_ in ids):
        for method in ("GET", "PUT", "DELETE"):
            response = service(method, path, json=NAMES if method == "PUT" else None)
            assert response.status_code == 400, path
            assert response.json()["error"]["code"] == "usage"


def test_what_is_wrong_is_not_kept(tiny: Any, tree: dict[str, Any]) -> None:
    service = tiny(limits=Limits(stored_bytes_per_key=9_000, max_labels=8))
    wrong: list[tuple[str, Any, int, str]] = [
        ("label-sets", [], 422, "label"),
        ("label-sets", ["a", "A"], 422, "label-duplicate"),
        ("label-sets", ["a"] * 9, 422, "label"),
        ("label-sets", {"label": ["a"]}, 400, "field-unknown"),
        ("label-sets", {"labels": ["a\u0007"]}, 422, "label"),
        ("hierarchies", {"nodes": []}, 422, "hierarchy-format"),
        ("hierarchies", [], 422, "hierarchy-format"),
        ("hierarchies", "wordnet", 422, "hierarchy-format"),
        ("hierarchies", {**tree, "digest": "0" * 64}, 422, "hierarchy-digest"),
    ]
    for kind, body, status, code in wrong:
        response = service("PUT", f"/v1/{kind}/x", json=body)
        found = (response.status_code, response.json()["error"]["code"])
        assert found == (status, code), response.text
        assert service("GET", f"/v1/{kind}").json()["items"] == []
    bad = service("PUT", "/v1/label-sets/x", content=b"{", headers={"content-type": "text/plain"})
    assert bad.status_code == 415
    for number in (1, 2):
        assert service("PUT", f"/v1/label-sets/x{number}", json=["a", "b"]).status_code == 201
    full = service("PUT", "/v1/label-sets/x3", json=["a", "b"])
    assert (full.status_code, full.json()["error"]["code"]) == (413, "store-full")


def test_a_damaged_file_is_a_409_until_it_is_mended(tiny: Any, tmp_path: Path) -> None:
    service = tiny()
    assert service("PUT", "/v1/label-sets/pets", json=NAMES).status_code == 201
    (path,) = (tmp_path / "stored").glob("*/label-sets.pets.json")
    path.write_bytes(path.read_bytes()[:-4])
    for response in (service("GET", "/v1/label-sets/pets"), _ask(service, label_set="pets")):
        assert (response.status_code, response.json()["error"]["code"]) == (409, "stored-damaged")
        assert str(tmp_path) not in response.text
    assert service("PUT", "/v1/label-sets/pets", json=NAMES).status_code == 200
    assert _ask(service, label_set="pets").status_code == 200
    path.write_bytes(b"")
    assert service("DELETE", "/v1/label-sets/pets").status_code == 204


def test_a_disk_that_refuses_is_a_503_and_not_a_500(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    service = tiny(store_dir=tmp_path / "file" / "stored")
    response = service("PUT", "/v1/label-sets/pets", json=NAMES)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store-unavailable")
    assert response.headers["retry-after"]
    assert str(tmp_path) not in response.text
    assert _ask(service, labels=NAMES).status_code == 200


def test_lists_page_by_id(tiny: Any) -> None:
    service = tiny()
    for id_ in ("c", "a", "b"):
        assert service("PUT", f"/v1/label-sets/{id_}", json=NAMES).status_code == 201
    page = service("GET", "/v1/label-sets", params={"limit": 2}).json()
    assert ([item["id"] for item in page["items"]], page["next_after"]) == (["a", "b"], "b")
    page = service("GET", "/v1/label-sets", params={"after": "b"}).json()
    assert ([item["id"] for item in page["items"]], page["next_after"]) == (["c"], None)
    for query in (
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=1&limit=2",
        "offset=1",
        "limit=",
        "limit=%C2%B2",
    ):
        response = service("GET", f"/v1/label-sets?{query}")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "usage"), query
