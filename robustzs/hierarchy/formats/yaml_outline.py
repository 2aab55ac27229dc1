"""YAML to an outline, from parser events alone: no tags, no anchors, no objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from robustzs.errors import HierarchyFormatError, HierarchyLimitError
from robustzs.hierarchy.formats.outline import Mapping, Outline, Scalar, Sequence, checked_scalar

_NULLS = ("", "~", "null", "Null", "NULL")


def parse_yaml(text: str, path: Path, *, max_nesting: int, max_items: int) -> Outline:
    """The outline of the one document in ``text``.

    Anchors and aliases are refused: a tree has no use for them, and nested ones grow
    exponentially.

    Raises:
        HierarchyFormatError: Not YAML, several documents, anchors, aliases, tags.
        HierarchyLimitError: Nested deeper than ``max_nesting``, or more than ``max_items`` values.
    """
    # The C parser is 20 times faster; a build of PyYAML without it reads the same events.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _compose(yaml.parse(text, Loader=loader), path, max_nesting, max_items)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise HierarchyFormatError(f"{path}{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise HierarchyFormatError(f"{path}: not YAML: {reason}") from error


def _compose(events: Iterator[yaml.Event], path: Path, max_nesting: int, max_items: int) -> Outline:
    top = Sequence(0)  # holds the document as its only item
    stack: list[Sequence | Mapping] = [top]
    keys: list[Scalar | None] = [None]  # of each open mapping: the key that waits for its value
    n_items = n_documents = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.DocumentStartEvent):
            n_documents += 1
            if n_documents > 1:
                raise HierarchyFormatError(f"{path}:{line}: a second document; one is allowed")
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            stack.pop()
            keys.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        n_items += 1
        if n_items > max_items:
            raise HierarchyLimitError(f"{path}:{line}: more than {max_items} values")
        value = _value(event, path, line)
        _attach(value, stack[-1], keys, path, line)
        if not isinstance(value, Scalar):
            if len(stack) > max_nesting:
                raise HierarchyLimitError(f"{path}:{line}: nested deeper than {max_nesting}")
            stack.append(value)
            keys.append(None)
    if not top.items:
        raise HierarchyFormatError(f"{path}: empty")
    return top.items[0]


def _value(event: yaml.NodeEvent, path: Path, line: int) -> Outline:
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise HierarchyFormatError(
            f"{path}:{line}: anchor or alias {event.anchor!r}", hint="write the branch out"
        )
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise HierarchyFormatError(f"{path}:{line}: tag {tag!r}", hint="quote plain text")
    if isinstance(event, yaml.ScalarEvent):
        is_null = event.style in (None, "") and event.value in _NULLS
        return checked_scalar(None if is_null else event.value, path, line)
    return Sequence(line) if isinstance(event, yaml.SequenceStartEvent) else Mapping(line)


def _attach(
    value: Outline,
    owner: Sequence | Mapping,
    keys: list[Scalar | None],
    path: Path,
    line: int,
) -> None:
    """Put ``value`` where it belongs: an item, a key, or the value of the waiting key."""
    if isinstance(owner, Sequence):
        owner.items.append(value)
    elif (key := keys[-1]) is not None:
        owner.entries.append((key, value))
        keys[-1] = None
    elif isinstance(value, Scalar):
        keys[-1] = value
    else:
        raise HierarchyFormatError(f"{path}:{line}: a key is text, not a list or a mapping")
