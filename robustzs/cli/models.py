"""`robustzs models`: what is there, what it says of itself, and whether it is whole."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustzs.cli.escape import json_safe, terminal_safe
from robustzs.cli.options import DigestOption, ModelArgument, complete_model
from robustzs.cli.report import report

if TYPE_CHECKING:
    from robustzs.bundle.registry import ModelInfo
    from robustzs.bundle.store import Bundle

app = typer.Typer(help="List, show and verify model bundles.", no_args_is_help=True)


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _say(line: str = "") -> None:
    sys.stdout.write(terminal_safe(line) + "\n")


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List the models that are here: embedded ones and those in the user's folder."""
    from robustzs.bundle.registry import list_models

    found = list_models()
    if as_json:
        sys.stdout.write(json_safe([_info_json(info) for info in found], indent=2) + "\n")
        return
    for info in found:
        names = ", ".join([info.name, *(f"{alias} (alias)" for alias in info.aliases)])
        if info.error is not None:
            _say(f"{names}   broken: {info.error.message}   [{info.error.code}]")
            continue
        megabytes = (info.size or 0) / 1e6
        _say(f"{names}   version {info.version}   {megabytes:.1f} MB   {info.kind}")
        if info.description:
            _say(f"    {info.description}")
        _say(f"    robustness: {info.robustness or 'not measured'}")
    if not found:
        sys.stderr.write("no models here; `robustzs export` makes one\n")


def _info_json(info: ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "aliases": list(info.aliases),
        "kind": info.kind,
        "path": str(info.path),
        "version": info.version,
        "digest": info.digest,
        "size": info.size,
        "description": info.description,
        "robustness": info.robustness,
        "error": None
        if info.error is None
        else {"code": info.error.code, "message": str(info.error)},
    }


@app.command("show")
def show_command(model: ModelArgument = "robustzs-lite", as_json: JsonOption = False) -> None:
    """Show what a model says of itself: its record and its card."""
    bundle = _open(model, expect_digest=None)
    card = bundle.card()
    if as_json:
        record = bundle.manifest.model_dump(mode="json")
        shown = {"digest": bundle.digest, "manifest": record, "card": card}
        sys.stdout.write(json_safe(shown, indent=2) + "\n")
        return
    manifest = bundle.manifest
    _say(f"{manifest.name} {manifest.version}   sha256:{bundle.digest}")
    if manifest.description:
        _say(manifest.description)
    height, width = manifest.preprocess.image_size
    rows = {
        "source": manifest.source.description,
        "image": f"{height} x {width}, resize {manifest.preprocess.resize_mode} "
        f"{manifest.preprocess.resize_size or ''}".rstrip()
        + f", {manifest.preprocess.interpolation}",
        "encoders": f"image {', '.join(manifest.image_encoders)}; "
        f"text {', '.join(manifest.text_encoders)}; {manifest.embed_dim} dimensions",
        "scoring": f"{manifest.geometry.kind}, logit_scale {manifest.logit_scale:.4g}, "
        f"temperature {manifest.temperature:.4g}",
        "tokenizer": f"{manifest.tokenizer.kind}, {manifest.tokenizer.context_length} tokens",
        "theta": _threshold(manifest.theta, "0.65 (default)"),
        "doubt": _threshold(manifest.low_confidence, "never flagged"),
        "rejection": _threshold(manifest.rejection, "not available"),
        "weights": manifest.weights or "none: classifies, but cannot be trained or attacked",
        "licences": "; ".join(f"{entry.name} ({entry.covers})" for entry in manifest.licences),
        "robustness": str((card or {}).get("robustness") or "not measured"),
    }
    for key, value in rows.items():
        _say(f"  {key:<11}{value}")
    _show_card(card)


def _threshold(threshold: Any, otherwise: str) -> str:
    return otherwise if threshold is None else f"{threshold.value:.4g}   ({threshold.source})"


def _show_card(card: dict[str, Any] | None) -> None:
    from robustzs.cards.rows import measured_rows

    results = (card or {}).get("results")
    if not isinstance(results, list):
        return
    _say("  measured" + (" in part" if (card or {}).get("complete") is False else ""))
    if "schema_version" in (card or {}):
        for measured in measured_rows(card):
            _say(f"    {measured.measure}: {measured.in_words}")
        return
    for row in results:
        if isinstance(row, dict):
            _say("    " + _measured(row))


def _measured(row: dict[str, Any]) -> str:
    """``measure: value (n ..., chance ...)``; a row of another shape as it is."""
    if not {"measure", "value"} <= row.keys():
        return ", ".join(f"{key} {_cell(value)}" for key, value in row.items())
    rest = [f"{k} {_cell(v)}" for k, v in row.items() if k not in ("measure", "value")]
    return f"{row['measure']}: {_cell(row['value'])}   ({', '.join(rest)})"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(_cell(item) for item in value) + "]"
    return str(value)


@app.command("verify")
def verify_command(
    models: Annotated[
        list[str], typer.Argument(help="Names or folders.", autocompletion=complete_model)
    ],
    expect_digest: DigestOption = None,
) -> None:
    """Hash every file and check every graph; exit code 1 when a bundle is not whole."""
    from robustzs.errors import RobustZSError

    failed = False
    for model in models:
        try:
            bundle = _open(model, expect_digest=expect_digest)
        except RobustZSError as error:
            failed = True
            sys.stderr.write(terminal_safe(model) + ": ")
            report(error)
        else:
            _say(f"{model}: whole, {len(bundle.manifest.files)} files, sha256:{bundle.digest}")
    if failed:
        raise typer.Exit(1)


def _open(model: str, *, expect_digest: str | None) -> Bundle:
    from robustzs.bundle.registry import resolve_model
    from robustzs.bundle.store import Bundle

    return Bundle.load(resolve_model(model), expect_digest=expect_digest)
