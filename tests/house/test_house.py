"""Promises of the whole: versions, schemas, arrows, and what an import costs."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import robustzs
from robustzs.schemas.__main__ import schemas

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "onnxruntime", "nltk", "bentoml", "tritonclient", "PIL", "tokenizers", "pydantic")


def test_newest_changelog_entry_is_this_version() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, flags=re.MULTILINE)
    assert entries[0] == robustzs.__version__
    assert text.index("## [Unreleased]") < text.index(f"## [{entries[0]}]")


@pytest.mark.parametrize("name", sorted(schemas()))
def test_published_schema_is_that_of_the_models(name: str) -> None:
    published = json.loads((Path(robustzs.__file__).parent / "schemas" / name).read_text("utf-8"))
    assert published == schemas()[name], "run `python -m robustzs.schemas`"


def test_every_public_name_resolves_and_the_list_is_sorted() -> None:
    assert list(robustzs.__all__) == sorted(robustzs.__all__)
    for name in robustzs.__all__:
        assert getattr(robustzs, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        robustzs.no_such_name  # noqa: B018


@pytest.mark.parametrize("statement", ["import robustzs", "import robustzs.errors"])
def test_importing_costs_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]"


def test_help_needs_no_engine() -> None:
    code = (
        "import sys; from robustzs.cli.main import app; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "only_in"),
    [
        ("onnxruntime", {"robustzs/backends/onnx.py"}),
        ("nltk", {"robustzs/hierarchy/wordnet.py"}),
        ("tritonclient", {"robustzs/backends/triton/transport.py"}),
    ],
)
def test_heavy_modules_stay_in_their_one_file(module: str, only_in: set[str]) -> None:
    pattern = re.compile(rf"^\s*(import|from) {module}\b|import_module\(\s*[\"']{module}", re.M)
    # Training may use nltk and the rest as it likes; ONNX Runtime is silenced in one place only.
    rooms = ("robustzs", "training", "serving", "sdk", "benchmarks")
    users = {
        path.relative_to(REPOSITORY).as_posix()
        for room in rooms
        for path in (REPOSITORY / room).rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    }
    if module != "onnxruntime":
        users = {user for user in users if user.startswith("robustzs/")}
    assert users <= only_in


def test_make_help_explains_every_target() -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"\.PHONY: ((?:.*\\\n)*.*)", text)
    assert phony is not None
    targets = phony.group(1).replace("\\\n", " ").split()
    explained = set(re.findall(r"^([a-z-]+):.*## \S", text, flags=re.MULTILINE))
    assert set(targets) == explained


def test_the_service_declares_every_package_that_it_imports() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    declared = set()
    for part in ("dependencies", "cpu", "serve"):
        listed = re.findall(rf"^{part} = \[(.*?)\]$", project, flags=re.MULTILINE | re.DOTALL)[0]
        declared |= {_plain(name) for name in re.findall(r'"([\w.-]+)', listed)}
    owners = packages_distributions()
    for path in (REPOSITORY / "serving").rglob("*.py"):
        if "triton" in path.parts:
            continue  # has an extra of its own
        for module in _imported(path):
            owned = {_plain(owner) for owner in owners.get(module.partition(".")[0], ())}
            if module.startswith("opentelemetry."):  # one name, many distributions
                owned = {_plain(name) for name in _OPENTELEMETRY[module.split(".")[1]]}
            top = module.partition(".")[0]
            if top not in sys.stdlib_module_names and not top.startswith("robustzs"):
                assert owned & declared, f"the extra `serve` lacks {module} of {path.name}"


_OPENTELEMETRY = {
    "trace": ["opentelemetry-api"],
    "sdk": ["opentelemetry-sdk"],
    "exporter": ["opentelemetry-exporter-otlp-proto-http"],
}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_a_bento_is_made_of_this_version_and_these_extras() -> None:
    python = yaml.safe_load((REPOSITORY / "bentofile.yaml").read_text(encoding="utf-8"))["python"]
    assert python["wheels"] == [f"dist/robustzs-{robustzs.__version__}-py3-none-any.whl"]
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    wanted = [
        requirement
        for extra in ("cpu", "serve")
        for requirement in re.findall(
            '"([^"]+)"', re.findall(rf"^{extra} = \[(.*)\]$", project, flags=re.MULTILINE)[0]
        )
    ]
    assert python["packages"] == wanted
