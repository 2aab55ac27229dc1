"""The model card (``README.md``) of a bundle, written from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustzs.cards.rows import MeasuredRow, measured_rows
from robustzs_training.export.parity import (
    BATCHES,
    MIN_IMAGE_COSINE,
    MIN_VARIANT_COSINE,
    TOLERANCE,
)

HEADING = "## What was measured"


def model_card(fields: Mapping[str, Any], card: Mapping[str, Any] | None = None) -> str:
    """Write the card.

    Args:
        fields: The fields of ``bundle.json``, without ``files``.
        card: ``card.json``, where there is one: its ``results``, ``robustness`` and ``protocol``
            are shown.
    """
    sections = [
        f"# {fields['name']}",
        fields.get("description") or "A zero-shot image classifier in a robustzs bundle.",
        _usage(str(fields["name"])),
        "## What it is",
        _table(_facts(fields)),
        *_training(fields.get("training") or {}),
        "## Licences",
        "\n".join(_licence(licence) for licence in fields["licences"]),
        "## What was checked",
        _checks(fields["image_encoders"], fields["text_encoders"]),
        measured_section(fields, card),
    ]
    return "\n\n".join(sections) + "\n"


def measured_section(fields: Mapping[str, Any], card: Mapping[str, Any] | None = None) -> str:
    """What was measured, with its heading: the card's numbers, and those of the training.

    Args:
        fields: As for :func:`model_card`.
        card: Likewise.
    """
    trained = _hardened(fields.get("training") or {})
    if not trained:
        return "\n\n".join([HEADING, *_measured(card or {})])
    if measured_rows(card):
        trained = [*_measured(card or {}), "When it was trained:", *trained]
    return "\n\n".join([HEADING, *trained])


def with_measured(text: str, fields: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """A model card whose section on what was measured is the card's; the rest stays as it is.

    Args:
        text: The model card as it was, written by :func:`model_card` or by hand.
        fields: The fields of ``bundle.json``.
        card: ``card.json``.
    """
    lines = text.splitlines()
    start = next((at for at, line in enumerate(lines) if line.strip() == HEADING), len(lines))
    rest = range(start + 1, len(lines))
    end = next((at for at in rest if lines[at].startswith(("# ", "## "))), len(lines))
    before, after = ("\n".join(part).strip("\n") for part in (lines[:start], lines[end:]))
    parts = [before, measured_section(fields, card), after]
    return "\n\n".join(part for part in parts if part) + "\n"


def _checks(image_encoders: Mapping[str, str], text_encoders: Mapping[str, str]) -> str:
    same = (
        f"agree with the torch model at batches of {', '.join(map(str, BATCHES))}: raw features "
        f"within {TOLERANCE:.0e} of the largest value, normalised features and similarities within "
        f"{TOLERANCE:.0e}."
    )
    tokens = "The tokenizer gives the tokens of the original on a set of difficult texts."
    small = sorted(set(text_encoders) - {"fp32"})
    begin = (
        f"Both float32 ONNX graphs passed the onnx checker, were opened by onnxruntime and {same}"
    )
    begin += _image_checks(image_encoders)
    if not small:
        return f"{begin} {tokens}"
    left_out = "" if "fp32" in text_encoders else "; the float32 text graph itself is not shipped"
    return (
        f"{begin} The text graph of precision {', '.join(small)} was made from the float32 one: "
        f"its features have a cosine of at least {MIN_VARIANT_COSINE} to those, whatever the "
        f"batch{left_out}. {tokens}"
    )


def _image_checks(image_encoders: Mapping[str, str]) -> str:
    small = sorted(set(image_encoders) - {"fp32"})
    if not small:
        return ""
    return (
        f" The image graph of precision {', '.join(small)} was made from the float32 one and "
        f"calibrated on pictures: on others its features have a cosine of at least "
        f"{MIN_IMAGE_COSINE} to those, whatever the batch. It is another model as far as accuracy "
        f"and robustness go: float32's numbers do not hold for it."
    )


def _measured(card: Mapping[str, Any]) -> list[str]:
    results = measured_rows(card)
    if not results:
        return ["Nothing here says how accurate or how robust the model is: it was not measured."]
    rows = [
        f"| {_cell(row.measure)} | {_value(row)} | "
        f"{'' if row.chance is None else format(row.chance, '.3f')} | {row.n} |"
        for row in results
    ]
    lines = ["| measure | value | chance | n |", "|---|---|---|---|", *rows]
    text = ["\n".join(lines)]
    if card.get("robustness"):
        text.insert(0, f"Robustness: {_cell(card['robustness'])}.")
    if card.get("protocol"):
        text.append("\n".join(f"- {_cell(sentence)}" for sentence in card["protocol"]))
    return [*text, "All of it, with grids and settings, stands in `card.json`."]


def _value(row: MeasuredRow) -> str:
    if row.low is None or row.high is None:
        return f"{row.value:.3f}"
    return f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f})"


def _training(training: Mapping[str, Any]) -> list[str]:
    """How `robustzs train` hardened it; nothing of other training records."""
    if "recipe_digest" not in training:
        return []
    settings, data = training["settings"], training["data"]
    attack, optimizer = settings["attack"], settings["optimizer"]
    rows = [
        ("Recipe", f"{training['recipe']}, sha256 {training['recipe_digest'][:12]}"),
        ("Objective", settings["objective"]["name"]),
        ("Threat", training["threat"]),
        ("Attack while training", f"{attack['n_steps']} steps, {attack['start']} start"),
        ("Length", f"{training['steps']} steps, {training['images_seen']} images seen"),
        ("Data", f"{data['n']} images, sha256 {data['digest'][:12]}"),
        ("Optimiser", f"{optimizer['name']}, learning rate {optimizer['lr']:g}"),
        ("Calibration", training["calibration"]),
    ]
    if "trained_from" in training:
        rows.append(("Trained from", training["trained_from"]["name"]))
    if "started_from" in training:
        rows.append(("Went on from", training["started_from"]["name"]))
    return ["## How it was trained", _table(rows)]


def _hardened(training: Mapping[str, Any]) -> list[str]:
    """Accuracy before and after, with the protocol; empty where it was not measured."""
    found = training.get("evaluation") if "recipe_digest" in training else None
    if not found:
        return []
    before, after, gain = found["before"], found["after"], found["gain"]
    protocol = found["protocol"]
    rows = ["| | before | after | change in points, 95% interval |", "|---|---|---|---|"]
    for title, key, interval in (
        ("clean accuracy", "clean_accuracy", "clean_interval"),
        (f"accuracy under attack at {protocol['eps']}", "robust_accuracy", "interval"),
    ):
        low, high = (100.0 * end for end in gain[interval])
        change = f"{100.0 * gain[key]:+.1f} ({low:+.1f} to {high:+.1f})"
        rows.append(f"| {title} | {before[key]:.3f} | {after[key]:.3f} | {change} |")
    sentences = [
        f"{protocol['n']} pictures: {protocol['pictures']}.",
        f"{protocol['attack']}; {protocol['norm']} eps {protocol['eps']}, {protocol['n_steps']} "
        f"iterations, {protocol['precision']}; perturbed: {protocol['perturbed']}.",
        "Another attack may find less robust accuracy.",
    ]
    listed = "\n".join(f"- {_cell(sentence)}" for sentence in sentences)
    return ["\n".join(rows), listed, "All of it stands in `bundle.json` under `training`."]


def _usage(name: str) -> str:
    return f"```\nrobustzs classify photo.jpg --model {name} --hierarchy wordnet\n```"


def _facts(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    source, preprocess = fields["source"], fields["preprocess"]
    height, width = preprocess["image_size"]
    tokenizer, geometry = fields["tokenizer"], fields["geometry"]
    rows = [
        ("Made from", source["description"]),
        ("Architecture", source.get("architecture")),
        ("Pre-trained weights", source.get("pretrained")),
        ("Checkpoint sha256", source.get("sha256")),
        ("Image", f"{height} x {width}, {_resize(preprocess)}"),
        ("Normalisation (in the graph)", f"mean {fields['mean']}, std {fields['std']}"),
        ("Features", f"{fields['embed_dim']} dimensions, raw"),
        ("Geometry", _geometry(geometry)),
        ("Logit scale", f"{fields['logit_scale']:.6g}"),
        ("Temperature", f"{fields['temperature']:.6g}"),
        ("Tokens", _tokens(tokenizer)),
        ("Templates", _templates(fields["templates"])),
        ("Image encoders", _several(fields["image_encoders"])),
        ("Text encoders", ", ".join(sorted(fields["text_encoders"]))),
        ("Weights for torch", fields.get("weights") or "none: it classifies only"),
    ]
    for name, title in (
        ("theta", "Stop threshold"),
        ("low_confidence", "Low confidence below"),
        ("rejection", "Nothing fits below"),
    ):
        if fields.get(name):
            rows.append((title, f"{fields[name]['value']:.4g} ({fields[name]['source']})"))
    for record in fields.get("backbones", ()):
        rows.append(("Frozen backbone", f"{record['name']} from {record['source']}"))
    return [(title, value) for title, value in rows if value]


def _several(encoders: Mapping[str, str]) -> str | None:
    return ", ".join(sorted(encoders)) if len(encoders) > 1 else None


def _resize(preprocess: Mapping[str, Any]) -> str:
    interpolation = preprocess["interpolation"]
    if preprocess["resize_mode"] == "squash":
        return f"squashed, {interpolation}"
    if preprocess["resize_mode"] == "longest":
        return f"longest side resized and padded, {interpolation}"
    size = preprocess["resize_size"] or preprocess["image_size"][0]
    return f"shortest side resized to {size}, {interpolation}, centre crop"


def _geometry(geometry: Mapping[str, Any]) -> str:
    if geometry["kind"] == "cosine":
        return "cosine"
    return f"Poincaré ball of curvature -{geometry['curvature']:.6g}"


def _tokens(tokenizer: Mapping[str, Any]) -> str:
    length = tokenizer["context_length"]
    return f"{tokenizer['kind']}, {'always' if tokenizer['fixed_length'] else 'at most'} {length}"


def _templates(templates: str | tuple[str, ...]) -> str:
    return templates if isinstance(templates, str) else "; ".join(templates)


def _licence(licence: Mapping[str, Any]) -> str:
    url = f", {licence['url']}" if licence.get("url") else ""
    return f"- {licence['name']}: {licence['covers']}{url}"


def _table(rows: list[tuple[str, str]]) -> str:
    lines = ["| | |", "|---|---|"]
    lines += [f"| {title} | {_cell(value)} |" for title, value in rows]
    return "\n".join(lines)


def _cell(value: str) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
