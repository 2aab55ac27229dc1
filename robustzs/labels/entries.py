"""From raw entries, wherever they were read, to checked labels: all problems at once."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from robustzs.errors import DuplicateLabelError, LabelError
from robustzs.labels import rules
from robustzs.labels.label import Label

_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Entry:
    """What a reader found, not yet checked.

    Args:
        place: Where, for messages: ``line 3``, ``item 3``, ``label 3``.
    """

    place: str
    name: str = ""
    synset: str = ""
    prompt: str = ""
    aliases: tuple[str, ...] = ()
    id: str = ""


def build_labels(
    entries: Sequence[Entry],
    *,
    source: str,
    problems: Sequence[str] = (),
    error: type[LabelError] = LabelError,
) -> tuple[Label, ...]:
    """Check all entries and make labels of them.

    Args:
        entries: What the reader found, in order.
        source: Names the origin in messages.
        problems: What the reader itself already complains about.
        error: Raised when anything but duplicates is wrong.

    Raises:
        DuplicateLabelError: Ids, names or prompts occur twice, and nothing else is wrong.
        LabelError: The class ``error``, listing every problem.
    """
    found = list(problems)
    if not entries and not found:
        found.append("there is no label in it")
    if len(entries) > rules.MAX_LABELS:
        found.append(f"{len(entries)} labels, the limit is {rules.MAX_LABELS}")
        entries = entries[: rules.MAX_LABELS]
    good: list[tuple[Entry, Label]] = []
    for entry in entries:
        complaints, label = _check(entry)
        found += [f"{entry.place}: {complaint}" for complaint in complaints]
        if label is not None:
            good.append((entry, label))
    labels = _with_ids([label for _, label in good])
    duplicates = _duplicates([entry.place for entry, _ in good], labels)
    if found:
        raise _report(error, source, found + duplicates, "")
    if duplicates:
        hint = "remove one, or give each its own synset, name and prompt"
        raise _report(DuplicateLabelError, source, duplicates, hint)
    return labels


def _report(error: type[LabelError], source: str, problems: Sequence[str], hint: str) -> LabelError:
    shown = "; ".join(problems[:_SHOWN_PROBLEMS])
    more = len(problems) - _SHOWN_PROBLEMS
    if more > 0:
        shown += f"; and {more} more"
    return error(f"{source}: {shown}", hint=hint, problems=problems)


def _check(entry: Entry) -> tuple[list[str], Label | None]:
    """Check one entry; the label has an empty id where one must still be made."""
    fields = {"name": entry.name, "synset": entry.synset, "prompt": entry.prompt, "id": entry.id}
    pieces = [*fields.items(), *(("alias", alias) for alias in entry.aliases)]
    complaints = [text for what, value in pieces if (text := rules.text_problem(value, what))]
    if complaints:
        return complaints, None
    tidied = {key: rules.tidy(value) for key, value in fields.items()}
    aliases = tuple(dict.fromkeys(filter(None, map(rules.tidy, entry.aliases))))
    name, synset = tidied["name"], tidied["synset"]
    if synset and (problem := rules.synset_problem(synset)):
        complaints.append(problem)
    if tidied["id"] and (problem := rules.id_problem(tidied["id"])):
        complaints.append(problem)
    if len(aliases) > rules.MAX_ALIASES:
        complaints.append(f"{len(aliases)} aliases, the limit is {rules.MAX_ALIASES}")
    if not synset and (rules.is_wnid(name) or rules.is_sense(name)):
        name, synset = "", name
    if not name and not synset:
        complaints.append("the name is empty")
    if complaints:
        return complaints, None
    return [], _complete(name, synset, tidied["prompt"], aliases, tidied["id"])


def _complete(
    name: str, synset: str, prompt: str, aliases: tuple[str, ...], label_id: str
) -> Label:
    """Fill what is missing: a bare wnid of ImageNet knows its name, a sense its lemma."""
    if not name:
        known = imagenet_table().get(synset)
        if known is not None:
            name, prompt = known.name, prompt or known.prompt
            aliases = aliases or known.aliases
        else:
            name = rules.lemma_of_sense(synset)
    if not label_id and rules.is_wnid(synset):
        label_id = synset
    return Label(label_id, name, prompt or name, aliases, synset or None)


def _with_ids(labels: Sequence[Label]) -> tuple[Label, ...]:
    missing = [(label.name, label.synset or "") for label in labels if not label.id]
    slugs = iter(rules.unique_slugs(missing, {label.id for label in labels if label.id}))
    return tuple(
        label
        if label.id
        else Label(next(slugs), label.name, label.prompt, label.aliases, label.synset)
        for label in labels
    )


def _duplicates(places: Sequence[str], labels: Sequence[Label]) -> list[str]:
    """Pairs that code, people or the model could not tell apart, each with both places.

    Two senses of one word may share a name, provided that their synsets and prompts differ.
    """
    first: dict[tuple[str, str], int] = {}
    found: list[str] = []
    for index, label in enumerate(labels):
        keys = [
            ("name", rules.same_text_key(label.name), label.name),
            ("id", label.id, label.id),
            ("synset", label.synset or "", label.synset or ""),
            ("prompt", rules.same_text_key(label.prompt), label.prompt),
        ]
        clash = None
        for what, key, shown in keys:
            if not key:
                continue
            other = first.setdefault((what, key), index)
            if other == index or clash is not None:
                continue
            senses = {labels[other].synset, label.synset}
            if what != "name" or None in senses or len(senses) == 1:
                clash = f"{places[other]} and {places[index]} have the same {what} {shown!r}"
        if clash is not None:
            found.append(clash)
    return found


@lru_cache(maxsize=1)
def imagenet_table() -> dict[str, Label]:
    """The 1000 classes of ImageNet-1k by wnid, in the order of its class indices."""
    path = files("robustzs.hierarchy") / "data" / "imagenet1k_labels.csv"
    rows: Iterable[dict[str, str]] = csv.DictReader(
        path.read_text(encoding="utf-8").splitlines(), strict=True
    )
    return {
        row["wnid"]: Label(
            row["wnid"],
            row["name"],
            row["prompt"],
            tuple(filter(None, row["aliases"].split(";"))),
            row["wnid"],
        )
        for row in rows
    }
