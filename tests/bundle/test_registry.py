"""Models are found by name, alias or folder; a broken one is a line and not the end of the list."""

import json
import shutil
from pathlib import Path

import pytest

from robustzs import settings
from robustzs.bundle import registry
from robustzs.bundle.registry import list_models, resolve_model
from robustzs.bundle.store import Bundle
from robustzs.errors import BundleDigestError, BundleManifestError, ModelNotFoundError
from tests.factories import write_manifest


@pytest.fixture
def places(tiny_bundle, tmp_path, monkeypatch):
    """One embedded and one user's model; both folders are the test's own."""
    embedded, own = tmp_path / "embedded", settings.models_dir()
    monkeypatch.setattr(registry, "embedded_dir", lambda: embedded)
    shutil.copytree(tiny_bundle, embedded / "robustzs-lite-clean")
    shutil.copytree(tiny_bundle, own / "my-model")
    monkeypatch.chdir(tmp_path)
    return embedded, own


def test_names_lead_to_folders(places):
    embedded, own = places
    assert resolve_model("robustzs-lite-clean") == embedded / "robustzs-lite-clean"
    assert resolve_model("my-model") == own / "my-model"


def test_the_default_is_an_alias(places):
    assert resolve_model("robustzs-lite") == places[0] / "robustzs-lite-clean"


def test_a_model_of_that_very_name_goes_before_the_alias(places, tiny_bundle):
    shutil.copytree(tiny_bundle, places[0] / "robustzs-lite")
    assert resolve_model("robustzs-lite") == places[0] / "robustzs-lite"


def test_the_embedded_model_goes_before_the_users(places, tiny_bundle):
    embedded, own = places
    shutil.copytree(tiny_bundle, own / "robustzs-lite-clean")
    assert resolve_model("robustzs-lite-clean") == embedded / "robustzs-lite-clean"
    found = {model.name: model.kind for model in list_models()}
    hidden = str(own / "robustzs-lite-clean")
    assert found == {"my-model": "user", "robustzs-lite-clean": "embedded", hidden: "user"}
    assert resolve_model(hidden) == own / "robustzs-lite-clean"


def test_a_users_model_of_an_aliass_name_does_not_take_its_place(places, tiny_bundle):
    embedded, own = places
    shutil.copytree(tiny_bundle, own / "robustzs-lite")
    assert resolve_model("robustzs-lite") == embedded / "robustzs-lite-clean"
    found = {model.name: model for model in list_models()}
    assert found["robustzs-lite-clean"].aliases == ("robustzs-lite",)
    assert resolve_model(next(name for name in found if "/" in name)) == own / "robustzs-lite"
    shutil.rmtree(embedded / "robustzs-lite-clean")
    assert resolve_model("robustzs-lite") == own / "robustzs-lite"


def test_a_folder_is_a_model(places, tiny_bundle):
    assert resolve_model(str(tiny_bundle)) == tiny_bundle
    assert resolve_model(tiny_bundle) == tiny_bundle
    assert resolve_model(tiny_bundle / "bundle.json") == tiny_bundle


def test_a_name_goes_before_a_folder_and_a_dot_means_the_folder(places, tiny_bundle):
    shutil.copytree(tiny_bundle, "my-model")
    assert resolve_model("my-model") == places[1] / "my-model"
    assert resolve_model("./my-model") == Path("my-model")
    assert resolve_model(Path("my-model")) == Path("my-model")


def test_a_folder_of_the_working_folder_needs_no_dot_when_no_model_has_its_name(
    places, tiny_bundle
):
    shutil.copytree(tiny_bundle, "another")
    assert resolve_model("another") == Path("another")


def test_an_unknown_name_offers_similar_ones(places):
    with pytest.raises(ModelNotFoundError, match="did you mean my-model"):
        resolve_model("my-modle")
    with pytest.raises(ModelNotFoundError, match="did you mean robustzs-lite"):
        resolve_model("robustzs-light")
    with pytest.raises(ModelNotFoundError, match="robustzs export"):
        resolve_model("ViT-L-14")
    with pytest.raises(ModelNotFoundError):
        resolve_model("")


@pytest.mark.parametrize("path", ["./nothing", "some/where", "/no/such/folder"])
def test_an_unknown_folder_is_called_one(places, path):
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        resolve_model(path)


def test_the_list_tells_what_there_is(places, tiny_bundle):
    card = {"robustness": "about zero at 4/255"}
    (places[1] / "my-model/card.json").write_text(json.dumps(card))
    write_manifest(places[1] / "my-model", name="my-model", description="mine")
    mine, lite = list_models()
    assert (mine.name, mine.kind, mine.description) == ("my-model", "user", "mine")
    assert mine.robustness == "about zero at 4/255"
    assert mine.aliases == ()
    assert (lite.name, lite.kind, lite.aliases) == (
        "robustzs-lite-clean",
        "embedded",
        ("robustzs-lite",),
    )
    bundle = Bundle.load(tiny_bundle)
    assert (lite.version, lite.digest, lite.size) == ("1", bundle.digest, bundle.size)
    assert lite.robustness is None
    assert lite.error is None


def test_a_broken_bundle_is_listed_with_its_error(places):
    _, own = places
    (own / "broken").mkdir()
    (own / "my-model/tokenizer.json").write_bytes(
        (own / "my-model/tokenizer.json").read_bytes().replace(b"[PAD]", b"[pad]")
    )
    (own / ".tiny.partial-123").mkdir()
    (own / "notes.txt").write_text("not a folder")
    found = {model.name: model for model in list_models()}
    assert sorted(found) == ["broken", "my-model", "robustzs-lite-clean"]
    assert isinstance(found["broken"].error, BundleManifestError)
    assert found["broken"].digest is None
    assert found["my-model"].error is None
    verified = {model.name: model for model in list_models(verify=True)}
    assert isinstance(verified["my-model"].error, BundleDigestError)


def test_no_folder_no_models(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "embedded_dir", lambda: tmp_path / "nothing")
    assert list_models() == []
    with pytest.raises(ModelNotFoundError):
        resolve_model("robustzs-lite")
