"""The readers of request bodies, one for each kind of request."""

from __future__ import annotations

from starlette.requests import Request

from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label_set import LabelSet
from robustzs_serving.ingest.calls import ClassifyCall, EmbedCall
from robustzs_serving.settings import ServiceSettings


async def read_classify(request: Request, settings: ServiceSettings) -> ClassifyCall:
    """The body of ``POST /v1/classify``, multipart or JSON."""
    raise NotImplementedError


async def read_embed(request: Request, settings: ServiceSettings) -> EmbedCall:
    """The body of ``POST /v1/embed``, multipart or JSON."""
    raise NotImplementedError


async def read_zero_shot(request: Request, settings: ServiceSettings) -> ClassifyCall:
    """The body of Hugging Face's zero-shot image classification: ``{"inputs", "parameters"}``."""
    raise NotImplementedError


async def read_label_set(request: Request, settings: ServiceSettings) -> LabelSet:
    """The body of ``PUT /v1/label-sets/{id}``: a JSON list, or ``{"labels": [...]}``."""
    raise NotImplementedError


async def read_hierarchy(request: Request, settings: ServiceSettings) -> tuple[Hierarchy, ...]:
    """The body of ``PUT /v1/hierarchies/{id}``: one tree in its JSON form, or a list of trees."""
    raise NotImplementedError
