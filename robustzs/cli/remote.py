"""`--server`: the same rows, from a service. Labels and trees are read here; no path is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from robustzs.errors import BundleOriginError, ImageError, MissingExtraError, ServerError

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
    expect_digest: str | None = None,
    **options: Any,
) -> Iterator[Answer | AnswerError]:
    """Classify through the service at ``url``; rows are those of the local command.

    Raises:
        BundleOriginError: the service answers with another model than ``expect_digest`` names.
        ServerError: no answer came, or the service refused the request as a whole.
    """
    try:
        from robustzs_client import APIError, Client, RobustZSClientError
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
    size = min(batch_size, _MAX_IMAGES_PER_REQUEST)
    remaining = iter(sources)
    with Client(url) as client:
        while batch := list(islice(remaining, size)):
            try:
                for row in _one_request(client, batch, request):
                    _check_origin(row, wanted, url)
                    yield _with_warnings(row, warnings)
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
