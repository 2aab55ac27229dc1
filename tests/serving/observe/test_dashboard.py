"""The dashboard and the page on observability name the metrics that exist, all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robustzs_serving.observe.catalogue import CATALOGUE, Spec

ROOT = Path(__file__).parents[3]
DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "docs/grafana/robustzs.json").read_text(encoding="utf-8")
)
SERIES: dict[str, Spec] = {}
for _spec in CATALOGUE:
    if _spec.kind == "histogram":
        for _suffix in ("bucket", "sum", "count"):
            SERIES[f"{_spec.name}_{_suffix}"] = _spec
    else:
        SERIES[_spec.exported] = _spec


def _queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["query"]


def _named(query: str) -> set[str]:
    return set(re.findall(r"robustzs_\w+", query))


def test_every_query_names_series_that_exist() -> None:
    named = set().union(*map(_named, _queries()))
    assert named
    assert named <= set(SERIES)


def test_every_metric_is_on_a_panel() -> None:
    shown = {SERIES[name].name for query in _queries() for name in _named(query)}
    assert shown == {spec.name for spec in CATALOGUE}


def test_queries_group_and_select_by_labels_that_exist() -> None:
    for query in _queries():
        known = {"le", "job"}.union(*(SERIES[name].labels for name in _named(query)))
        for group in re.findall(r"by \(([^)]*)\)", query):
            assert {label.strip() for label in group.split(",")} <= known, query
        for selector in re.findall(r"\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)\s*=", selector)) <= known, query


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & own, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own


def test_the_page_describes_every_metric_and_no_other() -> None:
    page = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    for spec in CATALOGUE:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        assert f"| `{spec.exported}` | {labels} | {spec.help} |" in page
    modules = {"robustzs_serving"}
    assert _named(page) - modules <= {spec.exported for spec in CATALOGUE} | set(SERIES)
