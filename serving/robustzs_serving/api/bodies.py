"""What the service takes, as pydantic models with the limits of one service.

They describe bodies for the OpenAPI file; ``ingest`` reads them, with messages that name the place.
A test sends what these models allow and refuse.
"""

# No `from __future__ import annotations`: the limits in the types are values of the function.

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, create_model

from robustzs.answer import StopRule, Strategy
from robustzs.classifier.options import MAX_HYPONYMS, MAX_TOP_K
from robustzs.hierarchy.document import HierarchyDocument
from robustzs.labels.rules import MAX_ALIASES
from robustzs_serving.settings import ServiceSettings
from robustzs_serving.stored import ID_PATTERN

TEXT_PATTERN = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$"
"""No control characters; in Python also no lone surrogates, which JSON cannot carry as UTF-8."""

NAMED_TREES = ("wordnet", "wordnet-nouns", "flat")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


@dataclass(frozen=True)
class Bodies:
    """Models of request bodies.

    Attributes:
        classify: JSON of ``/v1/classify``.
        embed: JSON of ``/v1/embed``.
        zero_shot: JSON of the Hugging Face route.
        label_set: JSON of ``PUT /v1/label-sets/{id}``.
        hierarchy: JSON of ``PUT /v1/hierarchies/{id}``.
    """

    classify: Any
    embed: Any
    zero_shot: Any
    label_set: Any
    hierarchy: Any


def bodies(settings: ServiceSettings) -> Bodies:
    """The models for the limits of a service."""
    limits = settings.limits
    Text = Annotated[str, Field(max_length=limits.max_label_chars, pattern=TEXT_PATTERN)]
    Named = Annotated[
        str, Field(min_length=1, max_length=limits.max_label_chars, pattern=TEXT_PATTERN)
    ]

    class InlineImage(_Body):
        """An encoded image (JPEG, PNG, WebP, GIF, BMP or TIFF) in base64."""

        b64: Base64Bytes = Field(description="the file's bytes in base64")

    class ImageByUrl(_Body):
        """An image to fetch; refused unless the deployer turned it on."""

        url: str = Field(max_length=limits.max_url_chars, pattern="^https://", description="https")

    class LabelEntry(_Body):
        """One thing to choose from; at least ``name`` or ``synset``."""

        id: Text | None = Field(None, description="for code; made from the name where absent")
        name: Text | None = Field(None, description="for people")
        prompt: Text | None = Field(None, description="for the model; the name where absent")
        synset: Text | None = Field(None, description="WordNet 3.0 sense, such as dog.n.01")
        aliases: Annotated[list[Text], Field(max_length=MAX_ALIASES)] | None = None

    Labels = Annotated[list[Named | LabelEntry], Field(min_length=1, max_length=limits.max_labels)]
    LabelsOrText = (
        Labels
        | Annotated[
            str, Field(min_length=1, description="names separated by commas, quoted as in CSV")
        ]
    )
    Name = Literal["wordnet", "wordnet-nouns", "flat"]
    Tree = Name | HierarchyDocument
    Trees = (
        Name
        | Annotated[str, Field(pattern=ID_PATTERN, description="id of what the key keeps")]
        | HierarchyDocument
        | Annotated[list[Tree], Field(min_length=1, max_length=limits.max_trees)]
    )
    Templates = (
        Named
        | Annotated[
            list[Annotated[str, Field(max_length=limits.max_label_chars, pattern=r"\{\}")]],
            Field(min_length=1),
        ]
    )
    Image = InlineImage | ImageByUrl
    Images = Annotated[list[Image], Field(max_length=limits.max_images)]
    OneText = Annotated[
        str, Field(min_length=1, max_length=limits.max_text_chars, pattern=TEXT_PATTERN)
    ]
    Texts = Annotated[list[OneText], Field(max_length=limits.max_texts)]
    model: Any = (
        Annotated[str, Field(min_length=1, max_length=512)] | None,
        Field(None, description="name or alias that must be the service's; leave it out"),
    )
    images: dict[str, Any] = {
        "images": (Images | None, Field(None, description="in the order of the answers")),
        "image": (Image | None, Field(None, description="one, in place of `images`")),
    }
    texts: dict[str, Any] = {
        "texts": (
            Texts | None,
            Field(None, description="embedded as they are, without templates"),
        ),
        "text": (OneText | None, Field(None, description="one, in place of `texts`")),
        "encoding": (
            Literal["float", "base64"] | None,
            Field("float", description="lists of numbers, or base64 of little-endian float32"),
        ),
    }
    options: dict[str, Any] = {
        "strategy": (Strategy | None, Field("marginal")),
        "rule": (StopRule | None, Field("greedy")),
        "theta": (
            Annotated[float, Field(ge=0, le=1)] | None,
            Field(None, description="stop threshold; not together with target_accuracy"),
        ),
        "target_accuracy": (
            Annotated[float, Field(gt=0, lt=1)] | None,
            Field(None, description="hierarchical accuracy that a calibration promises"),
        ),
        "temperature": (Annotated[float, Field(ge=1e-6, le=1e6)] | None, Field(None)),
        "top_k": (Annotated[int, Field(ge=1, le=MAX_TOP_K)] | None, Field(5)),
        "level": (
            Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)] | None,
            Field(None, description="depth or rank to answer at, whatever theta says"),
        ),
        "root": (
            Annotated[str, Field(min_length=1)] | None,
            Field(None, description="node to answer below: an id, a synset or a name"),
        ),
        "reject": (
            bool | float | None,
            Field(False, description="allow `none of these`: true, or the least similarity"),
        ),
        "n_hyponyms": (Annotated[int, Field(ge=1, le=MAX_HYPONYMS)] | None, Field(10)),
    }
    choices: dict[str, Any] = {
        "labels": (LabelsOrText | None, Field(None, description="what to choose from")),
        "label_set": (
            Annotated[str, Field(pattern=ID_PATTERN)] | None,
            Field(None, description="id of kept labels, in place of `labels`"),
        ),
        "hierarchy": (
            Trees | None,
            Field(None, description="a tree, several, or the id of what the key keeps"),
        ),
        "templates": (
            Templates | None,
            Field(
                None,
                description="a template set's name, a template with a literal {}, or several; "
                "the model's where absent",
            ),
        ),
        "on_ambiguous": (Literal["error", "first"] | None, Field("error")),
        "on_unknown": (Literal["error", "attach"] | None, Field("error")),
    }
    classify = create_model(
        "ClassifyRequest",
        __base__=_Body,
        __doc__="One image or more, what to choose from, and how. A null field is an absent one.",
        model=model,
        **images,
        **choices,
        **options,
    )
    classify.model_config["json_schema_extra"] = _one_of("images", "image")
    embed = create_model(
        "EmbedRequest",
        __base__=_Body,
        __doc__="Images, texts, or both. A null field is an absent one.",
        model=model,
        **images,
        **texts,
    )
    embed.model_config["json_schema_extra"] = _one_of("images", "image", "texts", "text")

    class ZeroShotParameters(_Body):
        """Of Hugging Face's API."""

        candidate_labels: Annotated[list[Named], Field(min_length=1, max_length=limits.max_labels)]
        hypothesis_template: (
            Annotated[str, Field(max_length=limits.max_label_chars, pattern=r"\{\}")] | None
        ) = Field("This is a photo of {}.", description="a literal {} is the label's place")

    class ZeroShotRequest(_Body):
        """Of Hugging Face's API."""

        inputs: Base64Bytes = Field(description="the image file's bytes in base64")
        parameters: ZeroShotParameters

    class LabelSetRequest(_Body):
        """Labels to keep."""

        labels: LabelsOrText

    Forest = Annotated[list[HierarchyDocument], Field(min_length=1, max_length=limits.max_trees)]

    class TreesRequest(_Body):
        """Several trees over the same leaves."""

        trees: Forest

    return Bodies(
        classify=classify,
        embed=embed,
        zero_shot=ZeroShotRequest,
        label_set=LabelSetRequest | Labels,
        hierarchy=HierarchyDocument | TreesRequest | Forest,
    )


def _one_of(*names: str) -> dict[str, Any]:
    """One of these fields at least is there and not null."""
    return {
        "anyOf": [
            {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names
        ]
    }
