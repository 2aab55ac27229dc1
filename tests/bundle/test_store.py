"""Every way in which a bundle can be broken has its own error."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import jsonschema
import onnx
import pytest

from robustzs.bundle.manifest import BundleManifest
from robustzs.bundle.store import Bundle, file_sha256, manifest_digest
from robustzs.errors import (
    BundleDigestError,
    BundleFileMissingError,
    BundleManifestError,
    BundleOriginError,
    BundlePathError,
    BundleSchemaVersionError,
    BundleTruncatedError,
    OnnxExternalDataError,
    OnnxMalformedError,
    OnnxOperatorDomainError,
    UsageError,
)
from tests.factories import write_manifest

SCHEMA = Path(__file__).parents[2] / "robustzs/schemas/bundle.schema.json"


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def document(folder):
    return json.loads((folder / "bundle.json").read_text())


def rewrite(folder, **changes):
    content = {**document(folder), **changes}
    (folder / "bundle.json").write_text(json.dumps(content))


def rename_in_record(folder, old, new):
    content = document(folder)
    content["files"][new] = content["files"].pop(old)
    (folder / "bundle.json").write_text(json.dumps(content))


def test_a_whole_bundle_is_read(bundle):
    loaded = Bundle.load(bundle)
    assert loaded.manifest.name == "tiny"
    assert loaded.file("tokenizer.json") == bundle / "tokenizer.json"
    assert (
        loaded.size
        == sum(path.stat().st_size for path in bundle.iterdir())
        - (bundle / "bundle.json").stat().st_size
    )
    assert loaded.card() is None
    assert Bundle.load(str(bundle)).digest == loaded.digest


def test_the_record_follows_the_published_schema(bundle):
    jsonschema.validate(document(bundle), json.loads(SCHEMA.read_text()))


def test_the_digest_is_that_of_the_content_and_not_of_its_layout(bundle):
    digest = Bundle.load(bundle).digest
    content = dict(reversed(document(bundle).items()))
    (bundle / "bundle.json").write_text(json.dumps(content, indent=7))
    assert Bundle.load(bundle).digest == digest
    rewrite(bundle, description="another")
    assert Bundle.load(bundle).digest != digest


def test_the_documented_one_liner_gives_the_digest(bundle):
    content = json.loads((bundle / "bundle.json").read_bytes())
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == Bundle.load(bundle).digest


def test_a_file_without_a_record_is_not_part_of_the_bundle(bundle):
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(BundleFileMissingError, match=r"no file 'notes\.txt'"):
        Bundle.load(bundle).file("notes.txt")


def test_the_card_is_read(bundle):
    (bundle / "card.json").write_text('{"robustness": "about zero"}')
    write_manifest(bundle)
    assert Bundle.load(bundle).card() == {"robustness": "about zero"}
    (bundle / "card.json").write_text("[]")
    write_manifest(bundle)
    with pytest.raises(BundleManifestError, match=r"card\.json"):
        Bundle.load(bundle).card()


# --- origin


@pytest.mark.parametrize("form", ["{}", "sha256:{}", "SHA256:{}", " {} "])
def test_the_expected_digest_is_accepted_in_its_usual_forms(bundle, form):
    digest = Bundle.load(bundle).digest
    assert Bundle.load(bundle, expect_digest=form.format(digest.upper())).digest == digest


def test_another_bundle_than_the_expected_one_is_refused(bundle):
    digest = Bundle.load(bundle).digest
    rewrite(bundle, description="a wolf in sheep's clothing")
    Bundle.load(bundle)  # whole it is
    with pytest.raises(BundleOriginError, match=digest):
        Bundle.load(bundle, expect_digest=digest)


@pytest.mark.parametrize("digest", ["", "sha256:", "abc", "0" * 63, "g" * 64])
def test_an_expected_digest_that_is_none_is_a_usage_error(bundle, digest):
    with pytest.raises(UsageError, match="not a sha256"):
        Bundle.load(bundle, expect_digest=digest)


# --- bundle.json


def test_no_folder_no_file_no_record(bundle, tmp_path):
    with pytest.raises(BundleManifestError, match="not a folder"):
        Bundle.load(tmp_path / "nothing")
    with pytest.raises(BundleManifestError, match="not a folder"):
        Bundle.load(bundle / "bundle.json")
    (bundle / "bundle.json").unlink()
    with pytest.raises(BundleManifestError, match=r"no readable bundle\.json"):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"schema_version": 1, "schema_version": 1}', "given twice"),
        ('{"logit_scale": NaN}', "NaN is not a JSON number"),
        ('{"logit_scale": 1e999}', "not JSON"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": "\\ud800"}', "schema_version"),
        ("{}", "schema_version None"),
        ('{"schema_version": "1"}', "schema_version '1'"),
        ('{"schema_version": true}', "schema_version True"),
        ('{"schema_version": 0}', "schema_version 0"),
        ('{"schema_version": 1, "files": 3}', "files"),
    ],
)
def test_a_record_that_is_none_is_refused(bundle, text, what):
    (bundle / "bundle.json").write_text(text)
    with pytest.raises(BundleManifestError, match=what):
        Bundle.load(bundle)


def test_a_record_that_is_not_utf8_is_refused(bundle):
    (bundle / "bundle.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(BundleManifestError, match="not JSON"):
        Bundle.load(bundle)


def test_a_gigantic_record_is_refused(bundle):
    with (bundle / "bundle.json").open("ab") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(BundleManifestError, match="larger than 1000000 bytes"):
        Bundle.load(bundle)


def test_a_newer_schema_is_named_before_anything_else_is_looked_at(bundle):
    (bundle / "bundle.json").write_text('{"schema_version": 7, "files": {"/etc/passwd": 1}}')
    with pytest.raises(BundleSchemaVersionError, match=r"schema version 7.*up to 1.*upgrade"):
        Bundle.load(bundle)


def test_every_problem_is_listed_in_words(bundle):
    content = document(bundle)
    del content["name"]
    content |= {"logit_scale": -1, "colour": "red", "embed_dim": "many"}
    (bundle / "bundle.json").write_text(json.dumps(content))
    with pytest.raises(BundleManifestError) as caught:
        Bundle.load(bundle)
    for field in ("name", "logit_scale", "colour", "embed_dim"):
        assert f"{field}: " in caught.value.message
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"image_encoders": {"fp32": "elsewhere.onnx"}}, "named but not recorded"),
        ({"default_image_precision": "int8"}, "no image encoder of precision int8"),
        ({"default_text_precision": "int8"}, "no text encoder of precision int8"),
        ({"geometry": {"kind": "poincare"}}, "poincare geometry needs curvature"),
        ({"std": [0, 1, 1]}, "std"),
        ({"name": "../tiny"}, "name"),
        ({"licences": []}, "licences"),
        ({"weights": "weights.safetensors"}, "named but not recorded"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(bundle, changes, what):
    rewrite(bundle, **changes)
    with pytest.raises(BundleManifestError, match=what):
        Bundle.load(bundle)


def test_too_many_files_are_refused(bundle):
    record = {"sha256": "0" * 64, "size": 0}
    rewrite(bundle, files={f"file{index}": record for index in range(300)})
    with pytest.raises(BundleManifestError, match="records 300 files"):
        Bundle.load(bundle)


# --- files


def test_a_missing_file_is_named(bundle):
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(BundleFileMissingError, match=r"tokenizer\.json is missing"):
        Bundle.load(bundle)


@pytest.mark.parametrize(("cut", "what"), [(-1, "shorter"), (0, "shorter"), (None, "longer")])
@pytest.mark.parametrize("verify", [True, False])
def test_a_file_of_another_length_is_named(bundle, cut, what, verify):
    path = bundle / "image_encoder.onnx"
    data = path.read_bytes()
    path.write_bytes(data + b"x" if cut is None else data[:cut])
    with pytest.raises(BundleTruncatedError, match=rf"image_encoder\.onnx.*{what}"):
        Bundle.load(bundle, verify=verify)


def test_one_flipped_bit_is_found(bundle):
    path = bundle / "tokenizer.json"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleDigestError, match=r"tokenizer\.json .* was changed"):
        Bundle.load(bundle)
    Bundle.load(bundle, verify=False)


def test_links_are_refused_even_when_they_lead_to_the_right_bytes(bundle, tmp_path):
    outside = shutil.move(bundle / "tokenizer.json", tmp_path / "tokenizer.json")
    (bundle / "tokenizer.json").symlink_to(outside)
    with pytest.raises(BundlePathError, match="behind a link"):
        Bundle.load(bundle)


def test_a_linked_folder_inside_is_refused(bundle, tmp_path):
    (tmp_path / "outside").mkdir()
    shutil.move(bundle / "README.md", tmp_path / "outside/README.md")
    (bundle / "docs").symlink_to(tmp_path / "outside")
    rename_in_record(bundle, "README.md", "docs/README.md")
    with pytest.raises(BundlePathError, match="behind a link"):
        Bundle.load(bundle)


def test_a_linked_record_is_refused(bundle, tmp_path):
    outside = shutil.move(bundle / "bundle.json", tmp_path / "bundle.json")
    (bundle / "bundle.json").symlink_to(outside)
    with pytest.raises(BundlePathError, match="behind a link"):
        Bundle.load(bundle)


def test_the_bundle_itself_may_be_a_link(bundle, tmp_path):
    (tmp_path / "current").symlink_to(bundle)
    assert Bundle.load(tmp_path / "current").digest == Bundle.load(bundle).digest


@pytest.mark.parametrize("name", ["tokenizer.json", "bundle.json"])
def test_a_pipe_holds_nobody_up(bundle, name):
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundlePathError, match="not a regular file"):
        Bundle.load(bundle)


def test_a_folder_in_place_of_a_file_is_refused(bundle):
    (bundle / "tokenizer.json").unlink()
    (bundle / "tokenizer.json").mkdir()
    with pytest.raises(BundlePathError, match="not a regular file"):
        Bundle.load(bundle)


# --- ONNX files


def change_graph(folder, change):
    path = folder / "text_encoder.onnx"
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    write_manifest(folder)


def test_external_data_outside_the_bundle_is_refused(bundle, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(1000))

    def point_outside(model):
        onnx.external_data_helper.set_external_data(
            model.graph.initializer[0], "../secret", length=4
        )

    change_graph(bundle, point_outside)
    with pytest.raises(OnnxExternalDataError, match=r"text_encoder\.onnx points at '\.\./secret'"):
        Bundle.load(bundle)


def test_external_data_in_an_unrecorded_file_is_refused(bundle):
    def point(model):
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")

    change_graph(bundle, point)
    (bundle / "weights.bin").write_bytes(bytes(1000))
    with pytest.raises(OnnxExternalDataError, match="not in the bundle's record"):
        Bundle.load(bundle)
    write_manifest(bundle)
    assert "weights.bin" in Bundle.load(bundle).manifest.files


def test_an_operator_of_another_domain_is_refused(bundle):
    def use_custom_code(model):
        model.graph.node[0].domain = "evil.example"

    change_graph(bundle, use_custom_code)
    with pytest.raises(OnnxOperatorDomainError, match=r"evil\.example::Gather"):
        Bundle.load(bundle)


def test_a_graph_that_is_none_is_refused(bundle):
    (bundle / "text_encoder.onnx").write_bytes(b"these are not the bytes of a graph")
    write_manifest(bundle)
    with pytest.raises(OnnxMalformedError, match=r"text_encoder\.onnx"):
        Bundle.load(bundle)


def test_an_encoder_is_checked_whatever_its_name_ends_in(bundle):
    (bundle / "text_encoder.onnx").rename(bundle / "text_encoder.bin")
    write_manifest(bundle, text_encoders={"fp32": "text_encoder.bin"})
    Bundle.load(bundle)
    (bundle / "text_encoder.bin").write_bytes(b"no graph")
    write_manifest(bundle, text_encoders={"fp32": "text_encoder.bin"})
    with pytest.raises(OnnxMalformedError, match=r"text_encoder\.bin"):
        Bundle.load(bundle)


# --- helpers


def test_file_digests_are_those_of_sha256sum(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_fields_added_later_do_not_change_an_old_digest(bundle):
    content = document(bundle)
    del content["temperature"]  # as if written before the field existed
    (bundle / "bundle.json").write_text(json.dumps(content))
    loaded = Bundle.load(bundle)
    assert loaded.manifest.temperature == BundleManifest.model_fields["temperature"].default
    assert loaded.digest == manifest_digest(content)
