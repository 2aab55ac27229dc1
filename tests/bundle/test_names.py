"""A file name in a bundle stays inside the bundle, on every system."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustzs.bundle.names import check_file_name
from robustzs.bundle.store import Bundle
from robustzs.errors import BundlePathError

BAD_NAMES = [
    "/etc/passwd",
    "../outside.onnx",
    "a/../../outside",
    "a/..",
    "..",
    ".",
    "./a",
    "a//b",
    "a/",
    "",
    "a\\b",
    "C:\\a",
    "c:a",
    "\\\\server\\share",
    "a\0b",
    "a\nb",
    "a b",
    "-rf",
    ".hidden",
    "con",
    "NUL.txt",
    "a/com1/b",
    "a.",
    "a" * 201,
    "a/b/c/d/e",
    "ümlaut",
    "~root",
    "$HOME",
    "a:b",
    "*",
]


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def record(folder):
    return json.loads((folder / "bundle.json").read_text())


def write(folder, content):
    (folder / "bundle.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_astray_are_refused(bundle, name):
    content = record(bundle)
    content["files"][name] = content["files"].pop("README.md")
    write(bundle, content)
    with pytest.raises(BundlePathError):
        Bundle.load(bundle)


@pytest.mark.parametrize("name", ["README.MD", "bundle.json", "Bundle.json"])
def test_names_that_some_systems_confuse_are_refused(bundle, name):
    content = record(bundle)
    content["files"][name] = content["files"]["README.md"]
    write(bundle, content)
    with pytest.raises(BundlePathError, match="is that of"):
        Bundle.load(bundle)


@given(st.text(alphabet="ab.-_/\\~: \0é1", max_size=20))
def test_an_allowed_name_stays_inside_on_every_system(name):
    try:
        check_file_name(name)
    except BundlePathError:
        return
    root = Path("/some/root")
    assert root in Path(os.path.normpath(root / name)).parents
    assert "/".join(Path(name).parts) == name
