"""The study's page: tables between markers, plots beside it; all other text is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustzs.errors import CardError, UsageError
from robustzs_training.evaluation.report.plots import Plot
from robustzs_training.evaluation.state import write_text
from robustzs_training.study import tables
from robustzs_training.study.plots import plots_of
from robustzs_training.study.results import RowResult, read_results
from robustzs_training.study.rows import row_names

BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"


def write_report(output: Path, docs: Path, *, page: str = "README.md") -> list[Path]:
    """Write what the finished rows say.

    Args:
        output: Folder of the study.
        docs: Folder of the page and of its plots.
        page: The page; it is made with markers alone where it is not there.

    Returns:
        All files that were written.

    Raises:
        CardError: No row is finished, or a file is damaged.
        UsageError: The page has no markers.
    """
    results = read_results(output, row_names())
    if not results:
        raise CardError(
            f"no row is finished in {output}", hint="`python -m robustzs_training.study run`"
        )
    path = docs / page
    before = path.read_text(encoding="utf-8") if path.is_file() else f"{BEGIN}\n{END}\n"
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise UsageError(
            f"{path} has no place for the tables", hint=f"write {BEGIN} and {END} in two lines"
        )
    plots = plots_of([row for row in results if not row.full])
    text = f"{head}{BEGIN}\n{tables_of(results, plots)}\n{END}{tail}"
    write_text(path, text)
    written = [path]
    for plot in plots:
        written.append(docs / f"{plot.name}.png")
        written[-1].write_bytes(plot.png)
    return written


def tables_of(results: Sequence[RowResult], plots: Sequence[Plot]) -> str:
    """All tables and the plots' links, in Markdown."""
    sweep = [row for row in results if not row.full]
    full = [row for row in results if row.full]
    parts: list[str] = []
    if sweep:
        images = {plot.name: f"![{plot.alt}]({plot.name}.png)" for plot in plots}
        parts += [
            _protocol(sweep),
            "### Clean, and under the label attack",
            images["accuracy"],
            tables.accuracies(sweep),
            "### Against FARE, picture by picture",
            "Points gained over FARE, with Tango's paired 95% interval; bold: it leaves 0 out.",
            tables.differences(sweep),
            "### Photographs under attacks with other guides",
            images["attacks"],
            tables.other_attacks(sweep),
            "### Superclasses",
            images["depths"],
            tables.superclasses(sweep),
            "### Severity",
            tables.severity(sweep),
            "### What it took",
            tables.costs(sweep),
        ]
    if full:
        parts += ["### The full AutoAttack, of the leaders", tables.accuracies(full)]
    return "\n\n".join(parts)


def _protocol(rows: Sequence[RowResult]) -> str:
    protocol = rows[0].asked["protocol"]
    steps = sorted({row.training["steps"] for row in rows if row.training is not None})
    versions = rows[0].versions
    said = ", ".join(
        f"{name} {versions[name]}"
        for name in ("python", "torch", "pyautoattack")
        if name in versions
    )
    different = {str(row.asked["protocol"]) for row in rows}
    lines = [
        f"{len(rows)} rows; {' or '.join(map(str, steps)) or 'no'} steps; measured at "
        f"{protocol['image_size']} x {protocol['image_size']} pixels, attacks of "
        f"{protocol['n_steps']} iterations from one start, seed {protocol['seed']}; {said}; "
        f"{rows[0].machine}. Intervals in tables of shares are Wilson's, 95%."
    ]
    if len(different) > 1:
        lines.append("**Rows were measured by different protocols: they do not compare.**")
    return " ".join(lines)
