"""`--server`: the same rows, from a service. Labels and trees are read here; no path is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from robustzs.errors import ImageError, MissingExtraError, ServerError

if TYPE_CHECKING:
    from robustzs.answer import Answer, AnswerError
    from robustzs.images.sources import ImageSource
    from robustzs.labels.label_set import LabelSet

NAMED_TREES = frozenset({"wordnet", "wordnet-nouns", "flat"})
_MAX_IMAGES_PER_REQUEST = 16


def ask_server(
    url: str,
    sources: Iterable[ImageSource],
    batch_size: int,
    *,
    labels: LabelSet | None,
    hierarchy: Sequence[str] | None,
    **options: Any,
) -> Iterator[Answer | AnswerError]:
    """Classify through the service at ``url``; rows are those of the local command.

    Raises:
        ServerError: no answer came, or the service refused the request as a whole.
    """
    try:
        from robustzs_client import APIError, Client, RobustZSClientError
    except ImportError as error:
        raise MissingExtraError("robustzs_client", "cpu") from error

    request = {
        "labels": None if labels is None else _label_objects(labels),
        "hierarchy": None if not hierarchy else [_tree(spec) for spec in hierarchy],
        **options,
    }
    size = min(batch_size, _MAX_IMAGES_PER_REQUEST)
    remaining = iter(sources)
    with Client(url) as client:
        while batch := list(islice(remaining, size)):
            try:
                yield from _one_request(client, batch, request)
            except APIError as error:
                hint = "try again later" if error.status in (429, 503) else ""
                raise ServerError(str(error), status=error.status, hint=hint) from error
            except RobustZSClientError as error:
                raise ServerError(
                    str(error), hint=f"is a robustzs service listening at {url}?"
                ) from error


def _one_request(
    client: Any, batch: Sequence[ImageSource], request: dict[str, Any]
) -> Iterator[Answer | AnswerError]:
    from robustzs.answer import Answer, AnswerError, ErrorBody

    rows: list[Answer | AnswerError | None] = [None] * len(batch)
    images: list[bytes] = []
    sent: list[int] = []
    for position, source in enumerate(batch):
        try:
            images.append(source.read())
            sent.append(position)
        except ImageError as error:
            body = ErrorBody(code=error.code, message=str(error))
            rows[position] = AnswerError(image=source.name, error=body)
    if images:
        names = [batch[position].name for position in sent]
        for position, result in zip(
            sent, client.classify_many(images, names=names, **request), strict=True
        ):
            kind = Answer if hasattr(result, "prediction") else AnswerError
            rows[position] = kind.model_validate(result.model_dump())
    return (row for row in rows if row is not None)


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


def _tree(spec: str) -> str | dict[str, Any]:
    if spec in NAMED_TREES:
        return spec
    from robustzs.hierarchy.formats import read_hierarchy

    document: dict[str, Any] = json.loads(read_hierarchy(spec).to_json())
    return document
