"""`robustzs hierarchy`: grow, show and check trees."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustzs.cli.escape import json_safe, terminal_safe
from robustzs.cli.options import (
    AmbiguousOption,
    LabelsOption,
    OnAmbiguous,
    OnUnknown,
    UnknownOption,
)
from robustzs.errors import UsageError

if TYPE_CHECKING:
    from robustzs.hierarchy.tree import Hierarchy

app = typer.Typer(help="Grow, show and check hierarchies.", no_args_is_help=True)

SpecArgument = Annotated[str, typer.Argument(help="wordnet, wordnet-nouns, flat, or a file.")]


def _say(line: str = "") -> None:
    sys.stdout.write(terminal_safe(line) + "\n")


@app.command("build")
def build_command(
    spec: SpecArgument = "wordnet",
    labels: LabelsOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The tree's JSON; else stdout")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the tree.")] = None,
    root: Annotated[
        str | None, typer.Option(help="Start at this node: id, synset or name.")
    ] = None,
    cut_top: Annotated[
        bool, typer.Option("--cut-top", help="Start at the deepest node above all labels.")
    ] = False,
    max_depth: Annotated[
        int | None, typer.Option(min=1, help="Deepest leaf: a coarser WordNet tree.")
    ] = None,
    on_ambiguous: AmbiguousOption = OnAmbiguous.error,
    on_unknown: UnknownOption = OnUnknown.error,
) -> None:
    """Grow a WordNet tree over labels, or turn any supported file into the canonical JSON.

    \b
    Examples:
      robustzs hierarchy build --labels "cat,dog,oak" -o tree.json
      robustzs hierarchy build taxonomy.csv -o tree.json
    """  # noqa: D301
    from robustzs.cli.render import open_output

    tree = _grow_or_load(spec, labels, root, max_depth, on_ambiguous.value, on_unknown.value)
    if cut_top:
        tree = tree.cut_top()
    if name is not None:
        tree = replace(tree, name=name)
    with open_output(output, sys.stdout) as stream:
        stream.write(tree.to_json())
    sys.stderr.write(terminal_safe(_summary(tree)) + "\n")


@app.command("show")
def show_command(
    spec: SpecArgument = "wordnet",
    labels: LabelsOption = None,
    root: Annotated[
        str | None, typer.Option(help="Start at this node: id, synset or name.")
    ] = None,
    max_depth: Annotated[int, typer.Option(min=0, help="How far down to print.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tree's JSON, whole.")] = False,
    on_ambiguous: AmbiguousOption = OnAmbiguous.first,
    on_unknown: UnknownOption = OnUnknown.error,
) -> None:
    """Print a tree, with the number of leaves below each node."""
    tree = _grow_or_load(spec, labels, root, None, on_ambiguous.value, on_unknown.value)
    if as_json:
        sys.stdout.write(tree.to_json())
        return
    _say(_summary(tree))
    for index in range(len(tree)):
        depth = int(tree.depth[index])
        if depth > max_depth:
            continue
        leaves = "" if tree.is_leaf(index) else f"   {int(tree.n_leaf_descendants[index])} leaves"
        synset = f"   {tree.synsets[index]}" if tree.synsets[index] else ""
        _say(f"{'  ' * depth}{tree.names[index]}   {tree.ids[index]}{synset}{leaves}")


@app.command("validate")
def validate_command(
    files: Annotated[list[str], typer.Argument(help="Hierarchy files or BREEDS folders.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check hierarchy files; every problem is told, with its line. Exit code 1 if there is one."""
    from robustzs.errors import RobustZSError
    from robustzs.hierarchy.formats import read_hierarchy

    results = []
    for name in files:
        try:
            tree = read_hierarchy(name)
        except RobustZSError as error:
            problems = list(getattr(error, "problems", ())) or [error.message]
            results.append(
                {
                    "file": name,
                    "ok": False,
                    "code": error.code,
                    "message": str(error),
                    "problems": problems,
                }
            )
            if not as_json:
                several = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
                _say(f"{name}: {several}   [{error.code}]")
                for problem in problems:
                    _say(f"    {problem}")
                if error.hint:
                    _say(f"    try: {error.hint}")
        else:
            results.append(
                {"file": name, "ok": True, "digest": tree.digest, "n_leaves": tree.n_leaves}
            )
            if not as_json:
                _say(f"{name}: good. {_summary(tree)}")
    if as_json:
        sys.stdout.write(json_safe(results, indent=2) + "\n")
    if not all(result["ok"] for result in results):
        raise typer.Exit(1)


@app.command("resolve")
def resolve_command(
    labels: Annotated[list[str], typer.Argument(help="Labels, or one label file.")],
    on_ambiguous: AmbiguousOption = OnAmbiguous.first,
    on_unknown: UnknownOption = OnUnknown.error,
) -> None:
    """Show which WordNet sense each label is taken in, and what else it could mean."""
    from robustzs.cli.labels import resolution_lines, resolve
    from robustzs.labels.label_set import LabelSet

    label_set = LabelSet.parse(labels[0]) if len(labels) == 1 else LabelSet.from_names(labels)
    for resolution in resolve(label_set, on_ambiguous.value, on_unknown.value):
        for line in resolution_lines(resolution):
            _say(line)


@app.command("compile-nouns")
def compile_command(
    wordnet: Annotated[
        Path, typer.Option(help="Folder of the WordNet 3.0 files (data.noun, ...).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The noun index to write.")],
) -> None:
    """Compile WordNet's nouns into the index that ships (for maintainers; needs nltk)."""
    from robustzs.hierarchy.wordnet import compile_nouns

    _say(f"{output}: sha256 {compile_nouns(wordnet, output)}")


def _grow_or_load(
    spec: str,
    labels: str | None,
    root: str | None,
    max_depth: int | None,
    on_ambiguous: str,
    on_unknown: str,
) -> Hierarchy:
    from robustzs.cli.labels import ask
    from robustzs.hierarchy.load import load_hierarchy
    from robustzs.hierarchy.tree import Hierarchy
    from robustzs.labels.label_set import LabelSet

    loaded = load_hierarchy(
        spec,
        None if labels is None else LabelSet.parse(labels),
        on_ambiguous=on_ambiguous,  # type: ignore[arg-type]
        on_unknown=on_unknown,  # type: ignore[arg-type]
        choose=ask if on_ambiguous == "ask" else None,
        root=root,
        max_depth=max_depth,
    )
    for warning in loaded.warnings:
        sys.stderr.write(terminal_safe(f"warning: {warning}") + "\n")
    if not isinstance(loaded.hierarchy, Hierarchy):
        raise UsageError(f"{spec!r} is a forest", hint="name one tree")
    return loaded.hierarchy


def _summary(tree: Hierarchy) -> str:
    return (
        f"{tree.name}: {len(tree)} nodes, {tree.n_leaves} leaves, depth {int(tree.depth.max())}, "
        f"sha256:{tree.digest}"
    )
