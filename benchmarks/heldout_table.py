"""Classifies every named held-out photograph and writes the table that the docs show.

Nothing is left out of the table: a picture that no ImageNet class can get right is listed too,
with what was answered. Run it with ``python -m benchmarks.heldout_table``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import os
import platform
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from benchmarks.heldout_photos.cache import HeldoutError
from benchmarks.heldout_photos.fetch import fetch
from benchmarks.heldout_photos.photos import (
    LABELS,
    Photo,
    load_photos,
    wordnet_closure,
)
from robustzs.answer import Answer, Strategy
from robustzs.errors import ImageError, RobustZSError
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.metrics.right import RightLabels

if TYPE_CHECKING:
    from robustzs.classifier import Classifier

OUTPUT = Path(__file__).parents[1] / "docs" / "heldout-photographs.md"
SHALLOW_DEPTH = 4
"""Answers that stop above this depth say next to nothing ("artifact", "living thing")."""
_Z_95 = 1.959963984540054
_VERSIONS = ("robustzs", "onnxruntime", "numpy", "pillow", "tokenizers")

Verdict = Literal["right", "coarse", "wrong"]
ClosureUp = Callable[[str], Collection[str]]


@dataclass(frozen=True)
class Result:
    """What was said about one photograph, and whether it is true.

    Attributes:
        flat_is_right: None where no class of the label set can be right.
        verdict: of the node that was answered: ``right`` (the truth, or below it), ``coarse``
            (above it: true, but less than is known), ``wrong`` (beside it).
    """

    photo: Photo
    answer: Answer
    flat_is_right: bool | None
    verdict: Verdict


@dataclass(frozen=True)
class Summary:
    """Shares over a group of results, in [0, 1]; the interval is Wilson's at 95%.

    Attributes:
        flat_top1: share of right flat answers; None where none can be right.
        hierarchical_accuracy: share of answered nodes that are true (``right`` or ``coarse``).
        shallow: share of answers that stop above `SHALLOW_DEPTH`.
    """

    n: int
    flat_top1: float | None
    flat_interval: tuple[float, float] | None
    hierarchical_accuracy: float
    right: float
    specificity: float
    shallow: float


def judge(answered: str, truth: str, closure_up: ClosureUp) -> Verdict:
    """How the answered node relates to the true synset, over all of WordNet's hypernyms.

    The tree that is walked keeps one parent per node; a picture is judged by the whole graph, so
    that "domestic animal" is true of a dog in either.
    """
    if truth in closure_up(answered):
        return "right"
    return "coarse" if answered in closure_up(truth) else "wrong"


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval for a share (Wilson 1927).

    Raises:
        ValueError: ``n_right`` is not between 0 and ``n``, or ``n`` is 0.
    """
    if not 0 <= n_right <= n or n == 0:
        raise ValueError(f"{n_right} of {n} is no share")
    share = n_right / n
    centre = share + _Z_95**2 / (2 * n)
    half = _Z_95 * math.sqrt(share * (1 - share) / n + _Z_95**2 / (4 * n**2))
    scale = 1 + _Z_95**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def summarise(results: Sequence[Result]) -> Summary:
    """Shares over ``results``, of which there must be at least one."""
    n = len(results)
    judged = [r.flat_is_right for r in results if r.flat_is_right is not None]
    n_right = sum(judged)
    return Summary(
        n=n,
        flat_top1=n_right / len(judged) if judged else None,
        flat_interval=wilson_interval(n_right, len(judged)) if judged else None,
        hierarchical_accuracy=sum(r.verdict != "wrong" for r in results) / n,
        right=sum(r.verdict == "right" for r in results) / n,
        specificity=sum(r.answer.prediction.specificity for r in results) / n,
        shallow=sum(r.answer.prediction.depth < SHALLOW_DEPTH for r in results) / n,
    )


def score(
    photos: Iterable[Photo],
    answers: Iterable[Answer],
    right_of: Callable[[str], Collection[str]],
    closure_up: ClosureUp,
) -> list[Result]:
    """Judges the answers, one per photograph and in the same order.

    Args:
        photos: with their synsets.
        answers: what the classifier said.
        right_of: ids of the labels that are right for a wnid; none where no label can be.
        closure_up: all hypernyms and instance hypernyms of a wnid, itself included.
    """
    results = []
    for photo, answer in zip(photos, answers, strict=True):
        right = right_of(photo.wnid)
        results.append(
            Result(
                photo=photo,
                answer=answer,
                flat_is_right=answer.flat_top1.id in right if right else None,
                verdict=judge(answer.prediction.id, photo.wnid, closure_up),
            )
        )
    return results


def classify(classifier: Classifier, photos: Sequence[Photo]) -> list[Answer]:
    """One answer per photograph.

    Raises:
        HeldoutError: a photograph cannot be classified; none may drop out of the table.
    """
    answers = []
    for photo in photos:
        try:
            answers.append(classifier.classify(photo.data, name=photo.id))
        except ImageError as error:
            raise HeldoutError(f"{photo.id}: {error}") from error
    return answers


def render(results: Sequence[Result], command: str, theta_source: str | None = None) -> str:
    """The page of the docs, in Markdown.

    Args:
        results: at least one.
        command: that made them.
        theta_source: where the bundle says that its theta is from.
    """
    scorable = [r for r in results if r.flat_is_right is not None]
    others = [r for r in results if r.flat_is_right is None]
    answer = results[0].answer
    lines = [
        "# The held-out photographs",
        "",
        "Every named photograph of `benchmarks/heldout_photos/` that means a noun of WordNet, none "
        "of which a model here was trained on, with what was answered, right or wrong. How they "
        "were labelled, and what to know before quoting a number, stands in "
        "`benchmarks/heldout_photos/README.md`. This page is written by a command; do not edit it.",
        "",
        *_summary_lines(results, scorable, others),
        "",
        "**flat top-1**: the most probable label is right; with Wilson's 95% interval. "
        "**hierarchical accuracy**: the answered node is true of the picture: the truth, below it "
        "(both *right*) or above it (*coarse*). **specificity**: 1 - log(labels below the node) / "
        f"log(labels), mean. **shallow**: stopped above depth {SHALLOW_DEPTH}. An answer of little "
        'content is nearly always true ("whole" is, of 95% of these photographs), so hierarchical '
        "accuracy says nothing without the two columns after it.",
        "",
        "## How it was measured",
        "",
        *_protocol_lines(answer, command, theta_source),
        "",
        "## Photographs that a label can get right",
        "",
        *_table_lines(scorable),
        "",
        "## Photographs that no label can get right",
        "",
        "No class lies at, below or above their synset: a flat answer is always wrong, an answer "
        "that stops early enough is not.",
        "",
        *_table_lines(others),
    ]
    return "\n".join(lines) + "\n"


def _summary_lines(
    results: Sequence[Result], scorable: Sequence[Result], others: Sequence[Result]
) -> list[str]:
    lines = [
        "| photographs | n | flat top-1 | hierarchical accuracy | right | specificity | shallow |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = {"that a label can get right": scorable, "that none can": others, "all": results}
    for name, group in groups.items():
        if not group:
            continue
        s = summarise(group)
        flat = "-"
        if s.flat_top1 is not None and s.flat_interval is not None and name != "all":
            low, high = s.flat_interval
            flat = f"{s.flat_top1:.1%} ({low:.1%} to {high:.1%})"
        lines.append(
            f"| {name} | {s.n} | {flat} | {s.hierarchical_accuracy:.1%} | {s.right:.1%} "
            f"| {s.specificity:.3f} | {s.shallow:.1%} |"
        )
    return lines


def _protocol_lines(answer: Answer, command: str, theta_source: str | None) -> list[str]:
    labels_digest = hashlib.sha256(LABELS.read_bytes()).hexdigest()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS)
    stop, tree = answer.stop, answer.hierarchy
    lines = [
        f"- command: `{command}`",
        f"- model: {answer.model.name}, bundle digest `{answer.model.digest}`",
        f"- hierarchy: {tree.name}, {tree.n_nodes} nodes over {tree.n_leaves} labels, "
        f"digest `{tree.digest}`",
        f"- strategy {answer.strategy}, rule {stop.rule}, theta {stop.theta:g} ({stop.source})",
    ]
    if stop.source == "bundle" and theta_source is not None:
        lines += [
            f"- the bundle's theta was set on: {theta_source}. Where these are the photographs of "
            "this page, hierarchical accuracy, specificity and shallow are a little flattered; "
            "flat top-1 depends on neither theta nor temperature",
        ]
    return [
        *lines,
        f"- labels: `labels.csv`, sha256 `{labels_digest}`; each picture is checked by digest",
        "- seed: none; nothing is drawn at random",
        f"- machine: {platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, no GPU",
        f"- versions: Python {platform.python_version()}, {versions}",
    ]


def _table_lines(results: Sequence[Result]) -> list[str]:
    lines = [
        "| picture | truth | flat top-1 | p | right | answer | depth | p | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        flat, node = r.answer.flat_top1, r.answer.prediction
        right = {True: "yes", False: "no", None: "-"}[r.flat_is_right]
        cells = (
            f"{r.photo.source}: {r.photo.id.removeprefix(r.photo.source + '/')}",
            r.photo.synset,
            flat.name,
            f"{flat.probability:.2f}",
            right,
            node.name,
            str(node.depth),
            f"{node.probability:.2f}",
            r.verdict,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def main(
    model: Annotated[str, typer.Option(help="Name or folder of a bundle.")] = "robustzs-lite",
    theta: Annotated[float | None, typer.Option(help="Default: the bundle's own.")] = None,
    strategy: Annotated[Strategy, typer.Option(help="As in robustzs classify.")] = "marginal",
    cache: Annotated[Path | None, typer.Option(help="Cache folder of the pictures.")] = None,
    output: Annotated[Path, typer.Option(help="Markdown file to write.")] = OUTPUT,
) -> None:
    """Runs the held-out photographs through the classifier and writes the table."""
    from robustzs.classifier import Classifier

    command = f"python -m benchmarks.heldout_table --model {Path(model).name}"
    command += f" --strategy {strategy}" if strategy != "marginal" else ""
    command += f" --theta {theta:g}" if theta is not None else ""
    try:
        fetch(cache)
        photos = load_photos(scorable=None, cache=cache)
        classifier = Classifier.load(model, hierarchy="wordnet", strategy=strategy, theta=theta)
        answers = classify(classifier, photos)
    except (HeldoutError, RobustZSError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error
    index = NounIndex.load()
    right = RightLabels(classifier.labels, index)

    def right_of(wnid: str) -> set[str]:
        columns, _ = right.columns_of(wnid)
        return {classifier.labels[column].id for column in columns.tolist()}

    results = score(photos, answers, right_of, wordnet_closure(index))
    bundled = classifier.embedder.manifest.theta
    page = render(results, command, None if bundled is None else bundled.source)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    typer.echo("\n".join(page.splitlines()[4:9]))
    typer.echo(output)


if __name__ == "__main__":
    typer.run(main)
