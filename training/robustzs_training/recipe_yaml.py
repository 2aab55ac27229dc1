"""YAML for recipes: the core schema of YAML 1.2, and nothing that runs or multiplies.

PyYAML follows YAML 1.1, where ``1e-5`` is a text, ``no`` is false, ``1:30`` is 90 and ``010`` is 8.
Here a number is what Python reads as one, and yes and no are ``true`` and ``false`` alone (a field
that asks for one of them takes ``yes`` and ``no``, too). Anchors, aliases, tags and keys that are
given twice are refused.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from robustzs.errors import RecipeError

MAX_CHARACTERS = 200_000


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"anchor or alias {event.anchor!r}", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is text, not a list or a mapping", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        found = super().construct_mapping(node, deep=deep)
        return {str(key): value for key, value in found.items()}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), [*_first, ""]
    )


def read_yaml(text: str, where: str) -> Any:
    """The one document in ``text``: mappings, lists, texts, numbers, booleans and ``None``.

    Args:
        text: YAML.
        where: What to call it in errors.

    Raises:
        RecipeError: Not YAML, or YAML that recipes have no use for.
    """
    if len(text) > MAX_CHARACTERS:
        raise RecipeError(f"{where} is longer than {MAX_CHARACTERS} characters")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: {error.problem}", hint="it must be YAML") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(f"{where} is not YAML: {reason}", hint="see docs/training.md") from error
