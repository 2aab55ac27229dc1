"""Nested YAML and JSON, and the two-level JSON of CHiLS."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from robustzs.errors import HierarchyFormatError
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.formats.json_outline import parse_json
from robustzs.hierarchy.formats.outline import Mapping, Outline, Scalar, Sequence
from robustzs.hierarchy.formats.reading import Reading, new_reading
from robustzs.hierarchy.formats.source import read_text
from robustzs.hierarchy.formats.yaml_outline import parse_yaml
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.labels.rules import tidy

ATTRIBUTES_KEY = "_"
_TEXT_ATTRIBUTES = ("id", "name", "synset", "gloss", "prompt")


def parse_outline(path: Path, limits: HierarchyLimits) -> Outline:
    """The outline of a JSON file (by its suffix) or a YAML file."""
    text = read_text(path, limits)
    parse = parse_json if path.suffix.lower() == ".json" else parse_yaml
    # A node takes at most two levels of nesting, attributes a few more.
    nesting = 2 * limits.max_depth + 8
    return parse(text, path, max_nesting=nesting, max_items=16 * limits.max_nodes)


def read_nested(path: Path, limits: HierarchyLimits) -> Reading:
    """Read ``animal: {dog: [labrador, poodle], cat: []}``.

    A node's value is a mapping or a list of its children, or empty for a leaf. In a mapping, the
    key ``_`` holds the node's own attributes: ``id``, ``name``, ``synset``, ``gloss``, ``prompt``,
    ``aliases`` (a text or a list) and ``hidden`` (``true`` for a spacer); at the top, the ``name``
    of the tree. Several tops get a root above them.
    """
    outline = parse_outline(path, limits)
    reading = new_reading(path)
    reading.implied_root = True
    walker = _NestedWalker(path, reading)
    if isinstance(outline, Mapping):
        attributes = outline.get(ATTRIBUTES_KEY)
        if attributes is not None:
            reading.name = walker.attributes(attributes, ("name",)).get("name", reading.name)
    if isinstance(outline, Scalar):
        walker.problem("a mapping of nodes to their children expected", outline.line)
    else:
        walker.children(outline, None)
    return reading


class _NestedWalker:
    """Walks an outline; its nesting, hence the recursion here, was bounded by the parser."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        self.reading = reading

    def problem(self, message: str, line: int, hint: str = "") -> None:
        self.reading.log.add(HierarchyFormatError, message, f"{self.path}:{line}", hint)

    def children(self, value: Outline, parent: str | None) -> None:
        if isinstance(value, Mapping):
            self.check_keys(value)
            for key, below in value.entries:
                if key.text != ATTRIBUTES_KEY:
                    self.node(key, below, parent)
        elif isinstance(value, Sequence):
            for item in value.items:
                if isinstance(item, Scalar):
                    self.node(item, None, parent)
                elif isinstance(item, Mapping) and item.get(ATTRIBUTES_KEY) is None:
                    self.children(item, parent)
                else:
                    self.problem("a list holds names, or mappings of names to children", item.line)
        elif value.text is not None:
            self.problem(
                f"{value.text!r}: children are a list or a mapping",
                value.line,
                hint=f"write [{value.text}]",
            )

    def check_keys(self, value: Mapping) -> None:
        counts = Counter(key.text for key, _ in value.entries)
        for key, _ in reversed(value.entries):
            if counts[key.text] > 1:
                self.problem(f"the key {key.text!r} is there {counts[key.text]} times", key.line)
                counts[key.text] = 0

    def node(self, key: Scalar, value: Outline | None, parent: str | None) -> None:
        text = tidy(key.text or "")
        if not text:
            self.problem("a node without a name", key.line)
            return
        found = value.get(ATTRIBUTES_KEY) if isinstance(value, Mapping) else None
        attributes = {} if found is None else self.attributes(found, _TEXT_ATTRIBUTES)
        node_key = attributes.pop("id", None)
        if node_key is None:
            node_key = text
        else:
            self.reading.ids.add(node_key)
        self.reading.nodes.append(
            Node(
                id=node_key,
                parent_id=parent,
                name=attributes.pop("name", text),
                aliases=() if found is None else self.aliases(found),
                hidden=found is not None and self.hidden(found),
                where=f"{self.path}:{key.line}",
                **attributes,
            )
        )
        if value is not None:
            self.children(value, node_key)

    def attributes(self, found: Outline, allowed: tuple[str, ...]) -> dict[str, str]:
        if not isinstance(found, Mapping):
            self.problem(f"{ATTRIBUTES_KEY!r} holds a mapping of attributes", found.line)
            return {}
        self.check_keys(found)
        known = (*allowed, "aliases", "hidden") if "id" in allowed else allowed
        texts: dict[str, str] = {}
        for key, value in found.entries:
            if key.text not in known:
                self.problem(
                    f"unknown attribute {key.text!r}", key.line, hint=f"known: {', '.join(known)}"
                )
            elif key.text in allowed and isinstance(value, Scalar) and value.text is not None:
                texts[key.text] = tidy(value.text)
            elif key.text in allowed:
                self.problem(f"the attribute {key.text!r} is a text", key.line)
        return texts

    def aliases(self, found: Outline) -> tuple[str, ...]:
        value = found.get("aliases") if isinstance(found, Mapping) else None
        items = value.items if isinstance(value, Sequence) else [value] if value else []
        texts = [item.text for item in items if isinstance(item, Scalar) and item.text is not None]
        if value is not None and len(texts) < len(items):
            self.problem("aliases are a text or a list of texts", value.line)
        return tuple(dict.fromkeys(map(tidy, texts)))

    def hidden(self, found: Outline) -> bool:
        value = found.get("hidden") if isinstance(found, Mapping) else None
        if value is None:
            return False
        text = value.text if isinstance(value, Scalar) else None
        if text not in ("true", "false"):
            self.problem("the attribute 'hidden' is true or false", value.line)
        return text == "true"


def read_chils(path: Path, limits: HierarchyLimits) -> Reading:
    """Read the label sets of CHiLS: ``{"superclass": ["sub", ...], ...}``.

    A sub-label that also stands under another superclass, or is called like one (a superclass is
    often its own sub-label), gets the id ``<superclass>--<sub-label>``; repetitions in one list
    count once.
    """
    outline = parse_outline(path, limits)
    reading = new_reading(path)
    reading.implied_root = True
    walker = _NestedWalker(path, reading)
    if not isinstance(outline, Mapping):
        walker.problem("a mapping of superclasses to lists of sub-labels expected", outline.line)
        return reading
    walker.check_keys(outline)
    tops: list[tuple[str, int, dict[str, int]]] = []
    for key, value in outline.entries:
        items = value.items if isinstance(value, Sequence) else None
        if items is None or not items or not all(isinstance(item, Scalar) for item in items):
            walker.problem(f"{key.text!r} needs a list of sub-labels", value.line)
            continue
        subs: dict[str, int] = {}
        for item in items:
            subs.setdefault(tidy((isinstance(item, Scalar) and item.text) or ""), item.line)
        tops.append((tidy(key.text or ""), key.line, subs))
    times = Counter(sub for _, _, subs in tops for sub in subs)
    times.update(top for top, _, _ in tops)
    for top, line, subs in tops:
        reading.nodes.append(Node(id=top, name=top, where=f"{path}:{line}"))
        for sub, sub_line in subs.items():
            key_text = sub if times[sub] == 1 else f"{top}--{sub}"
            where = f"{path}:{sub_line}"
            reading.nodes.append(Node(id=key_text, parent_id=top, name=sub, where=where))
    return reading
