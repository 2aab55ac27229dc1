"""`robustzs classify`: images in, answers out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustzs.cli.models import complete_model
from robustzs.cli.escape import terminal_safe

if TYPE_CHECKING:
    from robustzs.answer import Answer, AnswerError
    from robustzs.images.sources import ImageSource


class Strategy(str, Enum):
    """How node probabilities come about."""

    marginal = "marginal"
    topdown = "topdown"
    hyponyms = "hyponyms"
    level = "level"


class Rule(str, Enum):
    """How the path down the tree is chosen."""

    greedy = "greedy"
    climb = "climb"


class OutputFormat(str, Enum):
    """How results are written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class OnAmbiguous(str, Enum):
    """What to do with a label that has several senses."""

    error = "error"
    first = "first"
    ask = "ask"


class OnUnknown(str, Enum):
    """What to do with a label that WordNet has not."""

    error = "error"
    attach = "attach"


def classify(
    images: Annotated[
        list[str],
        typer.Argument(help="Files, folders, globs, or - for an image on stdin.", show_default=False),
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", "-l", help="a,b,c or a file: one label a line, CSV or JSON. [ImageNet-1k]"
        ),
    ] = None,
    hierarchy: Annotated[
        list[str] | None,
        typer.Option(
            "--hierarchy",
            "-H",
            help="wordnet, wordnet-nouns, flat, or a file; repeat it for a forest. "
            r"\[wordnet; flat with --labels]",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="A name or a bundle's folder.", autocompletion=complete_model
        ),
    ] = "robustzs-lite",
    strategy: Annotated[
        Strategy, typer.Option(help="Where the probability of an inner node comes from.")
    ] = Strategy.marginal,
    root: Annotated[
        str | None, typer.Option(help="Answer only below this node: an id, a synset or a name.")
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="Answer at this depth or named rank, whatever theta.")
    ] = None,
    theta: Annotated[
        float | None,
        typer.Option(help="Go deeper while a node's probability is above this. [the model's]"),
    ] = None,
    rule: Annotated[Rule, typer.Option(help="Walk down greedily, or climb from the best leaf.")] = (
        Rule.greedy
    ),
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Best leaves to list.")] = 5,
    templates: Annotated[
        str | None, typer.Option(help="Prompt templates: a set's name, or text with {}. [the model's]")
    ] = None,
    reject: Annotated[
        bool, typer.Option("--reject", help="Allow `none of these` as an answer.")
    ] = False,
    on_ambiguous: Annotated[
        OnAmbiguous, typer.Option(help="A label with several senses: refuse, take the first, ask.")
    ] = OnAmbiguous.first,
    on_unknown: Annotated[
        OnUnknown, typer.Option(help="A label that WordNet has not: refuse, or hang it below the root.")
    ] = OnUnknown.error,
    explain_labels: Annotated[
        bool, typer.Option("--explain-labels", help="Show the sense chosen for each label, and exit.")
    ] = False,
    output_format: Annotated[OutputFormat, typer.Option("--format", "-f")] = OutputFormat.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the results to this file.")
    ] = None,
    full_path: Annotated[
        bool | None,
        typer.Option("--path/--no-path", help="Show every node of the path. [for one image]"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images per inference.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads of the engine. [all cores]")
    ] = None,
    expect_digest: Annotated[
        str | None, typer.Option(help="Refuse the model unless its bundle has this digest.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Ask this robustzs service instead of classifying here.", envvar="ROBUSTZS_SERVER"),
    ] = None,
) -> None:
    """Classify images down a tree, stopping where a more specific answer would be a guess.

    Examples:
      robustzs classify cat.jpg --hierarchy wordnet
      robustzs classify photos/ --labels "cat,dog,bird" --format csv -o out.csv
      robustzs classify x.png --hierarchy taxonomy.yaml --theta 0.8
      cat photo.webp | robustzs classify - --format json
    """
    from robustzs.cli.render import create_writer, open_output
    from robustzs.images.sources import iter_sources

    options = {
        "labels": labels,
        "hierarchy": hierarchy,
        "strategy": strategy.value,
        "root": root,
        "level": level,
        "theta": theta,
        "rule": rule.value,
        "top_k": top_k,
        "templates": templates,
        "reject": reject,
        "on_ambiguous": on_ambiguous.value,
        "on_unknown": on_unknown.value,
    }
    if explain_labels:
        _explain(labels, hierarchy, on_ambiguous.value, on_unknown.value)
        return
    sources = iter_sources(images)
    if server is not None:
        rows = _ask_server(server, sources, model=model, options=options)
    else:
        rows = _classify_here(
            sources,
            batch_size,
            model=model,
            device=device,
            threads=threads,
            expect_digest=expect_digest,
            **options,
        )
    single = len(images) == 1 and not _names_several(images[0])
    failed = False
    with open_output(output, sys.stdout) as stream:
        writer = create_writer(
            output_format.value,
            stream,
            single=single,
            full_path=single if full_path is None else full_path,
        )
        for row in _with_progress(rows, shown=output is not None or not sys.stdout.isatty()):
            writer.write(row)
            failed = failed or hasattr(row, "error")
        writer.close()
    if failed:
        raise typer.Exit(1)
