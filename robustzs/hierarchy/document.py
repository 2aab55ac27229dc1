"""The published JSON of a hierarchy: its models, its canonical bytes, reading and writing.

``robustzs/schemas/hierarchy.schema.json`` is generated from these models.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustzs.errors import HierarchyDigestError, HierarchyFormatError, HierarchyLimitError
from robustzs.hierarchy.build import BuildOptions, Node
from robustzs.hierarchy.document_limits import check_counts, check_texts
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.hierarchy.problems import ProblemLog
from robustzs.hierarchy.tree import Hierarchy

FORMAT = "robustzs-hierarchy"
SCHEMA_VERSION = 1

_Text = Annotated[str, Field(min_length=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeDocument(_Frozen):
    """One node."""

    id: _Text = Field(description="stable key; no white space, comma or semicolon")
    parent: _Text | None = Field(None, description="id of the parent; absent for the root alone")
    name: _Text | None = Field(None, description="for people; the id when absent")
    synset: _Text | None = Field(None, description="WordNet 3.0 sense, such as dog.n.01")
    gloss: _Text | None = None
    prompt: _Text | None = Field(None, description="for the text encoder; the name when absent")
    aliases: tuple[_Text, ...] = ()
    hidden: bool = Field(False, description="a spacer that is never part of an answer")


class RankDocument(_Frozen):
    """A named level."""

    name: _Text
    nodes: tuple[_Text, ...]


class HierarchyDocument(_Frozen):
    """A tree. The leaves, in the order of a depth-first walk, are the labels."""

    format: Literal["robustzs-hierarchy"]
    schema_version: Literal[1]
    name: _Text
    nodes: Annotated[tuple[NodeDocument, ...], Field(min_length=1)]
    ranks: tuple[RankDocument, ...] = Field((), description="named levels, coarse to fine")
    dropped_edges: tuple[tuple[_Text, _Text], ...] = Field(
        (), description="(child, parent) edges that the source had and the tree does not"
    )
    provenance: dict[str, str] = Field({}, description="sources, versions, licence notices")
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="sha256 of the canonical JSON: sorted keys, no spaces, without this field"
    )


def canonical_json(tree: Hierarchy) -> bytes:
    """The bytes whose sha256 is the digest: sorted keys, no spaces, defaults left out, UTF-8."""
    return _compact(_payload(tree)).encode("utf-8")


def render_document(tree: Hierarchy) -> str:
    """The same content for a file: one node per line, with the digest, ending in a newline."""
    payload: dict[str, Any] = _payload(tree) | {"digest": tree.digest}
    lines = []
    for key in sorted(payload):
        if key in ("nodes", "ranks") and payload[key]:
            rows = ",\n".join(f"    {_compact(row)}" for row in payload[key])
            lines.append(f"  {_compact(key)}: [\n{rows}\n  ]")
        else:
            lines.append(f"  {_compact(key)}: {_compact(payload[key])}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def parse_document(text: str | bytes, *, source: str, limits: HierarchyLimits) -> Hierarchy:
    """See :meth:`Hierarchy.from_json`."""
    where = source or "hierarchy document"
    if len(text) > limits.max_bytes:
        raise HierarchyLimitError(f"{where}: {len(text)} bytes; at most {limits.max_bytes}")
    log = ProblemLog(where)
    document = _validated(text, limits, log)
    check_texts(document, limits, log)
    names = [rank.name for rank in document.ranks]
    if len(set(names)) < len(names):
        log.add(HierarchyFormatError, f"rank names are not distinct: {names}")
    log.raise_if_any()
    tree = Hierarchy.from_nodes(
        (
            Node(
                id=node.id,
                parent_id=node.parent,
                name=node.name,
                synset=node.synset,
                gloss=node.gloss,
                prompt=node.prompt,
                aliases=node.aliases,
                hidden=node.hidden,
                where=f"{where}: nodes[{i}]",
            )
            for i, node in enumerate(document.nodes)
        ),
        name=document.name,
        options=BuildOptions(limits=limits),
        ranks={rank.name: rank.nodes for rank in document.ranks},
        dropped_edges=document.dropped_edges,
        provenance=document.provenance,
    )
    if document.digest not in (None, tree.digest):
        raise HierarchyDigestError(
            f"{where}: its digest is {document.digest}, its content has {tree.digest}",
            hint="get the file again; after an edit of your own, remove the digest",
        )
    return tree


def _validated(text: str | bytes, limits: HierarchyLimits, log: ProblemLog) -> HierarchyDocument:
    try:
        raw = json.loads(text, object_pairs_hook=lambda pairs: _unique_keys(pairs, log))
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise HierarchyFormatError(f"{log.subject}: not readable as JSON: {error}") from error
    if isinstance(raw, dict):
        version = raw.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise HierarchyFormatError(
                f"{log.subject}: schema_version {version} is newer than {SCHEMA_VERSION}",
                hint="upgrade robustzs",
            )
    check_counts(raw, limits, log)
    try:
        return HierarchyDocument.model_validate(raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False)[:1000]:
            place = ".".join(str(step) for step in detail["loc"])
            log.add(HierarchyFormatError, f"{place or 'document'}: {detail['msg']}")
        log.raise_if_any()
        raise


def _unique_keys(pairs: list[tuple[str, Any]], log: ProblemLog) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = sorted(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        log.add(HierarchyFormatError, f"keys given twice in one object: {twice[:8]}")
    return found


def _payload(tree: Hierarchy) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "name": tree.name,
        "nodes": [_node(tree, i) for i in range(len(tree))],
    }
    if tree.ranks:
        payload["ranks"] = [
            {"name": rank.name, "nodes": [tree.ids[i] for i in rank.nodes]} for rank in tree.ranks
        ]
    if tree.dropped_edges:
        payload["dropped_edges"] = [list(edge) for edge in tree.dropped_edges]
    if tree.provenance:
        payload["provenance"] = dict(tree.provenance)
    return payload


def _node(tree: Hierarchy, i: int) -> dict[str, Any]:
    name = tree.names[i]
    values = {
        "id": tree.ids[i],
        "parent": tree.ids[tree.parent[i]] if i else None,
        "name": name if name != tree.ids[i] else None,
        "synset": tree.synsets[i],
        "gloss": tree.glosses[i],
        "prompt": tree.prompts[i] if tree.prompts[i] != name else None,
        "aliases": list(tree.aliases[i]),
        "hidden": bool(tree.hidden[i]),
    }
    return {key: value for key, value in values.items() if value}


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
