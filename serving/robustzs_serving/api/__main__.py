"""Write ``docs/openapi.json`` and ``docs/api-reference.md``: ``python -m robustzs_serving.api``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from robustzs_serving.api.openapi import openapi
from robustzs_serving.api.reference import reference
from robustzs_serving.settings import ServiceSettings


def documents() -> dict[str, str]:
    """Content of each generated file by its name, for the limits that are set by default."""
    document = openapi(ServiceSettings())
    return {
        "openapi.json": json.dumps(document, indent=1, ensure_ascii=False) + "\n",
        "api-reference.md": reference(document),
    }


def main(folder: Path) -> None:
    """Write the files."""
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
