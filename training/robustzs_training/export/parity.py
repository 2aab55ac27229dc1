"""The proof that exported graphs give what torch gives.

Compared at batches of 1, 2 and 5: raw features within 1e-5 of the largest reference value,
normalised features within 1e-5, and the similarities behind the zero-shot logits within 1e-5 (so
logits within ``logit_scale * 1e-5``). Every graph passes the onnx checker and is opened by
onnxruntime as a bundle's user would open it. Before that, nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustzs.bundle.manifest import Geometry
from robustzs.errors import ExportParityError
from robustzs.scoring import class_features, normalize, similarities
from robustzs_training.export.towers import ImageTower, TextTower
from robustzs_training.noise import quiet_libraries

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
Encoder = Callable[[npt.NDArray[np.generic]], Float32Array]

BATCHES = (1, 2, 5)
TOLERANCE = 1e-5
MIN_VARIANT_COSINE = 0.999
MIN_IMAGE_COSINE = 0.9
MIN_MEAN_IMAGE_COSINE = 0.97


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """The largest differences found; every one is at most `TOLERANCE`.

    Attributes:
        image_raw: Raw image features, relative to the largest reference value.
        image_normalised: L2-normalised image features, absolute.
        text_raw: Raw text features, relative.
        text_normalised: L2-normalised text features, absolute.
        similarity: Image-text similarities, absolute; logits differ by ``logit_scale`` times it.
        variants: Smallest cosine of each further text precision to the float32 features.
        image_variants: Likewise of each further image precision, on pictures.
    """

    image_raw: float
    image_normalised: float
    text_raw: float
    text_normalised: float
    similarity: float
    variants: tuple[tuple[str, float], ...] = ()
    image_variants: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Probes:
    """What both sides are asked to encode.

    Attributes:
        pixels: ``[5, 3, H, W]`` in [0, 1].
        token_ids: ``[5, context_length]``, padded with ``pad_id``.
        pad_id: Token id of the padding.
        fixed_length: Whether the text graph takes exactly ``context_length`` tokens.
    """

    pixels: Float32Array
    token_ids: Int64Array
    pad_id: int
    fixed_length: bool

    def text_batches(self) -> list[Int64Array]:
        """Batches of 1, 2 and 5 prompts; where the length is free, also cut to their longest."""
        batches = []
        for size in BATCHES:
            batch = self.token_ids[-size:]
            batches.append(batch)
            if not self.fixed_length:
                longest = int((batch != self.pad_id).sum(axis=1).max())
                batches.append(np.ascontiguousarray(batch[:, :longest]))
        return batches


def probe_pixels(image_size: tuple[int, int], seed: int = 0) -> Float32Array:
    """Five deterministic pictures ``[5, 3, H, W]``: noise, black, white, a ramp, soft noise."""
    height, width = image_size
    generator = np.random.default_rng(seed)
    pixels = generator.random((5, 3, height, width), dtype=np.float32)
    pixels[1], pixels[2] = 0.0, 1.0
    pixels[3] = np.linspace(0.0, 1.0, width, dtype=np.float32)
    pixels[4] = 0.5 + 0.1 * (pixels[4] - 0.5)
    return pixels


def open_session(path: Path) -> Encoder:
    """Check a graph and open it with onnxruntime on the CPU; returns ``array -> features``.

    Raises:
        ExportParityError: the onnx checker or onnxruntime refuses the file.
    """
    import onnx

    from robustzs.backends.onnx import load_onnxruntime

    ort = load_onnxruntime()
    try:
        # By path: a model beyond 2 GiB cannot be handed over as one message.
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportParityError(f"{path.name}: the onnx checker refuses it: {error}") from error
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ExportParityError(f"{path.name}: onnxruntime cannot open it: {error}") from error
    name = session.get_inputs()[0].name

    def encode(array: npt.NDArray[np.generic]) -> Float32Array:
        try:
            features: Float32Array = session.run(None, {name: array})[0]
        except Exception as error:  # onnxruntime's own errors share no base class
            raise ExportParityError(f"{path.name}: onnxruntime fails on it: {error}") from error
        return features

    return encode


def prove_image_tower(tower: ImageTower, encode: Encoder, probes: Probes) -> tuple[float, float]:
    """Compare the image tower with its graph; returns the raw and the normalised difference.

    Raises:
        ExportParityError: they differ by more than `TOLERANCE`.
    """
    batches = [np.ascontiguousarray(probes.pixels[:size]) for size in BATCHES]
    return _compare("image", tower, encode, batches)


def prove_text_tower(tower: TextTower, encode: Encoder, probes: Probes) -> tuple[float, float]:
    """Compare the text tower with its graph; returns the raw and the normalised difference.

    Raises:
        ExportParityError: they differ by more than `TOLERANCE`, or padding changes a feature.
    """
    differences = _compare("text", tower, encode, probes.text_batches())
    if not probes.fixed_length:
        prove_padding_is_inert("text", encode, probes)
    return differences


def prove_padding_is_inert(name: str, encode: Encoder, probes: Probes) -> None:
    """Hold that a prompt alone, unpadded, has the features it has among longer ones.

    Raises:
        ExportParityError: it has others.
    """
    together = encode(probes.token_ids)
    for row, expected in zip(probes.token_ids, together, strict=True):
        length = int((row != probes.pad_id).sum())
        alone = encode(np.ascontiguousarray(row[None, :length]))[0]
        _require(f"{name}: a prompt alone against padded", _relative(alone, expected))


def prove_logits(
    towers: tuple[ImageTower, TextTower],
    encoders: tuple[Encoder, Encoder],
    probes: Probes,
    geometry: Geometry,
) -> float:
    """Compare zero-shot similarities of five pictures and five prompts; returns the difference.

    Raises:
        ExportParityError: they differ by more than `TOLERANCE`.
    """
    found, expected = (
        similarities(image, class_features(text[:, None, :], geometry), geometry)
        for image, text in (
            (encoders[0](probes.pixels), encoders[1](probes.token_ids)),
            (torch_features(towers[0], probes.pixels), torch_features(towers[1], probes.token_ids)),
        )
    )
    difference = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
    return _require("zero-shot logits, in units of logit_scale", difference)


def prove_variant(precision: str, encode: Encoder, reference: Encoder, probes: Probes) -> float:
    """Hold a quantised text graph to the float32 one; returns the smallest cosine.

    Raises:
        ExportParityError: a cosine is below `MIN_VARIANT_COSINE`, or a prompt's features depend on
            the rest of its batch (as those of dynamic quantisation do).
    """
    expected = normalize(reference(probes.token_ids))
    together = encode(probes.token_ids)
    cosine = float((normalize(together) * expected).sum(axis=1).min())
    if not cosine >= MIN_VARIANT_COSINE:
        raise ExportParityError(
            f"text encoder in {precision}: cosine {cosine:.5f} to float32 is below "
            f"{MIN_VARIANT_COSINE}",
            hint="quantise less, or per channel",
        )
    for index in range(len(together)):
        alone = encode(np.ascontiguousarray(probes.token_ids[index : index + 1]))[0]
        _require(
            f"text encoder in {precision}: alone or in a batch", _relative(alone, together[index])
        )
    if not probes.fixed_length:
        prove_padding_is_inert(f"text encoder in {precision}", encode, probes)
    return cosine


def prove_image_variant(
    precision: str, encode: Encoder, reference: Encoder, pixels: Float32Array
) -> float:
    """Hold a quantised image graph to the float32 one; returns the smallest cosine.

    Args:
        precision: Its name, for messages.
        encode: The quantised graph.
        reference: The float32 graph.
        pixels: Pictures ``[n, 3, H, W]`` in [0, 1] that the quantiser has not seen.

    Raises:
        ExportParityError: a cosine is below `MIN_IMAGE_COSINE`, their mean is below
            `MIN_MEAN_IMAGE_COSINE`, or a picture's features depend on the rest of its batch (as
            those of dynamic quantisation do).
    """
    together = np.concatenate([encode(batch) for batch in _batches(pixels)])
    expected = np.concatenate([reference(batch) for batch in _batches(pixels)])
    cosines = (normalize(together) * normalize(expected)).sum(axis=1)
    least, mean = float(cosines.min()), float(cosines.mean())
    if not (least >= MIN_IMAGE_COSINE and mean >= MIN_MEAN_IMAGE_COSINE):  # also when it is NaN
        raise ExportParityError(
            f"image encoder in {precision}: the cosine to float32 on {len(pixels)} pictures is "
            f"{least:.3f} at least and {mean:.3f} on average, allowed are {MIN_IMAGE_COSINE} and "
            f"{MIN_MEAN_IMAGE_COSINE}",
            hint="calibrate on more pictures of the kind that will be classified, or ship fp32",
        )
    for index in range(min(len(pixels), max(BATCHES))):
        alone = encode(np.ascontiguousarray(pixels[index : index + 1]))[0]
        _require(
            f"image encoder in {precision}: alone or in a batch", _relative(alone, together[index])
        )
    return least


def _batches(pixels: Float32Array) -> list[Float32Array]:
    size = max(BATCHES)
    return [np.ascontiguousarray(pixels[i : i + size]) for i in range(0, len(pixels), size)]


def torch_features(tower: nn.Module, array: npt.NDArray[np.generic]) -> Float32Array:
    """Raw features by torch, float32."""
    with torch.no_grad(), quiet_libraries():
        features: Float32Array = tower(torch.from_numpy(array)).float().numpy()
    return features


def _compare(
    name: str, tower: nn.Module, encode: Encoder, batches: Sequence[npt.NDArray[np.generic]]
) -> tuple[float, float]:
    raw, normalised = 0.0, 0.0
    for batch in batches:
        expected, found = torch_features(tower, batch), encode(batch)
        if found.shape != expected.shape or found.dtype != np.float32:
            raise ExportParityError(
                f"{name} encoder: {found.dtype} {list(found.shape)} for a batch of {len(batch)}, "
                f"torch gives float32 {list(expected.shape)}"
            )
        raw = max(raw, _relative(found, expected))
        difference = np.abs(normalize(found) - normalize(expected)).max()
        normalised = max(normalised, float(difference))
        _require(f"{name} encoder, raw features, batch {len(batch)}", raw)
        _require(f"{name} encoder, normalised features, batch {len(batch)}", normalised)
    return raw, normalised


def _relative(found: Float32Array, expected: Float32Array) -> float:
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return float("nan")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _require(what: str, difference: float) -> float:
    if not difference <= TOLERANCE:  # also when it is NaN
        raise ExportParityError(
            f"the exported graph differs from torch: {what}: {difference:.2e}, allowed is "
            f"{TOLERANCE:.0e}",
            hint="nothing was written; another --opset may be translated more faithfully",
        )
    return difference
