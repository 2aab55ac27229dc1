"""`robustzs models`: what is there, what it says of itself, and whether it is whole."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from robustzs.cli.escape import json_safe, terminal_safe

app = typer.Typer(help="List, show and verify model bundles.", no_args_is_help=True)


def complete_model(incomplete: str) -> list[str]:
    """Names of models for shell completion."""
    from robustzs.bundle.registry import list_models

    return [info.name for info in list_models() if info.name.startswith(incomplete)]


ModelArgument = Annotated[
    str, typer.Argument(help="A name or a bundle's folder.", autocompletion=complete_model)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
