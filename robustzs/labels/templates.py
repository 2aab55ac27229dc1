"""Prompt templates: sentences with a ``{}`` for the label's prompt.

Filling is literal replacement of every ``{}`` and nothing more; ``str.format`` would let a label or
a template reach into Python objects.

| name | what it is |
|---|---|
| ``single`` | ``a photo of a {}.`` |
| ``openai-imagenet-80`` | OpenAI's 80, verbatim (``a origami {}``), for published numbers |
| ``openai-7`` | OpenAI's subset of 7 |
| ``articles`` | ours: ``{}`` becomes ``an otter``, ``a unicorn``, ``sunglasses``, ``hay`` |
| ``paper`` | ``This is a photo of a {}``, as in the adversarial fine-tuning papers |
| ``name`` | ``{}``: the prompt as it is |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

from robustzs.errors import TemplateError
from robustzs.labels.articles import RULES_VERSION, with_article
from robustzs.labels.rules import text_problem

MAX_TEMPLATES = 1000

_ARTICLES = (
    "a photo of {}.",
    "a close-up photo of {}.",
    "a cropped photo of {}.",
    "a bright photo of {}.",
    "a dark photo of {}.",
    "a blurry photo of {}.",
    "a photo of {} in the distance.",
    "a drawing of {}.",
)
_SHORT_SETS = {
    "articles": _ARTICLES,
    "name": ("{}",),
    "paper": ("This is a photo of a {}",),
    "single": ("a photo of a {}.",),
}
_FILE_SETS = ("openai-7", "openai-imagenet-80")
TEMPLATE_SETS = tuple(sorted((*_SHORT_SETS, *_FILE_SETS)))
"""Names that ``get_templates`` knows."""


@dataclass(frozen=True)
class TemplateSet:
    """Templates that every prompt goes through.

    Args:
        name: What to call it; ``custom`` for a user's own.
        templates: Each contains a literal ``{}``.
        article: Whether the prompt gets its article (or none) before it is filled in.

    Raises:
        TemplateError: No template, one without ``{}``, with control characters, or twice.
    """

    name: str
    templates: tuple[str, ...]
    article: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.templates, str):
            raise TemplateError(
                f"{self.templates!r} is one text, not a list of templates", hint="put it in a list"
            )
        object.__setattr__(self, "templates", tuple(self.templates))
        _check(self.templates)

    def __len__(self) -> int:
        return len(self.templates)

    def fill(self, prompt: str) -> list[str]:
        """Replace every ``{}`` of each template by ``prompt``; braces in it stay as they are."""
        text = with_article(prompt) if self.article else prompt
        return [template.replace("{}", text) for template in self.templates]

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON of the templates and of the article rules' version."""
        record = {
            "article_rules": RULES_VERSION if self.article else 0,
            "templates": list(self.templates),
        }
        text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8")).hexdigest()


def get_templates(spec: str | Sequence[str]) -> TemplateSet:
    """A named set, or the user's own template or templates.

    Args:
        spec: One of ``TEMPLATE_SETS``, a template with a literal ``{}``, or several of them.

    Raises:
        TemplateError: An unknown name, or templates that ``TemplateSet`` refuses.
    """
    if not isinstance(spec, str):
        return TemplateSet("custom", tuple(spec))
    if "{}" in spec:
        return TemplateSet("custom", (spec,))
    if spec not in TEMPLATE_SETS:
        raise TemplateError(
            f"{spec!r} is neither a template with a literal '{{}}' nor a set of templates",
            hint=f"sets are {', '.join(TEMPLATE_SETS)}",
        )
    return _named(spec)


@cache
def _named(name: str) -> TemplateSet:
    if name in _SHORT_SETS:
        return TemplateSet(name, _SHORT_SETS[name], article=name == "articles")
    text = (files("robustzs.labels") / "data" / f"{name}.txt").read_text(encoding="utf-8")
    return TemplateSet(name, tuple(text.splitlines()))


def _check(templates: tuple[str, ...]) -> None:
    if not templates:
        raise TemplateError("a template set needs at least one template")
    if len(templates) > MAX_TEMPLATES:
        raise TemplateError(f"{len(templates)} templates, the limit is {MAX_TEMPLATES}")
    problems: list[str] = []
    for number, template in enumerate(templates, start=1):
        if not isinstance(template, str):
            problems.append(f"template {number} is not a text: {template!r}")
        elif complaint := text_problem(template, f"template {number}"):
            problems.append(complaint)
        elif "{}" not in template:
            problems.append(f"template {number} has no literal '{{}}': {template!r}")
        elif (first := templates.index(template) + 1) != number:
            problems.append(f"template {number} repeats template {first}: {template!r}")
    if problems:
        raise TemplateError(
            "; ".join(problems[:20]),
            hint="'{}' marks the place of the label",
            problems=problems,
        )
