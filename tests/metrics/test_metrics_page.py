"""docs/metrics.md: its examples run, and what it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_python_examples_run_one_after_the_other() -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for code in blocks:
        exec(compile(code, "docs/metrics.md", "exec"), names)


def test_functions_of_the_table_exist() -> None:
    named = re.findall(r"^\| `(\w+)\.(\w+)` \|", PAGE, re.MULTILINE)
    assert len(named) == 5
    for module, name in named:
        assert callable(getattr(importlib.import_module(f"robustzs.metrics.{module}"), name))
