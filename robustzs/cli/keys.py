"""`robustzs keys`: make, list and revoke the API keys of a service."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustzs.cli.escape import json_safe, terminal_safe
from robustzs.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

    from robustzs_serving.edge.keys import KeyRecord

app = typer.Typer(
    help="Make, list and revoke the API keys of a service. The file holds hashes, never keys.",
    no_args_is_help=True,
)

FileOption = Annotated[
    Path,
    typer.Option(
        "--file", envvar="ROBUSTZS_KEYS_FILE", help="Keys file, which the service reads, too."
    ),
]


@app.command("make")
def make(
    name: Annotated[
        str, typer.Argument(help="Whose key it is; a second key of a name rotates the first.")
    ],
    file: FileOption,
    days: Annotated[
        float | None, typer.Option(min=0.01, max=36_500, help="Valid for so many days.")
    ] = None,
) -> None:
    """Make a key and print it once. A running service takes it within seconds."""
    key, record = _keys().make_key(file, name, days=days)
    sys.stdout.write(f"{key}\n")
    until = "" if record.expires is None else f", valid until {record.expires:%Y-%m-%d %H:%M} UTC"
    sys.stderr.write(
        f"key {record.id} of {record.name}{until}; it is shown this once and kept nowhere\n"
    )


@app.command("list")
def list_command(
    file: FileOption, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the keys by id, name and dates; the keys themselves are nowhere."""
    records = _keys().read_keys(file)
    if as_json:
        rows = [record.model_dump(mode="json", exclude={"sha256"}) for record in records]
        sys.stdout.write(json_safe(rows, indent=2) + "\n")
        return
    for record in records:
        sys.stdout.write(terminal_safe(_row(record)) + "\n")
    if not records:
        sys.stderr.write("no keys: the service refuses everybody; `robustzs keys make` makes one\n")


@app.command("revoke")
def revoke(
    which: Annotated[str, typer.Argument(help="A name, for all of its keys, or the id of one.")],
    file: FileOption,
) -> None:
    """Take keys out of the file. A running service refuses them within seconds."""
    for record in _keys().revoke_keys(file, which):
        sys.stderr.write(f"revoked {record.id} of {record.name}\n")


def _row(record: KeyRecord) -> str:
    now = datetime.now(timezone.utc)
    if record.expires is None:
        ends = "for ever"
    elif record.is_valid(now):
        ends = f"until {record.expires:%Y-%m-%d %H:%M} UTC"
    else:
        ends = f"expired {record.expires:%Y-%m-%d %H:%M} UTC"
    return f"{record.id}  {record.name}  made {record.created:%Y-%m-%d}  {ends}"


def _keys() -> ModuleType:
    try:
        from robustzs_serving.edge import keys
    except ImportError as error:
        raise MissingExtraError(error.name or "starlette", "serve") from error
    return keys
