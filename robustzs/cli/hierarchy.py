"""`robustzs hierarchy`: grow, show and check trees."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from robustzs.cli import hierarchy_build
from robustzs.cli.escape import json_safe, terminal_safe
from robustzs.cli.hierarchy_build import SpecArgument, grow_or_load, summary
from robustzs.cli.options import (
    AmbiguousOption,
    LabelsOption,
    OnAmbiguous,
    OnUnknown,
    UnknownOption,
)

app = typer.Typer(help="Grow, show and check hierarchies.", no_args_is_help=True)


def _say(line: str = "") -> None:
    sys.stdout.write(terminal_safe(line) + "\n")


app.command("build")(hierarchy_build.build)


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
    tree = grow_or_load(spec, labels, root, None, on_ambiguous.value, on_unknown.value)
    if as_json:
        sys.stdout.write(tree.to_json())
        return
    _say(summary(tree))
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
                _say(f"{name}: good. {summary(tree)}")
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
