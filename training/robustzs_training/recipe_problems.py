"""Problems of a recipe in words: the full path of each, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from robustzs.errors import UsageError
from robustzs_training.recipe import ObjectiveName, Recipe

_SHORT = 80


def recipe_problems(error: ValidationError) -> list[str]:
    """One sentence for each problem that the schema found."""
    return [_sentence(problem, Recipe, ()) for problem in _problems(error)]


def option_problems(objective: object) -> list[str]:
    """Problems of the ``objective`` part of a document, but for its name."""
    from robustzs_training.objective_options import options_model
    from robustzs_training.objectives import HierarchicalOptions

    if not isinstance(objective, Mapping) or objective.get("name") not in get_args(ObjectiveName):
        return []
    options = {key: value for key, value in objective.items() if key != "name"}
    model = options_model(objective["name"])
    try:
        found = model.model_validate(options)
    except ValidationError as error:
        return [_sentence(problem, model, ("objective",)) for problem in _problems(error)]
    tree = getattr(found, "tree", found if objective["name"] == "hierarchical" else None)
    if tree is not None:
        try:
            HierarchicalOptions(**tree.model_dump())
        except UsageError as error:
            return [f"objective: {error}"]
    return []


def _problems(error: ValidationError) -> list[Any]:
    return list(error.errors(include_url=False))


def _sentence(problem: Mapping[str, Any], model: type[BaseModel], prefix: tuple[str, ...]) -> str:
    loc = tuple(str(part) for part in problem["loc"])
    path = ".".join((*prefix, *loc)) or "the recipe"
    kind, value = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        return f"{path} is no key of a recipe; {_offer(loc, model, prefix)}"
    if kind == "missing":
        return f"{path} is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return f"{path}: {message}"
    message = message.replace("Input should be", "it should be")
    offer = ""
    if kind == "literal_error":
        close = difflib.get_close_matches(str(value), _literals(problem), n=1, cutoff=0.4)
        offer = f"; did you mean {close[0]}?" if close else ""
    return f"{path} is {_short(value)}: {message}{offer}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."


def _literals(problem: Mapping[str, Any]) -> list[str]:
    expected = str(problem.get("ctx", {}).get("expected", ""))
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]


def _offer(loc: Sequence[str], model: type[BaseModel], prefix: tuple[str, ...]) -> str:
    """What an unknown key was probably meant to be."""
    owner = _owner(loc[:-1], model)
    siblings = sorted(owner.model_fields) if owner is not None else []
    elsewhere = [path for path in _paths(Recipe) if path.split(".")[-1] == loc[-1]]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    close = difflib.get_close_matches(loc[-1], siblings, n=1, cutoff=0.6)
    if close:
        return f"did you mean {'.'.join((*prefix, *loc[:-1], close[0]))}?"
    where = ".".join((*prefix, *loc[:-1])) or "a recipe"
    return f"{where} has {', '.join(siblings) or 'no options'}"


def _owner(loc: Sequence[str], model: type[BaseModel]) -> type[BaseModel] | None:
    for part in loc:
        if part.isdecimal():  # a place in a list: its items are of the model already found
            continue
        field = model.model_fields.get(part)
        found = None if field is None else _model_in(field.annotation)
        if found is None:
            return None
        model = found
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        inner = _model_in(field.annotation)
        if inner is not None:
            yield from _paths(inner, f"{prefix}{name}.")
