"""The page: a card, its plots and examples in one HTML file, with the plots beside it."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robustzs.cards.schema import Card
from robustzs.cli.escape import terminal_safe
from robustzs.errors import MissingExtraError, UsageError
from robustzs_training.evaluation.report import tables
from robustzs_training.evaluation.report.examples import (
    AMPLIFIED,
    MAX_EXAMPLES,
    Example,
    Step,
    data_uri,
    pictures,
    png_of,
    size_of,
    steps,
)

if TYPE_CHECKING:
    from robustzs_training.evaluation.report.plots import Curve, Plot

REPORT_NAME = "report.html"
_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """An example, as the template shows it."""

    key: str
    truth: str
    where: str
    clean: str
    perturbation: str
    adversarial: str
    size: str
    steps: tuple[Step, ...]
    answers: tuple[str, str]


def write_report(
    card: Card, output: Path, *, examples: Sequence[Example] = (), curves: Sequence[Curve] = ()
) -> Path:
    """Write ``report.html`` and plots as PNG files into a folder, which is made if need be.

    The same arguments give the same bytes. What there is nothing of is left out: depths, curves,
    examples, even results.

    Args:
        card: The numbers.
        output: The folder.
        examples: Images that attacks turned; the first ones are shown, as many as
            ``MAX_EXAMPLES``.
        curves: Risk over coverage.

    Returns:
        The page.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        EvaluationError: Images of another kind.
        UsageError: The folder cannot be written.
    """
    try:
        from robustzs_training.evaluation.report.plots import plots_of
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "matplotlib", "train") from error
    plots = plots_of(card, curves)
    page = render(card, plots, examples)
    path = output / REPORT_NAME
    try:
        output.mkdir(parents=True, exist_ok=True)
        for plot in plots:
            _write(output / f"{plot.name}.png", plot.png)
        _write(path, page.encode("utf-8", "backslashreplace"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a folder's name"
        raise UsageError(
            f"the report cannot be written into {str(output)!r}: {reason}",
            hint="name a folder that you can write to",
        ) from error
    return path


def render(card: Card, plots: Sequence[Plot], examples: Sequence[Example] = ()) -> str:
    """The page's text.

    Raises:
        MissingExtraError: jinja2 is not installed.
        EvaluationError: Images of another kind.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "jinja2", "train") from error

    def shown(value: object) -> object:
        return terminal_safe(value) if type(value) is str else value

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    return environment.get_template("page.html.j2").render(
        card=card,
        style=Markup(style),
        policy=_POLICY.format(digest),
        banners=tables.banners(card),
        headlines=tables.headlines(card),
        averages=tables.averages(card),
        protocol=tables.protocol_rows(card),
        sections=tables.sections(card),
        plots=[(plot, data_uri(plot.png)) for plot in plots],
        examples=[_shown(example) for example in examples[:MAX_EXAMPLES]],
        n_examples=len(examples),
        amplified=AMPLIFIED,
        confidence=_confidence(card),
    )


def _shown(example: Example) -> _Shown:
    clean, perturbation, adversarial = (data_uri(png_of(image)) for image in pictures(example))
    size = f"eps {example.eps}" if example.eps else ""
    return _Shown(
        key=example.key,
        truth=example.truth,
        where=", ".join(part for part in (example.dataset, example.attack, size) if part),
        clean=clean,
        perturbation=perturbation,
        adversarial=adversarial,
        size=f"{size_of(example):.2g}",
        steps=tuple(steps(example)),
        answers=(_leaf(example.clean_path), _leaf(example.adversarial_path)),
    )


def _leaf(path: Sequence[object]) -> str:
    return str(getattr(path[-1], "name", "")) if path else ""


def _confidence(card: Card) -> str:
    levels = sorted({row.interval.confidence for row in card.results})
    return " and ".join(f"{level:.0%}" for level in levels)


def _write(path: Path, data: bytes) -> None:
    """At once: an older file stays until the new one is whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
