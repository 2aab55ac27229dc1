"""`robustzs classify`: images in, answers out."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustzs.cli.escape import terminal_safe
from robustzs.cli.options import (
    AmbiguousOption,
    Backend,
    BackendOption,
    BatchOption,
    CaOption,
    CertOption,
    DigestOption,
    KeyOption,
    LabelsOption,
    OnAmbiguous,
    OnUnknown,
    OutputFormat,
    Precision,
    PrecisionOption,
    Rule,
    Strategy,
    ThreadsOption,
    UnknownOption,
    UrlOption,
    complete_model,
    triton_target,
)
from robustzs.cli.progress import status, track
from robustzs.errors import UsageError

if TYPE_CHECKING:
    from robustzs.answer import Answer, AnswerError
    from robustzs.images.sources import ImageSource


def classify(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders, globs, or - for an image on stdin.", show_default=False
        ),
    ] = None,
    labels: LabelsOption = None,
    hierarchy: Annotated[
        list[str] | None,
        typer.Option(
            "--hierarchy",
            "-H",
            help="wordnet, wordnet-nouns, flat, or a file; repeat it for a forest. "
            "Else wordnet, or flat with --labels.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A name or a bundle's folder; else robustzs-lite",
            autocompletion=complete_model,
        ),
    ] = None,
    strategy: Annotated[
        Strategy, typer.Option(help="Where the probability of an inner node comes from.")
    ] = Strategy.marginal,
    n_hyponyms: Annotated[
        int, typer.Option(help="Kinds of each label to add in strategy hyponyms.")
    ] = 10,
    root: Annotated[
        str | None, typer.Option(help="Answer only below this node: an id, a synset or a name.")
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="Answer at this depth or named rank, whatever theta.")
    ] = None,
    theta: Annotated[
        float | None,
        typer.Option(
            help="Go deeper while a node's probability is above this; else the model's own"
        ),
    ] = None,
    target_accuracy: Annotated[
        float | None,
        typer.Option(help="Back off so that this share of answers is right; needs a calibration."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="A file of `robustzs calibrate`; else the model's own, if it has one"),
    ] = None,
    rule: Annotated[Rule, typer.Option(help="Walk down greedily, or climb from the best leaf.")] = (
        Rule.greedy
    ),
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Best leaves to list.")] = 5,
    templates: Annotated[
        str | None,
        typer.Option(help="Prompt templates: a set's name, or text with {}; else the model's own"),
    ] = None,
    reject: Annotated[
        bool, typer.Option("--reject", help="Allow `none of these` as an answer.")
    ] = False,
    reject_below: Annotated[
        float | None,
        typer.Option(help="The least similarity accepted; else, with --reject, the model's own"),
    ] = None,
    on_ambiguous: AmbiguousOption = OnAmbiguous.first,
    on_unknown: UnknownOption = OnUnknown.error,
    explain_labels: Annotated[
        bool,
        typer.Option("--explain-labels", help="Show the sense chosen for each label, and exit."),
    ] = False,
    output_format: Annotated[OutputFormat, typer.Option("--format", "-f")] = OutputFormat.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the results to this file.")
    ] = None,
    full_path: Annotated[
        bool | None,
        typer.Option(
            "--path/--no-path", help="Show every node of the path; else for one image only"
        ),
    ] = None,
    batch_size: BatchOption = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:N or auto; else cpu")] = None,
    threads: ThreadsOption = None,
    image_precision: PrecisionOption = None,
    backend: BackendOption = Backend.onnx,
    url: UrlOption = None,
    tls_ca: CaOption = None,
    tls_cert: CertOption = None,
    tls_key: KeyOption = None,
    expect_digest: DigestOption = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="Ask this robustzs service instead of classifying here.", envvar="ROBUSTZS_SERVER"
        ),
    ] = None,
) -> None:
    """Classify images down a tree, stopping where a more specific answer would be a guess.

    \b
    Examples:
      robustzs classify cat.jpg --hierarchy wordnet
      robustzs classify photos/ --labels "cat,dog,bird" --format csv -o out.csv
      robustzs classify x.png --hierarchy taxonomy.yaml --theta 0.8
      robustzs classify x.png --target-accuracy 0.9 --calibration calibration.json
      robustzs classify x.png --backend triton --url grpc://triton:8001
      cat photo.webp | robustzs classify - --format json
    """  # noqa: D301
    from robustzs.cli.labels import explain, pin_senses
    from robustzs.cli.remote import ask_server
    from robustzs.images.sources import iter_sources
    from robustzs.labels.label_set import LabelSet

    options: dict[str, Any] = {
        "hierarchy": hierarchy or None,
        "strategy": strategy.value,
        "root": root,
        "level": level,
        "theta": theta,
        "rule": rule.value,
        "top_k": top_k,
        "templates": templates,
        "reject": reject if reject_below is None else reject_below,
        "n_hyponyms": n_hyponyms,
        "on_ambiguous": on_ambiguous.value,
        "on_unknown": on_unknown.value,
    }
    if explain_labels:
        explain(labels, on_ambiguous.value, on_unknown.value)
        return
    if on_ambiguous is OnAmbiguous.ask:
        options["on_ambiguous"] = "error"
        chosen = None if labels is None else pin_senses(labels)
    else:
        chosen = None if labels is None else LabelSet.parse(labels)
    if not images:
        raise UsageError("no image was named", hint="robustzs classify image.jpg")
    triton = triton_target(backend, url, ca_file=tls_ca, cert_file=tls_cert, key_file=tls_key)
    several = len(images) > 1 or _is_several(images[0])
    sources = iter_sources(images)
    if server is not None:
        _check_server_options(
            server,
            model=model,
            device=device,
            threads=threads,
            image_precision=image_precision,
            target_accuracy=target_accuracy,
            calibration=calibration,
        )
        if triton is not None:
            raise UsageError(
                "--backend triton does not go with a service: it chooses its own engine",
                hint="leave --backend out, or --server and ROBUSTZS_SERVER",
            )
        rows = ask_server(
            server,
            sources,
            batch_size,
            labels=chosen,
            model=model,
            expect_digest=expect_digest,
            **options,
        )
    else:
        rows = _classify_here(
            sources,
            batch_size,
            labels=chosen,
            model=model or "robustzs-lite",
            device=device or "cpu",
            threads=threads,
            image_precision=None if image_precision is None else image_precision.value,
            expect_digest=expect_digest,
            target_accuracy=target_accuracy,
            calibration=calibration,
            triton=triton,
            **options,
        )
    if _write(rows, output, output_format, several=several, full_path=full_path):
        raise typer.Exit(1)


def _check_server_options(
    server: str,
    *,
    model: str | None,
    device: str | None,
    threads: int | None,
    image_precision: Precision | None,
    target_accuracy: float | None,
    calibration: Path | None,
) -> None:
    """Refuse what a service could not follow, rather than leave it out silently."""
    if not server.strip():
        raise UsageError("--server is empty", hint="--server http://127.0.0.1:3000")
    precision = None if image_precision is None else image_precision.value
    fixed = (("--device", device), ("--threads", threads), ("--image-precision", precision))
    for option, value in fixed:
        if value is not None:
            raise UsageError(
                f"{option} {value} does not go with the service at {server}: it has its own",
                hint=f"leave {option} out, or --server and ROBUSTZS_SERVER",
            )
    for option, given in (("--target-accuracy", target_accuracy), ("--calibration", calibration)):
        if given is not None:
            raise UsageError(
                f"{option} {given} does not go with a service: calibrations are read here alone",
                hint="classify here, or give --theta from the calibration",
            )
    if model is not None and ("/" in model or "\\" in model):
        raise UsageError(
            f"--model {model} is a folder, and the service at {server} opens none that is named",
            hint="give the name of its model, or leave --model out",
        )


def _classify_here(
    sources: Iterable[ImageSource], batch_size: int, **options: Any
) -> Iterator[Answer | AnswerError]:
    from robustzs.classifier import Classifier

    with status("loading") as show:
        classifier = Classifier.load(progress=show, **options)
    yield from classifier.classify_many(sources, batch_size=batch_size)


def _write(
    rows: Iterator[Answer | AnswerError],
    output: Path | None,
    output_format: OutputFormat,
    *,
    several: bool,
    full_path: bool | None,
) -> bool:
    """Write all rows; whether any of them is an error."""
    from robustzs.answer import AnswerError
    from robustzs.cli.render import create_writer, open_output

    failed = False
    warned: set[str] = set()
    with open_output(output, sys.stdout) as stream:
        writer = create_writer(
            output_format.value,
            stream,
            single=not several,
            full_path=not several if full_path is None else full_path,
        )
        # Rows on the same terminal would fight with the bar, and say as much as it would.
        visible = several and not (output is None and sys.stdout.isatty())
        for row in track(rows, "classifying", enabled=visible):
            writer.write(row)
            if isinstance(row, AnswerError):
                failed = True
            else:
                _warn_once(row.warnings, warned)
        writer.close()
    return failed


def _warn_once(warnings: Iterable[str], warned: set[str]) -> None:
    """Say on stderr what is in every answer, the first time that it comes."""
    for warning in warnings:
        if warning not in warned:
            warned.add(warning)
            sys.stderr.write(terminal_safe(f"warning: {warning}") + "\n")


def _is_several(name: str) -> bool:
    """Whether one argument stands for any number of images: a folder, or a pattern."""
    return name != "-" and (
        os.path.isdir(name) or (glob.has_magic(name) and not os.path.lexists(name))
    )
