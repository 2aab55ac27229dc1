"""`--server`: the same rows, from a service. Labels and trees are read here; no path is sent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from robustzs.errors import (
    BundleOriginError,
    ImageError,
    MissingExtraError,
    ServerError,
    UsageError,
)

if TYPE_CHECKING:
    import robustzs_client

    from robustzs.answer import Answer, AnswerError
    from robustzs.images.sources import ImageSource
    from robustzs.labels.label_set import LabelSet

NAMED_TREES = frozenset({"wordnet", "wordnet-nouns", "flat"})
KEY_VARIABLE = "ROBUSTZS_API_KEY"
"""Where the API key is taken from; on a command line, everybody on the machine could read it."""

_MAX_IMAGES_PER_REQUEST = 16


def ask_server(
    url: str,
    sources: Iterable[ImageSource],
    batch_size: int,
    *,
    labels: LabelSet | None,
    hierarchy: Sequence[str] | None,
    expect_digest: str | None = None,
    **options: Any,
) -> Iterator[Answer | AnswerError]:
    """Classify through the service at ``url``; rows are those of the local command.

    Raises:
        BundleOriginError: the service answers with another model than ``expect_digest`` names.
        ServerError: no answer came, or the service refused the request as a whole.
        UsageError: ``url`` is not an address.
    """
    try:
        from robustzs_client import APIError, Batching, Client, RobustZSClientError
    except ImportError as error:
        raise MissingExtraError("robustzs_client", "cpu") from error

    from robustzs.bundle.store import checked_digest

    wanted = None if expect_digest is None else checked_digest(expect_digest)
    labels, trees, warnings = _read_trees(labels, hierarchy, options)
    request = {
        "labels": None if labels is None else _label_objects(labels),
        "hierarchy": trees,
        **options,
    }
    batching = Batching(max_images=min(batch_size, _MAX_IMAGES_PER_REQUEST))
    try:
        client = Client(url, api_key=os.environ.get(KEY_VARIABLE) or None, batching=batching)
    except ValueError as error:
        raise UsageError(str(error), hint="--server http://127.0.0.1:3000") from error
    with client:
        try:
            for given in client.classify_stream(_read_sources(sources), **request):
                row = _as_core(given, url)
                _check_origin(row, wanted, url)
                yield _with_warnings(row, warnings)
        except APIError as error:
            raise ServerError(str(error), status=error.status, hint=_hint(error)) from error
        except RobustZSClientError as error:
            raise ServerError(
                str(error), hint=f"is a robustzs service listening at {url}?"
            ) from error


def _read_sources(
    sources: Iterable[ImageSource],
) -> Iterator[robustzs_client.NamedImage | robustzs_client.AnswerError]:
    """Images as the local command reads them, with its words for those that it cannot read."""
    from robustzs_client import AnswerError, ErrorBody, NamedImage

    for source in sources:
        try:
            yield NamedImage(source.name, source.read())
        except ImageError as error:
            body = ErrorBody(code=error.code, message=str(error))
            yield AnswerError(image=source.name, error=body)


def _as_core(row: robustzs_client.Row, url: str) -> Answer | AnswerError:
    """The row in core's own types, which the writers take.

    Raises:
        ServerError: a score is missing, or the service is of another version.
    """
    from robustzs.answer import Answer, AnswerError

    kind = Answer if hasattr(row, "prediction") else AnswerError
    try:
        return kind.model_validate(row.model_dump())
    except ValidationError as error:
        raise ServerError(
            f"the answer of {url} cannot be shown: it lacks scores, or is of another version",
            hint="a service that withholds scores is asked with curl or robustzs_client",
        ) from error


def _hint(error: robustzs_client.APIError) -> str:
    if error.status in (429, 503):
        return "try again later"
    return f"set {KEY_VARIABLE}" if error.status == 401 else ""


def _label_objects(labels: LabelSet) -> list[dict[str, Any]]:
    return [
        {
            "id": label.id,
            "name": label.name,
            "prompt": label.prompt,
            "aliases": list(label.aliases),
            "synset": label.synset,
        }
        for label in labels
    ]


def _read_trees(
    labels: LabelSet | None, hierarchy: Sequence[str] | None, options: dict[str, Any]
) -> tuple[LabelSet | None, list[Any] | None, tuple[str, ...]]:
    """Labels and trees to send, and warnings of reading them here.

    Where a file is among the trees, all are read here, together and with the labels, as the local
    command does; the leaves then are the labels.
    """
    if not hierarchy:
        return labels, None, ()
    from robustzs.hierarchy.load import load_hierarchy, split_specs

    specs = split_specs(hierarchy)
    if NAMED_TREES.issuperset(specs):
        return labels, specs, ()

    policies = {key: options[key] for key in ("on_ambiguous", "on_unknown") if key in options}
    loaded = load_hierarchy(specs, labels, **policies)
    return None, [json.loads(tree.to_json()) for tree in loaded.trees], loaded.warnings


def _check_origin(row: Answer | AnswerError, wanted: str | None, url: str) -> None:
    model = getattr(row, "model", None)
    if wanted is not None and model is not None and model.digest != wanted:
        raise BundleOriginError(
            f"the model {model.name} at {url} has the digest {model.digest}, not the expected "
            f"{wanted}",
            hint="it is another bundle than the one that you named",
        )


def _with_warnings(row: Answer | AnswerError, warnings: tuple[str, ...]) -> Answer | AnswerError:
    if not warnings or not hasattr(row, "warnings"):
        return row
    return row.model_copy(update={"warnings": (*warnings, *row.warnings)})
