"""A card into the bundle that it is of."""

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

CARD_NAME = "card.json"


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

    At every moment there is a whole bundle: first one without a card, then with the new one.

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
    text = card.to_json()
    if document["files"].pop(CARD_NAME, None) is not None:
        write_text(manifest_path, _manifest_text(document))
    write_text(bundle.path / CARD_NAME, text)
    content = text.encode()
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    document["files"] = dict(sorted({**document["files"], CARD_NAME: record}.items()))
    write_text(manifest_path, _manifest_text(document))
    return Bundle.load(bundle.path)


def _manifest_text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
