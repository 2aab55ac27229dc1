"""`robustzs hierarchy build`: trees from WordNet, from files, from cuts, from a language model."""

from __future__ import annotations

import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustzs.cli.escape import terminal_safe
from robustzs.cli.options import (
    AmbiguousOption,
    LabelsOption,
    OnAmbiguous,
    OnUnknown,
    UnknownOption,
)
from robustzs.cli.progress import status
from robustzs.errors import UsageError

if TYPE_CHECKING:
    from robustzs.hierarchy.tree import Hierarchy


class Route(str, Enum):
    """Where the tree's inner nodes come from."""

    grow = "grow"
    wordnet_cut = "wordnet-cut"
    llm = "llm"


SpecArgument = Annotated[str, typer.Argument(help="wordnet, wordnet-nouns, flat, or a file.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="The tree's JSON; else stdout")
]
NameOption = Annotated[str | None, typer.Option(help="What to call the tree.")]
RootOption = Annotated[str | None, typer.Option(help="Start at this node: id, synset or name.")]
CutTopOption = Annotated[
    bool, typer.Option("--cut-top", help="Start at the deepest node above all labels.")
]
MaxDepthOption = Annotated[
    int | None, typer.Option(min=1, help="Deepest leaf: a coarser WordNet tree; llm: 4.")
]
RouteOption = Annotated[
    Route,
    typer.Option(
        help="grow: as it is; wordnet-cut: only some levels of it, or its other parents; llm: "
        "a language model groups the labels."
    ),
]
LevelsOption = Annotated[
    str | None, typer.Option(help="wordnet-cut: keep the nodes at these depths, as 3,5,8.")
]
DepthOption = Annotated[
    int | None, typer.Option(min=1, help="wordnet-cut: the same for one depth.")
]
ClassesOption = Annotated[
    str | None, typer.Option(help="wordnet-cut: keep levels of so many classes, as 10,50,200.")
]
ParentsOption = Annotated[
    bool, typer.Option("--other-parents", help="wordnet-cut: nodes below their second hypernym.")
]
UrlOption = Annotated[str | None, typer.Option(help="llm: as http://localhost:8000/v1.")]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="llm: its name there.")]
KeyOption = Annotated[str, typer.Option(help="llm: variable that holds the key, if any.")]
AttemptsOption = Annotated[int, typer.Option(min=1, max=20, help="llm: for one question.")]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="llm: seconds for one answer.")]


def build(
    spec: SpecArgument = "wordnet",
    labels: LabelsOption = None,
    output: OutputOption = None,
    name: NameOption = None,
    root: RootOption = None,
    cut_top: CutTopOption = False,
    max_depth: MaxDepthOption = None,
    route: RouteOption = Route.grow,
    levels: LevelsOption = None,
    depth: DepthOption = None,
    classes: ClassesOption = None,
    other_parents: ParentsOption = False,
    url: UrlOption = None,
    model: ModelOption = None,
    api_key_env: KeyOption = "OPENAI_API_KEY",
    attempts: AttemptsOption = 3,
    timeout: TimeoutOption = 300.0,
    on_ambiguous: AmbiguousOption = OnAmbiguous.error,
    on_unknown: UnknownOption = OnUnknown.error,
) -> None:
    """Grow a WordNet tree over labels, or turn any supported file into the canonical JSON.

    Other routes give further trees over the same labels, for a forest.

    \b
    Examples:
      robustzs hierarchy build --labels "cat,dog,oak" -o tree.json
      robustzs hierarchy build taxonomy.csv -o tree.json
      robustzs hierarchy build --route wordnet-cut --levels 3,5,8 -o cut.json
      robustzs hierarchy build --route wordnet-cut --other-parents -o other.json
      robustzs hierarchy build --route llm --url http://localhost:8000/v1 -m qwen3 -o asked.json
    """  # noqa: D301
    from robustzs.cli.render import open_output

    _check_route(route, levels, depth, classes, other_parents, url, model)
    if route is Route.llm:
        if root is not None or (labels is not None and spec != "wordnet"):
            raise UsageError(
                "--route llm draws a tree over --labels, from nothing",
                hint="leave out --root and the name of a hierarchy",
            )
        chosen = spec if spec != "wordnet" else labels
        tree = _asked(chosen, url or "", model or "", api_key_env, attempts, timeout, max_depth)
    else:
        tree = grow_or_load(spec, labels, root, max_depth, on_ambiguous.value, on_unknown.value)
    if route is Route.wordnet_cut:
        tree = _cut(tree, levels, depth, classes, other_parents)
    if cut_top:
        tree = tree.cut_top()
    if name is not None:
        tree = replace(tree, name=name)
    with open_output(output, sys.stdout) as stream:
        stream.write(tree.to_json())
    sys.stderr.write(terminal_safe(summary(tree)) + "\n")


def _check_route(
    route: Route,
    levels: str | None,
    depth: int | None,
    classes: str | None,
    other_parents: bool,
    url: str | None,
    model: str | None,
) -> None:
    """Refuse options that the route would not look at.

    Raises:
        UsageError: There are some, or the route lacks one.
    """
    cuts = [levels is not None or depth is not None, classes is not None]
    if route is Route.wordnet_cut:
        if sum(cuts) > 1 or (levels is not None and depth is not None):
            raise UsageError(
                "--levels, --depth and --classes exclude each other", hint="give one of them"
            )
        if not any(cuts) and not other_parents:
            raise UsageError(
                "--route wordnet-cut needs --levels, --depth, --classes or --other-parents",
                hint="--levels 3,5,8",
            )
    elif any(cuts) or other_parents:
        raise UsageError(
            "--levels, --depth, --classes and --other-parents belong to --route wordnet-cut"
        )
    if route is Route.llm:
        if not url or not model:
            raise UsageError(
                "--route llm needs --url and --model",
                hint="--url http://localhost:8000/v1 --model qwen3",
            )
    elif url or model:
        raise UsageError("--url and --model belong to --route llm")


def _cut(
    tree: Hierarchy, levels: str | None, depth: int | None, classes: str | None, other_parents: bool
) -> Hierarchy:
    from robustzs.hierarchy.cuts import cut_at_counts, cut_at_depths, with_other_parents
    from robustzs.hierarchy.noun_index import NounIndex

    if other_parents:
        tree = with_other_parents(tree, NounIndex.load())
    if classes is not None:
        return cut_at_counts(tree, _numbers(classes, "--classes"))
    if levels is not None or depth is not None:
        depths = _numbers(levels, "--levels") if levels is not None else [depth or 0]
        return cut_at_depths(tree, depths)
    return tree


def _numbers(text: str, option: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(
        part.isascii() and part.isdecimal() and len(part) < 7 for part in parts
    ):
        raise UsageError(f"{option} is {text!r}", hint=f"{option} 3,5,8")
    return [int(part) for part in parts]


def _asked(
    labels: str | None,
    url: str,
    model: str,
    api_key_env: str,
    attempts: int,
    timeout: float,
    max_depth: int | None,
) -> Hierarchy:
    from robustzs.chat import ChatClient, ChatConfig
    from robustzs.hierarchy.asked import AskOptions, ask_for_tree
    from robustzs.labels.label_set import LabelSet

    label_set = LabelSet.imagenet1k() if labels is None else LabelSet.parse(labels)
    config = ChatConfig(
        url=url, model=model, api_key_env=api_key_env, timeout=timeout, max_tokens=8192
    )
    options = AskOptions(n_attempts=attempts, max_depth=max_depth or AskOptions().max_depth)
    with ChatClient(config) as chat, status("asking for groups") as report:
        return ask_for_tree(label_set, chat, model=model, options=options, report=report)


def grow_or_load(
    spec: str,
    labels: str | None,
    root: str | None,
    max_depth: int | None,
    on_ambiguous: str,
    on_unknown: str,
) -> Hierarchy:
    """The one tree that a spec names, with warnings told on stderr.

    Raises:
        UsageError: It names several.
    """
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


def summary(tree: Hierarchy) -> str:
    """A tree in one line."""
    return (
        f"{tree.name}: {len(tree)} nodes, {tree.n_leaves} leaves, depth {int(tree.depth.max())}, "
        f"sha256:{tree.digest}"
    )
