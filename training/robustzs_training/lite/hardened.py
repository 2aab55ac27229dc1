"""robustzs-lite-hardened, from what ``robustzs train --recipe robustzs-lite`` left.

Gives features the moments of the clean model's, rounds the image tower to float16, calibrates on
the held-out photographs by the rules of robustzs-lite-clean, and exports float32 and int8 image
graphs. The text tower is the clean model's. ``make lite-hardened`` is the whole of it, from the
pictures to the card. Works in a checkout only, like
:mod:`robustzs_training.lite.build`.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer

from robustzs.bundle.manifest import BundleManifest, LicenceRecord, Threshold
from robustzs_training.backbones import MINILM
from robustzs_training.export.calibration_pictures import read_calibration_folder
from robustzs_training.export.quantize_image import int8_image_precisions
from robustzs_training.export.sources import SourceModel, SourceRequest, load_source
from robustzs_training.lite.bundle import BUNDLE_NAME as CLEAN_NAME
from robustzs_training.lite.bundle import TEXT_PREFIX, shipped_text_encoder, trained_tensors
from robustzs_training.lite.calibrate import fit_temperature
from robustzs_training.lite.joint_space import Array, unit
from robustzs_training.lite.measure import TEMPLATES, Calibration, text_features, thresholds
from robustzs_training.lite.nouns import load_imagenet_classes
from robustzs_training.lite.photographs import PREPROCESS, Photographs, load_photographs, top1

_LOGGER = logging.getLogger(__name__)
BUNDLE_NAME = "robustzs-lite-hardened"
_N_MOMENTS = 512
_THETA_RULE = (
    "largest theta with at most 8% of answers above depth 4 and mean specificity of at least 0.55"
)
DESCRIPTION = (
    "robustzs-lite-clean with its image tower hardened: an attacker who changes pixels by 1/255 "
    "breaks far fewer answers, for some clean accuracy. The card says how many, under which attack."
)
PICTURES = LicenceRecord(
    name="CC-BY-SA-4.0",
    covers="pictures that the image tower was hardened on (OpenMoji, gemojione, photographs of "
    "Debian's wallpapers and endless-sky-data, and others under OFL-1.1, CC-BY-3.0, "
    "GPL-2.0-or-later, GPL-3.0-or-later and in the public domain): "
    "robustzs_training.lite.training_pictures and docs/study/data-card.md",
)


@torch.no_grad()
def match_moments(model: Any, original: Any, inputs: torch.Tensor) -> float:
    """Give image features the mean and the spread of the original's, by the head's weights alone.

    What an attack can move, the loss pulls towards the mean. The spread of features shrinks by that
    and their mean does not, so that cosines with texts lean to what the mean is near to.

    Args:
        model: What trained; its head ``visual.head.proj`` is changed in place.
        original: What it started from.
        inputs: Normalised pictures ``[n, 3, H, W]`` that it was trained on, unaugmented.

    Returns:
        What features were multiplied by, about their mean.
    """
    found, wanted = (_mean_and_spread(each, inputs) for each in (model, original))
    factor = wanted[1] / found[1]
    head = model.get_submodule("visual.head.proj")
    head.weight.mul_(factor)
    head.bias.sub_(found[0]).mul_(factor).add_(wanted[0])
    return float(factor)


def _mean_and_spread(model: Any, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.cat([model.encode_image(part) for part in inputs.split(16)])
    mean = features.mean(0)
    return mean, (features - mean).norm(dim=1).mean()


@torch.no_grad()
def round_to_half(model: torch.nn.Module) -> None:
    """Round what trained to what float16 holds, so that half the bytes keep all of it.

    Statistics of BatchNorm stay as they are: they never moved.
    """
    for parameter in model.get_submodule("visual").parameters():
        parameter.copy_(parameter.half())


def calibrate(model: Any, manifest: BundleManifest) -> tuple[Calibration, dict[str, Any]]:
    """Temperature and thresholds on the held-out photographs, and what they give there."""
    classes = load_imagenet_classes()
    wnids = [row.wnid for row in classes]
    with TemporaryDirectory() as folder:
        encode = shipped_text_encoder(model, Path(folder))
        texts = text_features(encode, [row.prompt for row in classes], TEMPLATES)
    photos = load_photographs(wnids)
    cosines = unit(_image_features(model, photos, manifest)) @ texts.T
    scale = manifest.logit_scale
    scorable = photos.scorable
    temperature = fit_temperature(scale * cosines[scorable], photos.right[scorable])
    calibration, stops = thresholds(scale * cosines, scale, temperature, cosines, photos, wnids)
    return calibration, {
        "n": len(scorable),
        "n_scorable": int(scorable.sum()),
        "top1": top1(cosines[scorable], photos.right[scorable]),
        "stops": stops,
    }


@torch.no_grad()
def _image_features(model: Any, photos: Photographs, manifest: BundleManifest) -> Array:
    batches = torch.from_numpy(photos.pixels).split(16)
    found = [model.encode_image(_normalised(pixels, manifest)) for pixels in batches]
    return np.asarray(torch.cat(found).double().numpy())


def _normalised(pixels: torch.Tensor, manifest: BundleManifest) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (manifest.mean, manifest.std))
    return (pixels - mean) / std


def write_hardened(
    source: SourceModel,
    calibration: Calibration,
    found: dict[str, Any],
    pictures: Path,
    output: Path,
) -> Path:
    """Export the bundle, proven against torch; returns its folder.

    Args:
        source: The rounded model.
        calibration: Scales and thresholds.
        found: What they gave, for the record.
        pictures: Folder that the int8 image graph is calibrated on; not held-out ones.
        output: The folder.
    """
    from robustzs_training.export.bundle import (
        BundleFacts,
        TextPrecisions,
        export_open_clip_model,
    )
    from robustzs_training.lite.quantize import quantize_text_encoder

    manifest = _manifest(source)
    on = f"{found['n']} named held-out photographs"
    facts = BundleFacts(
        name=BUNDLE_NAME,
        description=DESCRIPTION,
        source=manifest.source,
        preprocess=PREPROCESS,
        mean=source.mean,
        std=source.std,
        licences=(*manifest.licences, PICTURES),
        templates=TEMPLATES,
        temperature=calibration.temperature,
        training={**(manifest.training or {}), "calibration": found},
        theta=Threshold(value=calibration.theta, source=f"{on}: {_THETA_RULE}"),
        low_confidence=Threshold(
            value=calibration.low_confidence,
            source=f"{found['n_scorable']} held-out photographs that an ImageNet class can be "
            "right for: answers below it are at best as often right as wrong",
        ),
        rejection=Threshold(value=calibration.rejection, source=f"{on}: 95% of them are kept"),
    )
    result = export_open_clip_model(
        source.model,
        config=source.config,
        tokenizer=source.tokenizer,
        facts=facts,
        output=output,
        weights=trained_tensors(source.model),
        backbones=[MINILM.record(TEXT_PREFIX)],
        image_precisions=int8_image_precisions(read_calibration_folder(pictures, PREPROCESS)),
        text_precisions=TextPrecisions(
            quantisers={"int8": quantize_text_encoder}, default="int8", keep_fp32=False
        ),
        force=True,
    )
    return result.bundle.path


def _manifest(source: SourceModel) -> BundleManifest:
    if source.manifest is None:
        raise typer.BadParameter("is no bundle: give what `robustzs train` left")
    return source.manifest


def main(
    trained: Annotated[Path, typer.Option(help="What `robustzs train` left.")],
    pictures: Annotated[Path, typer.Option(help="Pictures that it was trained on.")],
    output: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    threads: Annotated[int, typer.Option(min=1, help="For torch.")] = 2,
) -> None:
    """Calibrate and export robustzs-lite-hardened."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    source = load_source(SourceRequest(model=str(trained)))
    original = load_source(SourceRequest(model=CLEAN_NAME)).model
    inputs = torch.from_numpy(read_calibration_folder(pictures, PREPROCESS, n=_N_MOMENTS))
    factor = match_moments(source.model, original, _normalised(inputs, _manifest(source)))
    round_to_half(source.model)
    calibration, found = calibrate(source.model, _manifest(source))
    found["spread_factor"] = round(factor, 4)
    _LOGGER.info("%s, %s", dataclasses.asdict(calibration), found["top1"])
    typer.echo(write_hardened(source, calibration, found, pictures, output))


if __name__ == "__main__":
    typer.run(main)
