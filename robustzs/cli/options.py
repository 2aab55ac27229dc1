"""Options and choices that several commands share, and their completion."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustzs.errors import UsageError

if TYPE_CHECKING:
    from robustzs.backends.triton import TritonTarget


class Strategy(str, Enum):
    """How node probabilities come about."""

    marginal = "marginal"
    topdown = "topdown"
    hyponyms = "hyponyms"
    level = "level"


class Rule(str, Enum):
    """How the path down the tree is chosen."""

    greedy = "greedy"
    climb = "climb"


class Precision(str, Enum):
    """In what numbers an encoder computes."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"
    int8 = "int8"


class OutputFormat(str, Enum):
    """How results are written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class OnAmbiguous(str, Enum):
    """What to do with a label that has several senses."""

    error = "error"
    first = "first"
    ask = "ask"


class OnUnknown(str, Enum):
    """What to do with a label that WordNet has not."""

    error = "error"
    attach = "attach"


class Backend(str, Enum):
    """What runs the encoders."""

    onnx = "onnx"
    triton = "triton"


def complete_model(incomplete: str) -> list[str]:
    """Names of models for shell completion."""
    from robustzs.bundle.registry import list_models

    names = [name for info in list_models() for name in (info.name, *info.aliases)]
    return sorted(name for name in names if name.startswith(incomplete))


_MODEL_HELP = "A name or a bundle's folder."

ModelArgument = Annotated[str, typer.Argument(help=_MODEL_HELP, autocompletion=complete_model)]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help=_MODEL_HELP, autocompletion=complete_model)
]
DigestOption = Annotated[
    str | None, typer.Option(help="Refuse the model unless its bundle has this digest.")
]
BatchOption = Annotated[int, typer.Option(min=1, max=4096, help="Images per inference.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Threads of the engine; else all cores.")
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        "--image-precision", help="Variant of the image encoder; else the model's default."
    ),
]
_LABELS_HELP = (
    "a,b,c or a file: one label a line, CSV or JSON. Else the 1000 ImageNet-1k classes, or a "
    "hierarchy's own leaves."
)
LabelsOption = Annotated[
    str | None,
    typer.Option("--labels", "-l", help=_LABELS_HELP),
]
AmbiguousOption = Annotated[
    OnAmbiguous, typer.Option(help="A label with several senses: refuse, take the first, ask.")
]
UnknownOption = Annotated[
    OnUnknown, typer.Option(help="A label that WordNet has not: refuse, or hang it below the root.")
]
BackendOption = Annotated[
    Backend, typer.Option(help="onnx: ONNX Runtime in this process; triton: servers at --url.")
]
UrlOption = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        help="A Triton server: grpc://, grpcs://, http:// or https://; repeat it for failover.",
        show_default=False,
    ),
]
CaOption = Annotated[
    Path | None, typer.Option("--tls-ca", help="PEM file to check Triton's certificate with.")
]
CertOption = Annotated[
    Path | None, typer.Option("--tls-cert", help="PEM file of a certificate to show to Triton.")
]
KeyOption = Annotated[Path | None, typer.Option("--tls-key", help="PEM file of its private key.")]


def triton_target(
    backend: Backend,
    urls: list[str] | None,
    *,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
) -> TritonTarget | None:
    """The servers that the options name; ``None`` for ONNX Runtime here.

    Raises:
        UsageError: the options do not fit each other.
    """
    from robustzs.backends.triton import TritonTarget

    if backend is Backend.triton:
        return TritonTarget(
            urls=tuple(urls or ()), ca_file=ca_file, cert_file=cert_file, key_file=key_file
        )
    named = {"--url": urls, "--tls-ca": ca_file, "--tls-cert": cert_file, "--tls-key": key_file}
    for option, value in named.items():
        if value:
            raise UsageError(f"{option} names a Triton server's", hint="add --backend triton")
    return None
