"""docs/objectives.md: its code runs, and its tables are the code's."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from robustzs_training import objectives
from robustzs_training.objectives import HierarchicalOptions, Objective

PAGE = (Path(__file__).parents[3] / "docs" / "objectives.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_examples_run_in_one_session() -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    assert code.count("import") > 5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(code, "docs/objectives.md", "exec"), {})


def test_every_objective_stands_in_the_table() -> None:
    classes = {
        name
        for name in objectives.__all__
        if isinstance(getattr(objectives, name), type)
        and issubclass(getattr(objectives, name), Objective)
        and name != "Objective"
    }
    assert set(re.findall(r"^\| `(\w+)` \| \w", PAGE, flags=re.MULTILINE)) >= classes
    assert sorted(objectives.__all__) == list(objectives.__all__)


def test_every_objective_states_equation_shapes_and_source() -> None:
    folder = Path(objectives.__file__).parent
    for name in objectives.__all__:
        module = getattr(objectives, name).__module__.rsplit(".", 1)[1]
        if module == "base":
            continue
        head = (folder / f"{module}.py").read_text(encoding="utf-8").split('"""')[1]
        for part in ("::", "Shapes:", "Source:"):
            assert part in head, f"{module}.py says nothing of {part}"


def test_options_of_the_table_exist_and_every_option_says_how_it_is_known() -> None:
    names = {field.name for field in dataclasses.fields(HierarchicalOptions)}
    table = PAGE[PAGE.index("| option | default | known |") :].split("\n\n")[0]
    assert set(re.findall(r"`([a-z]+_[a-z_]+|cut|curvature|gap)`", table)) <= names
    text = HierarchicalOptions.__doc__ or ""
    for name in names - {"learn_curvature"}:
        entry = re.search(rf"^    +{name}: (.*?)(?=^    +\w+: |\Z)", text, flags=re.M | re.S)
        assert entry, name
        assert "[S]" in entry[1] or "[R]" in entry[1], name
