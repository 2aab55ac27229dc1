"""A card into the bundle that it is of, and its numbers into the bundle's model card."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from robustzs.bundle.manifest import MANIFEST_NAME
from robustzs.bundle.registry import embedded_dir
from robustzs.bundle.store import Bundle
from robustzs.cards import schema
from robustzs.cards.reading import check_model
from robustzs.errors import CardError, UsageError
from robustzs_training.evaluation.state import write_text
from robustzs_training.export.model_card import model_card, with_measured

CARD_NAME = "card.json"
README_NAME = "README.md"


def check_writable(bundle: Bundle) -> None:
    """Check, before hours are spent, that a card can be put into a bundle.

    Raises:
        UsageError: It is an embedded one, or it cannot be written to.
    """
    path = bundle.path.resolve()
    if path.is_relative_to(embedded_dir().resolve()):
        raise UsageError(
            f"the embedded model {bundle.manifest.name} is part of the installed package: its card "
            "is not replaced",
            hint="leave --write-card away; --output DIR keeps the card",
        )
    if not os.access(path, os.W_OK):
        raise UsageError(
            f"the bundle {path} cannot be written to",
            hint="leave --write-card away; --output DIR keeps the card",
        )


def put_into_bundle(card: schema.Card, bundle: Bundle) -> Bundle:
    """Put a card into the bundle that it is of; files that are no part of it are left alone.

    The section on what was measured of the bundle's model card (``README.md``), which people read,
    is written anew from the card. At every moment there is a whole bundle: first one without card
    and model card, then with the new ones.

    Raises:
        CardError: It is of another model, or not complete.
        UsageError: The bundle is an embedded one.
        EvaluationStateError: The disk refuses.
    """
    check_writable(bundle)
    check_model(card, bundle.manifest)
    if not card.complete:
        raise CardError(
            f"the card is not complete: {card.incomplete_reason}",
            hint="let the measurement finish, then --write-card",
        )
    manifest_path = bundle.path / MANIFEST_NAME
    document = json.loads(manifest_path.read_text(encoding="utf-8"))
    texts = {CARD_NAME: card.to_json()}
    if README_NAME in document["files"] or not (bundle.path / README_NAME).exists():
        texts[README_NAME] = _readme(bundle, document, card)
    before = len(document["files"])
    document["files"] = {k: v for k, v in document["files"].items() if k not in texts}
    if len(document["files"]) != before:
        write_text(manifest_path, _manifest_text(document))
    for name, text in texts.items():
        write_text(bundle.path / name, text)
    records = {name: _record(text.encode()) for name, text in texts.items()}
    document["files"] = dict(sorted({**document["files"], **records}.items()))
    write_text(manifest_path, _manifest_text(document))
    return Bundle.load(bundle.path)


def _readme(bundle: Bundle, document: Mapping[str, Any], card: schema.Card) -> str:
    """The bundle's model card with the new numbers."""
    fields = {key: value for key, value in document.items() if key != "files"}
    numbers = card.model_dump(mode="json")
    if README_NAME not in document["files"]:
        return model_card(fields, numbers)
    text = bundle.file(README_NAME).read_text(encoding="utf-8")
    return with_measured(text, fields, numbers)


def _record(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _manifest_text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
