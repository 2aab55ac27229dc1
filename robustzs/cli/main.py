"""Entry point of the `robustzs` command: the app, and errors turned into exit codes.

Exit codes: 0 all went well; 1 something failed (for `classify`: at least one image); 2 the command
was called wrongly; 130 interrupted.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from robustzs._version import __version__
from robustzs.cli import (
    attack,
    calibrate,
    caption,
    classify,
    compare,
    embed,
    evaluate,
    export,
    hierarchy,
    keys,
    models,
    serve,
    train,
)
from robustzs.cli.report import report
from robustzs.errors import RobustZSError

app = typer.Typer(
    name="robustzs",
    help="Robust, hierarchical zero-shot image classification.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("attack")(attack.attack)
app.command("calibrate")(calibrate.calibrate)
app.command("caption", help=caption.HELP)(caption.caption)
app.command("classify")(classify.classify)
app.command("compare")(compare.compare)
app.command("embed")(embed.embed)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("train", help=train.HELP)(train.train)
app.add_typer(models.app, name="models")
app.add_typer(hierarchy.app, name="hierarchy")
app.add_typer(keys.app, name="keys")


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; a traceback here would be a defect."""
    _prepare_streams()
    try:
        _run(arguments)
    except RobustZSError as error:
        sys.exit(report(error))
    except BrokenPipeError:
        # The reader of our output left, as `head` does.
        _forget_stdout()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except OSError as error:
        # A full disk, or an output that was closed; files that are read have errors of their own.
        _forget_stdout()
        what = f"{error.filename!r}: " if error.filename else ""
        sys.exit(report(RobustZSError(f"{what}{error.strerror or type(error).__name__}")))


def _run(arguments: Sequence[str] | None) -> None:
    try:
        app(args=arguments, standalone_mode=True)
    finally:
        sys.stdout.flush()  # here, where a failure is still ours to report


def _prepare_streams() -> None:
    """Streams that are there, and take any text."""
    # With `>&-` a stream is None; in its place stands one that fails as writing to it would.
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    # What a stream cannot encode (lone surrogates of file names, anything under LC_ALL=C) must
    # not crash a print, and must stay JSON.
    codecs.register_error("robustzs-escape", _escape)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="robustzs-escape")


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""``\uNNNN``, in pairs beyond the 65536th character, as in JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    units = found.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)), error.end


def _forget_stdout() -> None:
    """Let Python's last flush, which would fail again, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
