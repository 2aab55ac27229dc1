"""``docs/service-limits.md``, made from the settings, so that page and code cannot differ."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from robustzs_serving.settings.environment import variables
from robustzs_serving.settings.service import ServiceSettings

_HEAD = """\
# Limits and settings of the service

<!-- Made by `python -m robustzs_serving.settings > docs/service-limits.md`; a test compares. -->

Every limit and every switch is an environment variable, read once when the service starts; a wrong
value, or a name that is almost one of these, keeps it from starting, and the error names variable,
value and remedy. An empty variable counts as not set. Lists are separated by commas.

Limits on concurrency, queues, rates and held bytes are those of one worker process: with
`ROBUSTZS_WORKERS=4` the service as a whole takes up to four times as much. Codes and statuses of
refusals are in `GET /v1/errors`; what limits are for is in `docs/service-security.md`.
"""
_TITLES = {
    "": "Service",
    "limits": "Limits",
    "batching": "Batches",
    "triton": "Triton",
}


def render() -> str:
    """The page."""
    rows: dict[str, list[str]] = {group: [] for group in _TITLES}
    for place, variable in variables(ServiceSettings):
        group = place[0] if len(place) > 1 else ""
        field = _field(place)
        cells = [f"`{variable}`", _shown(field.default), field.description or ""]
        rows[group].append(f"| {' | '.join(cells)} |")
    parts = [_HEAD]
    for group, title in _TITLES.items():
        table = ["| variable | default | |", "|---|---|---|", *rows[group]]
        parts.append(f"## {title}\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def _field(place: tuple[str, ...]) -> FieldInfo:
    model: type[BaseModel] = ServiceSettings
    for name in place[:-1]:
        group = model.model_fields[name].annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            model = group
    return model.model_fields[place[-1]]


def _shown(default: object) -> str:
    if default is None or default == ():
        return "not set"
    if isinstance(default, tuple):
        return f"`{','.join(map(str, default))}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`"
