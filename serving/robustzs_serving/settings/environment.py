"""From variables of the environment to the fields of settings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from robustzs.errors import UsageError

PREFIX = "ROBUSTZS_"
# Of a group, what stands between the prefix and the field's name.
_GROUPS = {"limits": "", "batching": "BATCH_", "triton": "TRITON_"}
# The core's own, and the SDK's.
_OTHERS = frozenset({"CACHE", "CACHE_MAX_BYTES", "MODELS", "SERVER", "WORDNET_DIR", "METRICS_DIR"})
# Kubernetes describes a service that is called robustzs to every pod by such variables.
_KUBERNETES = re.compile(r"(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))(_\w+)?")
_KUBERNETES_PORT = re.compile(r"(tcp|udp)://\S+")


def variables(settings: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of every field, with its variable."""
    for name, field in settings.model_fields.items():
        group = field.annotation
        if name in _GROUPS and isinstance(group, type) and issubclass(group, BaseModel):
            for inner in group.model_fields:
                yield (name, inner), f"{PREFIX}{_GROUPS[name]}{inner.upper()}"
        else:
            yield (name,), f"{PREFIX}{name.upper()}"


def read_environment(
    environ: Mapping[str, str], settings: type[BaseModel]
) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """What the environment says, as nested values to validate, and the variable of every field.

    An empty variable counts as not set. Lists are separated by commas.

    Raises:
        UsageError: a variable is almost one of ours, and so would be ignored in silence.
    """
    names = dict(variables(settings))
    _refuse_misspelt(environ, set(names.values()))
    values: dict[str, Any] = {}
    for place, variable in names.items():
        text = environ.get(variable, "").strip()
        if not text or (variable == f"{PREFIX}PORT" and _KUBERNETES_PORT.fullmatch(text)):
            continue
        target = values
        for group in place[:-1]:
            target = target.setdefault(group, {})
        target[place[-1]] = _listed(text) if _is_list(settings, place) else text
    return values, names


def _refuse_misspelt(environ: Mapping[str, str], known: set[str]) -> None:
    others = {PREFIX + name for name in _OTHERS}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in known or variable in others:
            continue
        if _KUBERNETES.fullmatch(variable.removeprefix(PREFIX)):
            continue
        close = difflib.get_close_matches(variable, known, n=1, cutoff=0.9)
        if close:
            raise UsageError(
                f"there is no variable {variable}, which is {environ[variable][:80]!r}",
                hint=f"did you mean {close[0]}?",
            )


def _is_list(settings: type[BaseModel], place: tuple[str, ...]) -> bool:
    model = settings
    for group in place[:-1]:
        inner = model.model_fields[group].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return isinstance(model.model_fields[place[-1]].default, tuple)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
