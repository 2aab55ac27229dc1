"""The ONNX encoders of a bundle: exported, proven, and written in further precisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustzs.bundle.manifest import Geometry, Precision
from robustzs.bundle.writer import BundleWriter
from robustzs_training.export.onnx_export import OnnxOptions, export_image_tower, export_text_tower
from robustzs_training.export.parity import (
    Encoder,
    ParityReport,
    Probes,
    open_session,
    probe_pixels,
    prove_image_tower,
    prove_image_variant,
    prove_logits,
    prove_text_tower,
    prove_variant,
)
from robustzs_training.export.tokenizers import TokenizerFile
from robustzs_training.export.towers import ImageTower, TextTower

IMAGE_ENCODER = "image_encoder.onnx"
TEXT_ENCODER = "text_encoder.onnx"
PROBE_PROMPTS = [
    "a photo of a cat.",
    "dog",
    "a sketch of the great grey owl, a large bird of the northern forests",
    "itap of my 3 teapots!",
    "a working dog, a type of domestic animal, seen from behind on a snowy hillside at night",
]

Quantiser = Callable[[Path, Path], None]
"""Reads a float32 graph, writes the graph of another precision."""


@dataclass(frozen=True, kw_only=True)
class TextPrecisions:
    """The text encoders that a bundle carries.

    Attributes:
        quantisers: Further precisions, each made from the float32 graph.
        default: The one that is used unless another is asked for.
        keep_fp32: Whether the float32 graph is shipped, too.
    """

    quantisers: Mapping[Precision, Quantiser]
    default: Precision = "fp32"
    keep_fp32: bool = True


@dataclass(frozen=True, kw_only=True)
class ImagePrecisions:
    """The image encoders that a bundle carries; float32 is always one of them.

    Attributes:
        quantisers: Further precisions, each made from the float32 graph.
        probes: float32 ``[n, 3, H, W]`` in [0, 1]: pictures as the model sees them that no
            quantiser has seen; the further precisions are held against float32 on them.
        default: The one that is used unless another is asked for.
    """

    quantisers: Mapping[Precision, Quantiser]
    probes: npt.NDArray[np.float32]
    default: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """What was written.

    Attributes:
        image: Precision -> file name.
        text: Likewise.
        parity: What the proofs found.
    """

    image: Mapping[Precision, str]
    text: Mapping[Precision, str]
    parity: ParityReport


def write_encoders(
    writer: BundleWriter,
    towers: tuple[ImageTower, TextTower],
    tokenizer: TokenizerFile,
    *,
    image_size: tuple[int, int],
    geometry: Geometry,
    options: OnnxOptions,
    image_precisions: ImagePrecisions | None = None,
    text_precisions: TextPrecisions | None = None,
) -> Encoders:
    """Export both towers, prove them against torch, and make the further precisions.

    Raises:
        ExportError: A tower cannot be traced, or a quantiser refuses its graph.
        ExportParityError: A graph differs from what it was made from.
    """
    config = tokenizer.config
    probes = Probes(
        pixels=probe_pixels(image_size),
        token_ids=np.ascontiguousarray(tokenizer.reference(PROBE_PROMPTS), dtype=np.int64),
        pad_id=config.pad_id,
        fixed_length=config.fixed_length,
    )
    image_path, text_path = writer.path_for(IMAGE_ENCODER), writer.path_for(TEXT_ENCODER)
    export_image_tower(towers[0], image_path, image_size=image_size, options=options)
    encode_image = open_session(image_path)
    image_raw, image_normalised = prove_image_tower(towers[0], encode_image, probes)
    text_files = export_text_tower(
        towers[1],
        text_path,
        context_length=config.context_length,
        fixed_length=config.fixed_length,
        options=options,
    )
    encode_text = open_session(text_path)
    text_raw, text_normalised = prove_text_tower(towers[1], encode_text, probes)
    similarity = prove_logits(towers, (encode_image, encode_text), probes, geometry)
    images = image_precisions or ImagePrecisions(quantisers={}, probes=probes.pixels)
    texts = text_precisions or TextPrecisions(quantisers={})
    image, image_variants = _variants(
        writer,
        IMAGE_ENCODER,
        images.quantisers,
        lambda name, encode: prove_image_variant(name, encode, encode_image, images.probes),
    )
    text, variants = _variants(
        writer,
        TEXT_ENCODER,
        texts.quantisers,
        lambda name, encode: prove_variant(name, encode, encode_text, probes),
    )
    if not texts.keep_fp32:
        del text["fp32"]
        for path in text_files:
            path.unlink()
    parity = ParityReport(
        image_raw=image_raw,
        image_normalised=image_normalised,
        text_raw=text_raw,
        text_normalised=text_normalised,
        similarity=similarity,
        variants=variants,
        image_variants=image_variants,
    )
    return Encoders(image=image, text=text, parity=parity)


def _variants(
    writer: BundleWriter,
    exact: str,
    quantisers: Mapping[Precision, Quantiser],
    prove: Callable[[Precision, Encoder], float],
) -> tuple[dict[Precision, str], tuple[tuple[str, float], ...]]:
    """Files of a tower by precision, and how near the further ones are to float32."""
    files: dict[Precision, str] = {"fp32": exact}
    cosines = []
    for precision, quantise in sorted(quantisers.items()):
        name = f"{exact.removesuffix('.onnx')}.{precision}.onnx"
        quantise(writer.path_for(exact), writer.path_for(name))
        cosines.append((precision, prove(precision, open_session(writer.path_for(name)))))
        files[precision] = name
    return files, tuple(cosines)
