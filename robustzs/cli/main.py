"""Entry point of the `robustzs` command: the app, and errors turned into exit codes.

Exit codes: 0 all went well; 1 something failed (for `classify`: at least one image); 2 the command
was called wrongly; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from robustzs._version import __version__
from robustzs.cli import classify, embed, export, hierarchy, models, serve
from robustzs.cli.escape import terminal_safe
from robustzs.errors import RobustZSError, UsageError

app = typer.Typer(
    name="robustzs",
    help="Robust, hierarchical zero-shot image classification.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("classify")(classify.classify)
app.command("embed")(embed.embed)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.add_typer(models.app, name="models")
app.add_typer(hierarchy.app, name="hierarchy")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"robustzs {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Robust, hierarchical zero-shot image classification."""


def report(error: RobustZSError) -> int:
    """Print ``error`` on stderr in one or two lines and give its exit code."""
    sys.stderr.write(f"error: {terminal_safe(error.message)}\n")
    if error.hint:
        sys.stderr.write(f"  try: {terminal_safe(error.hint)}\n")
    return 2 if isinstance(error, UsageError) else 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; a traceback here would be a defect."""
    # Undecodable file names arrive as lone surrogates and must not crash a print.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments, standalone_mode=True)
    except RobustZSError as error:
        sys.exit(report(error))
    except BrokenPipeError:
        # The reader of our output left, as `head` does. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
