"""What the model repository and the client agree on. Nothing here needs tritonclient.

For a bundle called NAME, a server has

```
NAME_image        pixels FP32 [B, 3, H, W] in [0, 1] -> image_features FP32 [B, D]   the encoder
NAME_text         token_ids INT64 [B, T] -> text_features FP32 [B, D]                the encoder
NAME_scale        bytes UINT8 [B, 3, H, W] -> pixels FP32 [B, 3, H, W]               / 255
NAME_image_bytes  bytes UINT8 [B, 3, H, W] -> image_features FP32 [B, D]             an ensemble
```

Each encoder, and the ensemble, stands in a version folder whose number comes from its digest, and
the client asks for that version: a server that gets other weights, whenever it does, does not have
what is asked for, and cannot answer with them.

``NAME_image_bytes`` is the way of pictures: a quarter of the traffic, and the same float32 values,
since the division by 255 is the same. What is not on the grid of 8 bits (a perturbed image) goes to
``NAME_image`` as it is. Both run the same instance of the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from robustzs.bundle.onnx_guard import check_onnx

if TYPE_CHECKING:
    from robustzs.bundle.manifest import BundleManifest, Precision

Tower = Literal["image", "text"]
Part = Literal["image", "text", "scale", "image_bytes"]

DIGEST = "robustzs_digest"
"""Parameter of a model: ``tower_digest`` of what it runs."""
BUNDLE = "robustzs_bundle"
"""Parameter of a model: the digest of the bundle that it was written from; for people."""
PRECISION = "robustzs_precision"
"""Parameter of a model: the variant of the encoder; for people."""
BYTES = "bytes"
INPUTS: dict[Tower, str] = {"image": "pixels", "text": "token_ids"}
OUTPUTS: dict[Tower, str] = {"image": "image_features", "text": "text_features"}


class BundleLike(Protocol):
    """What is needed of ``robustzs.bundle.Bundle``."""

    @property
    def manifest(self) -> BundleManifest:
        """Its record."""
        ...

    def file(self, name: str, /) -> Path:
        """Path of one recorded file."""
        ...


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model, its batch axis left out.

    Attributes:
        name: in the model.
        kind: Triton's name of the type, such as ``FP32``.
        dims: -1 where any length is taken.
    """

    name: str
    kind: Literal["FP32", "INT64", "UINT8"]
    dims: tuple[int, ...]


def model_name(bundle_name: str, part: Part) -> str:
    """The name of a model on the server."""
    return f"{bundle_name}_{part}"


def model_version(digest: str) -> int:
    """The version of a model with this ``tower_digest``: above 0, below 2**31."""
    return int(digest[:7], 16) + 1


def tower_tensors(manifest: BundleManifest, tower: Tower) -> tuple[Tensor, Tensor]:
    """Input and output of an encoder."""
    output = Tensor(OUTPUTS[tower], "FP32", (manifest.embed_dim,))
    if tower == "image":
        return Tensor(INPUTS[tower], "FP32", (3, *manifest.preprocess.image_size)), output
    length = manifest.tokenizer.context_length if manifest.tokenizer.fixed_length else -1
    return Tensor(INPUTS[tower], "INT64", (length,)), output


def byte_tensor(manifest: BundleManifest) -> Tensor:
    """Input of the ensemble, and of the model that divides."""
    return Tensor(BYTES, "UINT8", (3, *manifest.preprocess.image_size))


def encoders(manifest: BundleManifest, tower: Tower) -> Mapping[Precision, str]:
    """The files of an encoder, by precision."""
    return manifest.image_encoders if tower == "image" else manifest.text_encoders


def encoder_files(bundle: BundleLike, name: str) -> tuple[str, ...]:
    """An ONNX file of a bundle and the files with its external data, which it comes first of."""
    sizes = {file: record.size for file, record in bundle.manifest.files.items()}
    summary = check_onnx(bundle.file(name), sizes, name=name)
    return (name, *sorted(summary.external_files - {name}))


def tower_digest(bundle: BundleLike, name: str) -> str:
    """sha256 over the recorded digests of an encoder's files: the weights, and nothing else.

    The bundle's own digest would change with its card and refuse the same weights.
    """
    total = hashlib.sha256()
    for file in encoder_files(bundle, name):
        record = bundle.manifest.files[file]
        total.update(f"{record.sha256} {record.size}\n".encode())
    return total.hexdigest()
