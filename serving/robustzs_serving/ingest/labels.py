"""Labels and templates from a request, within its limits; text is text, never a path."""

from __future__ import annotations

import csv
from typing import cast

from robustzs.errors import LabelError, TemplateError
from robustzs.labels.entries import Entry, build_labels
from robustzs.labels.label_set import LabelSet
from robustzs.labels.templates import get_templates
from robustzs_serving.errors import quoted
from robustzs_serving.ingest.fields import unknown_field
from robustzs_serving.ingest.strict_json import Json
from robustzs_serving.settings import Limits

_KEYS = ("id", "name", "prompt", "synset", "aliases")


def labels_of(value: Json, limits: Limits) -> LabelSet:
    """A label set from ``cat,dog``, a list of names, or a list of objects.

    Raises:
        LabelError: wrong labels, or more or longer ones than allowed.
        UnknownFieldError: an object has a key that labels do not have.
    """
    items = _names(value, limits) if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise LabelError(
            f"labels must be names or a list, not {quoted(value)}", hint='cat,dog or ["cat", "dog"]'
        )
    if len(items) > limits.max_labels:
        raise LabelError(
            f"{len(items)} labels, the limit is {limits.max_labels}",
            hint="the deployer sets ROBUSTZS_MAX_LABELS",
        )
    entries = [_entry(number, item) for number, item in enumerate(items, start=1)]
    for entry in entries:
        for text in (entry.name, entry.prompt, entry.id, entry.synset, *entry.aliases):
            _check_length(entry.place, text, limits)
    return LabelSet(build_labels(entries, source="labels"))


def templates_of(value: Json, limits: Limits) -> str | tuple[str, ...]:
    """A template set's name, a template, or several; each has a literal ``{}``.

    Raises:
        TemplateError: wrong templates, or longer ones than allowed.
    """
    if not isinstance(value, str) and not (
        isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    ):
        raise TemplateError(f"templates must be a text or a list of texts, not {quoted(value)}")
    several = [value] if isinstance(value, str) else cast("list[str]", value)
    for number, template in enumerate(several, start=1):
        if len(template) > limits.max_label_chars:
            raise TemplateError(
                f"template {number} has {len(template)} characters, the limit is "
                f"{limits.max_label_chars}"
            )
    chosen = value if isinstance(value, str) else tuple(several)
    get_templates(chosen)
    return chosen


def _names(text: str, limits: Limits) -> list[Json]:
    if "\n" in text or "\r" in text:
        raise LabelError("a list of labels stands on one line", hint="or send a JSON list")
    if text.count(",") >= limits.max_labels:
        return text.split(",")  # too many, which the caller says
    try:
        rows = list(csv.reader([text.strip()], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise LabelError(
            f"the labels {quoted(text)} are not separated by commas",
            hint='quote a name that contains a comma: "salt, sea",pepper',
        ) from error
    names = list(rows[0]) if rows else []
    if names and not names[-1].strip():
        names.pop()  # a trailing comma
    return cast("list[Json]", names)


def _entry(number: int, item: Json) -> Entry:
    place = f"label {number}"
    if isinstance(item, str):
        return Entry(place, name=item)
    if not isinstance(item, dict):
        raise LabelError(
            f"{place} is {quoted(item)}", hint=f"use a text or an object of {', '.join(_KEYS)}"
        )
    for key in item:
        if key not in _KEYS:
            raise unknown_field(key, _KEYS, where=f"key of {place}")
    texts = {key: value for key, value in item.items() if key != "aliases" and value is not None}
    aliases = item.get("aliases") or []
    if not isinstance(aliases, list):
        raise LabelError(f"aliases of {place} must be a list of texts")
    for value in (*texts.values(), *aliases):
        if not isinstance(value, str):
            raise LabelError(f"{place} has {quoted(value)} where a text belongs")
    return Entry(place, aliases=tuple(aliases), **texts)


def _check_length(place: str, text: str, limits: Limits) -> None:
    if len(text) > limits.max_label_chars:
        raise LabelError(
            f"{place} has a text of {len(text)} characters, the limit is {limits.max_label_chars}"
        )
