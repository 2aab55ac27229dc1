"""With keys, each name owns what it keeps; what is public stays so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustzs_serving.edge.keys import make_key


def test_what_one_key_keeps_no_other_sees(tiny: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    alice, bob = (
        {"Authorization": f"Bearer {make_key(file, name)[0]}"} for name in ("alice", "bob")
    )
    second = {"X-API-Key": make_key(file, "alice")[0]}
    service = tiny(keys_file=file)
    path = "/v1/label-sets/pets"
    assert service("PUT", path, json=["tabby", "jeep"]).status_code == 401
    assert service("PUT", path, json=["tabby", "jeep"], headers=alice).status_code == 201
    assert service("GET", path, headers=second).status_code == 200
    assert service("GET", path, headers=bob).status_code == 404
    assert service("GET", "/v1/label-sets", headers=bob).json()["items"] == []
    assert service("PUT", path, json=["poodle"], headers=bob).status_code == 201
    assert service("DELETE", path, headers=bob).status_code == 204
    labels = service("GET", path, headers=alice).json()["labels"]
    assert [label["name"] for label in labels] == ["tabby", "jeep"]
    document = service("GET", "/openapi.json").json()
    for public in ("/", "/openapi.json", "/v1/errors", "/livez", "/readyz", "/metrics"):
        assert service("GET", public).status_code == 200
        assert document["paths"][public]["get"]["security"] == []
    for keyed in ("/v1/models", "/v1/label-sets"):
        assert service("GET", keyed).status_code == 401
        assert {} not in document["paths"][keyed]["get"]["security"]
