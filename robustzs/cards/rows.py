"""Cards of any version as rows for people: a measure, its value, and of how many images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class MeasuredRow:
    """One number of a card.

    Args:
        measure: What was measured.
        value: Usually in [0, 1].
        n: Images; ``None`` where the card does not say.
        low: Lower end of the interval, where the card has one.
        high: Upper end.
        chance: What guessing would reach, where the card says.
    """

    measure: str
    value: float
    n: int | None = None
    low: float | None = None
    high: float | None = None
    chance: float | None = None

    @property
    def in_words(self) -> str:
        """The value, its interval and the number of images: ``0.45 [0.36, 0.54], n 111``."""
        text = f"{self.value:.4g}"
        if self.low is not None and self.high is not None:
            text += f" [{self.low:.3g}, {self.high:.3g}]"
        return text if self.n is None else f"{text}, n {self.n}"


def measured_rows(card: Mapping[str, Any] | None) -> list[MeasuredRow]:
    """The numbers of a ``card.json`` as :meth:`Bundle.card` gives it, free form or schema.

    What has neither form is left out: this is for showing, and
    :func:`robustzs.cards.reading.parse_card` is for checking.
    """
    found: list[MeasuredRow | None] = []
    for result in _mappings(card, "results"):
        found += [_free(result)] if "measure" in result else _of_schema(result)
    for each in _mappings(card, "deployed"):
        where = f"clean top-1, {each.get('dataset')}, deployed in {each.get('precision')}"
        found.append(_row(where, each, "clean_accuracy", "clean_interval"))
    for average in _mappings(card, "averages"):
        found += _of_average(average)
    rows: dict[str, MeasuredRow] = {}
    for row in found:
        # clean accuracy is one number, however many attacks were run
        if row is not None:
            rows.setdefault(row.measure, row)
    return list(rows.values())


def _mappings(card: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    listed = (card or {}).get(key)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _free(result: Mapping[str, Any]) -> MeasuredRow | None:
    value = _number(result.get("value"))
    if value is None:
        return None
    n = result.get("n")
    return MeasuredRow(
        measure=str(result["measure"]),
        value=value,
        n=n if isinstance(n, int) else None,
        chance=_number(result.get("chance")),
    )


def _of_schema(result: Mapping[str, Any]) -> list[MeasuredRow | None]:
    depth = result.get("depth")
    where = "top-1" if depth is None else f"depth {depth} ({result.get('meaning')})"
    data = result.get("dataset")
    if result.get("precision"):
        data = f"{data}, deployed in {result['precision']}"
    attacked = result.get("attacked_depth")
    attack = f"{result.get('attack')}, {result.get('norm')} eps {result.get('eps')}"
    if attacked is not None:
        attack += f", attacked at depth {attacked} ({result.get('attacked_meaning')})"
    if result.get("transfer_only"):
        attack += ", transfer only"
    return [
        _row(f"clean {where}, {data}", result, "clean_accuracy", "clean_interval"),
        _row(f"robust {where}, {data}, {attack}", result, "robust_accuracy", "interval"),
    ]


def _of_average(average: Mapping[str, Any]) -> list[MeasuredRow | None]:
    datasets = average.get("datasets")
    names = ", ".join(map(str, datasets)) if isinstance(datasets, list) else "?"
    attack = f"{average.get('attack')}, {average.get('norm')} eps {average.get('eps')}"
    return [
        _row(f"clean top-1, average of {names}", average, "clean_accuracy", ""),
        _row(f"robust top-1, average of {names}, {attack}", average, "robust_accuracy", ""),
    ]


def _row(measure: str, result: Mapping[str, Any], key: str, interval: str) -> MeasuredRow | None:
    value = _number(result.get(key))
    if value is None:
        return None
    ends = result.get(interval)
    ends = ends if isinstance(ends, dict) else {}
    n = result.get("n")
    return MeasuredRow(
        measure=measure,
        value=value,
        n=n if isinstance(n, int) else None,
        low=_number(ends.get("low")),
        high=_number(ends.get("high")),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
