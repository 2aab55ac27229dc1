"""``from robustzs import ...``: what is promised, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import robustzs


def test_public_names_are_sorted_and_all_there() -> None:
    assert list(robustzs.__all__) == sorted(robustzs.__all__)
    for name in robustzs.__all__:
        assert getattr(robustzs, name) is not None
    assert set(robustzs.__all__) <= set(dir(robustzs))


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Classifer'"):
        _ = robustzs.Classifer  # type: ignore[attr-defined]


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_the_package_costs_nothing() -> None:
    heavy = {"numpy", "pydantic", "onnxruntime", "PIL", "tokenizers", "typer", "yaml"}
    assert not heavy & modules_after("import robustzs")


def test_the_classifier_imports_no_engine_before_it_is_used() -> None:
    heavy = {"onnxruntime", "tokenizers", "torch", "nltk", "ftfy", "PIL"}
    assert not heavy & modules_after("from robustzs import Classifier")
