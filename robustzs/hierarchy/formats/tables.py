"""Hierarchies in CSV: one edge per line, or one path per line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from robustzs.errors import HierarchyFormatError
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.formats.reading import Reading, new_reading, with_implied_parents
from robustzs.hierarchy.formats.source import read_text
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.labels.rules import tidy

ALIAS_SEPARATOR = "|"
_EDGE_COLUMNS = ("child", "parent", "name", "prompt", "synset", "gloss", "aliases")


def read_table(path: Path, limits: HierarchyLimits) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(line, cells)`` of each row that is not blank, cells in NFC and stripped."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(
        io.StringIO(read_text(path, limits), newline=""), delimiter=delimiter, strict=True
    )
    line = 1
    try:
        for row in reader:
            cells = [tidy(cell) for cell in row]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise HierarchyFormatError(f"{path}:{line}: not CSV: {error}") from error


def is_edge_header(cells: list[str]) -> bool:
    """Whether a header row is that of an edge table."""
    return {"child", "parent"} <= {cell.lower() for cell in cells}


def read_edges(path: Path, limits: HierarchyLimits) -> Reading:
    """Read ``child,parent[,name][,prompt][,synset][,gloss][,aliases]``.

    The columns may stand in any order; aliases are separated by ``|``. An empty parent, or a
    parent that is nobody's child, is a root. A child with a name of its own is an id and stays as
    it is; one without is a name, of which an id is made.
    """
    reading = new_reading(path)
    rows = read_table(path, limits)
    header = [cell.lower() for cell in next(rows, (1, []))[1]]
    unknown = [cell for cell in header if cell not in _EDGE_COLUMNS]
    if unknown or len(set(header)) < len(header) or not is_edge_header(header):
        raise HierarchyFormatError(
            f"{path}:1: the columns are {header}",
            hint=f"child and parent, and any of {', '.join(_EDGE_COLUMNS[2:])}, each once",
        )
    for line, cells in rows:
        where = f"{path}:{line}"
        if len(cells) != len(header):
            reading.log.add(
                HierarchyFormatError, f"{len(cells)} cells under {len(header)} columns", where
            )
            continue
        row = {column: cell for column, cell in zip(header, cells, strict=True) if cell}
        if "child" not in row:
            reading.log.add(HierarchyFormatError, "a row without a child", where)
            continue
        if "name" in row:
            reading.ids.add(row["child"])
        aliases = map(tidy, row.get("aliases", "").split(ALIAS_SEPARATOR))
        reading.nodes.append(
            Node(
                id=row["child"],
                parent_id=row.get("parent"),
                name=row.get("name"),
                prompt=row.get("prompt"),
                synset=row.get("synset"),
                gloss=row.get("gloss"),
                aliases=tuple(dict.fromkeys(filter(None, aliases))),
                where=where,
            )
        )
    reading.nodes = with_implied_parents(reading.nodes)
    return reading


def read_wide(path: Path, limits: HierarchyLimits) -> Reading:
    """Read one column per rank, coarse to fine, one leaf per row: ``kingdom,...,species``.

    Blank cells are skipped; the last cell that is not blank is the leaf. The columns become named
    ranks. Several tops get a root above them.
    """
    reading = new_reading(path)
    reading.implied_root = True
    rows = read_table(path, limits)
    header = next(rows, (1, []))[1]
    if not header or "" in header or len(set(header)) < len(header):
        raise HierarchyFormatError(
            f"{path}:1: the columns are {header}", hint="name every column, each name once"
        )
    seen: dict[str, tuple[str, str]] = {}  # key -> its rank, and where it was first
    edges: set[tuple[str, str | None]] = set()
    leaves: dict[str, str] = {}
    for line, cells in rows:
        where = f"{path}:{line}"
        if len(cells) > len(header):
            message = f"{len(cells)} cells under {len(header)} columns"
            reading.log.add(HierarchyFormatError, message, where)
            continue
        parent: str | None = None
        for rank, key in zip(header, cells, strict=False):
            if not key:
                continue
            rank_before, where_before = seen.setdefault(key, (rank, where))
            if rank_before != rank:
                message = f"{key!r} has the rank {rank!r} here, {rank_before!r} at {where_before}"
                reading.log.add(HierarchyFormatError, message, where, "make the names distinct")
            elif (key, parent) not in edges:
                edges.add((key, parent))
                reading.nodes.append(Node(id=key, parent_id=parent, name=key, where=where))
            parent = key
        if parent is not None and leaves.setdefault(parent, where) != where:
            message = f"the leaf {parent!r} is there already, at {leaves[parent]}"
            reading.log.add(HierarchyFormatError, message, where)
    reading.labels = list(leaves)
    for key, (rank, _) in seen.items():
        reading.ranks.setdefault(rank, []).append(key)
    reading.ranks = {rank: reading.ranks[rank] for rank in header if rank in reading.ranks}
    return reading
