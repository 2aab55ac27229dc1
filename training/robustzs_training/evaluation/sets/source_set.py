"""Any source of examples as an evaluation set: a fixed subset, read in parts, with a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from robustzs.errors import DataError, ImageError, TooManyBadSamplesError
from robustzs.images.config import PreprocessConfig
from robustzs.images.preprocess import preprocess
from robustzs.labels import LabelSet
from robustzs_training.data.base import Keyed, SampleSource
from robustzs_training.evaluation.sets.draws import Draw
from robustzs_training.evaluation.sets.truths import Truths

Resolution = Literal["model", "native"]

MAX_UNREADABLE = 0.01
_SHOWN = 20


@runtime_checkable
class Encoded(Protocol):
    """A source that gives a picture's file as it is, without decoding it."""

    def encoded(self, index: int) -> bytes:
        """The file's bytes.

        Raises:
            ImageError: It cannot be read.
        """


class SourceSet:
    """Pictures of a source with what is right for each: an ``EvaluationSet``.

    All pictures are read once when it is made: those that cannot be used are left out and told,
    rather than met in the middle of a long attack.

    Args:
        source: Of pictures.
        truths: What is right for them.
        name: For tables and cards.
        preprocess: How a picture becomes pixels.
        draw: Which of the pictures that count are taken.
        resolution: ``native``: pixels are the picture's own, all of one size, and the resize to the
            model's input is a part of the victim (:func:`resize_inside`).
        about: For the description.

    Raises:
        TooManyBadSamplesError: More than one percent of the pictures cannot be read.
        DataError: Native pixels of several sizes, or larger than the model's input.
    """

    def __init__(
        self,
        source: SampleSource,
        truths: Truths,
        *,
        name: str,
        preprocess: PreprocessConfig,
        draw: Draw | None = None,
        resolution: Resolution = "model",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._name = name
        self._source = source
        self._labels = truths.labels
        self._draw = Draw() if draw is None else draw
        self._n_available = len(truths.rows)
        rows = self._draw.rows(truths.rows, source)
        survey = _Survey(source, native=resolution == "native")
        self._rows = rows[survey.usable(rows)]
        self._hashes = survey.hashes
        self._preprocess = preprocess
        self._inside: tuple[int, int] | None = None
        if resolution == "native" and survey.size is not None:
            _check_enlarged(survey.size, preprocess.image_size)
            self._inside = preprocess.image_size
            self._preprocess = PreprocessConfig(image_size=survey.size)
        self._keys = tuple(survey.keys)
        codes = truths.codes[self._rows]
        self._right = truths.right[codes]
        self._right.flags.writeable = False
        self._truth = tuple(truths.truth[code] for code in codes.tolist())
        self._about = {**(about or {}), **truths.report, **survey.report}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def name(self) -> str:
        """For tables and cards."""
        return self._name

    @property
    def keys(self) -> Sequence[str]:
        """Names of the pictures."""
        return self._keys

    @property
    def labels(self) -> LabelSet:
        """What to choose from."""
        return self._labels

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Bool ``[n, C]``, read-only; every row has at least one."""
        return self._right

    @property
    def truth(self) -> Sequence[str]:
        """What each picture shows: a label's id or a wnid."""
        return self._truth

    @property
    def n_available(self) -> int:
        """Pictures that the subset was drawn from: those that some label is right for."""
        return self._n_available

    @property
    def inside_resize(self) -> tuple[int, int] | None:
        """The model's input where pixels are native: wrap the victim by :func:`resize_inside`."""
        return self._inside

    @cached_property
    def digest(self) -> str:
        """Over names, truths, labels and the pictures' bytes; not over how they are resized."""
        total = hashlib.sha256(self._labels.digest.encode())
        for key, truth, right, picture in zip(
            self._keys, self._truth, np.packbits(self._right, axis=1), self._hashes, strict=True
        ):
            total.update(f"{key}\0{truth}\0".encode("utf-8", "surrogateescape"))
            total.update(right.tobytes())
            total.update(picture)
        return total.hexdigest()

    @property
    def description(self) -> Mapping[str, Any]:
        """For the card; JSON values."""
        height, width = self._preprocess.image_size
        native = self._inside is not None
        drawn = {
            "n": len(self),
            "n_available": self._n_available,
            "seed": self._draw.seed,
            "sampling": self._draw.sampling if len(self) < self._n_available else "all",
        }
        pixels: dict[str, Any] = {
            "resolution": "native" if native else "model",
            "perturbed": "native pixels, before the resize"
            if native
            else "model input, after the resize",
            "image_size": [height, width],
        }
        if self._inside is not None:
            pixels["inside_resize"] = {"size": list(self._inside), "interpolation": "bicubic"}
        else:
            pixels["preprocess"] = self._preprocess.model_dump(mode="json")
        return {**self._about, **drawn, **pixels, "n_labels": len(self._labels)}

    def pixels(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """float32 ``[len(rows), 3, H, W]`` in [0, 1].

        Raises:
            DataError: A picture can no longer be read.
        """
        height, width = self._preprocess.image_size
        pixels = torch.empty(len(rows), 3, height, width)
        for place, row in enumerate(np.asarray(rows).tolist()):
            try:
                image = self._source.read(int(self._rows[row])).image
                pixels[place] = torch.from_numpy(preprocess(image, self._preprocess))
            except ImageError as error:
                raise DataError(
                    f"the picture {self._keys[row]!r} cannot be used: {error.message}",
                    hint="it could be read when the run began; put it back and go on",
                ) from error
        return pixels


def _check_enlarged(size: tuple[int, int], inside: tuple[int, int]) -> None:
    """Made smaller inside the victim, pictures would not be those that the deployed model sees."""
    if size[0] > inside[0] or size[1] > inside[1]:
        raise DataError(
            f"the pictures have {size[1]} x {size[0]} pixels, the model's input "
            f"{inside[1]} x {inside[0]}: the resize inside an attack only enlarges",
            hint="attack the model's input: resolution=model",
        )


class _Survey:
    """What there is to know of pictures once each has been read."""

    def __init__(self, source: SampleSource, *, native: bool) -> None:
        self._source = source
        self._native = native
        self.keys: list[str] = []
        self.hashes: list[bytes] = []
        self.size: tuple[int, int] | None = None
        self.report: dict[str, Any] = {}

    def usable(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of the pictures can be read: bool ``[len(rows)]``."""
        mask = np.ones(len(rows), dtype=bool)
        problems: dict[str, str] = {}
        for place, row in enumerate(rows.tolist()):
            try:
                self._look(row)
            except ImageError as error:
                mask[place] = False
                problems[self._key(row)] = error.message
        if len(problems) > MAX_UNREADABLE * len(rows):
            shown = "; ".join(f"{key!r}: {text}" for key, text in list(problems.items())[:_SHOWN])
            raise TooManyBadSamplesError(
                f"{len(problems)} of {len(rows)} pictures cannot be read: {shown}",
                hint="repair or remove them",
            )
        if problems:
            self.report["unreadable"] = problems
        return mask

    def _look(self, row: int) -> None:
        sample = self._source.read(row)
        size = (sample.image.height, sample.image.width)
        if self._native:
            if self.size is not None and size != self.size:
                raise DataError(
                    f"the picture {sample.key!r} has {size[1]} x {size[0]} pixels, others "
                    f"{self.size[1]} x {self.size[0]}: attacks on native pixels need one size",
                    hint="attack the model's input: resolution=model",
                )
            self.size = size
        total = hashlib.sha256()
        if isinstance(self._source, Encoded):
            total.update(self._source.encoded(row))
        else:
            total.update(f"{size[0]} {size[1]}\n".encode())
            total.update(sample.image.tobytes())
        self.keys.append(sample.key)
        self.hashes.append(total.digest())

    def _key(self, row: int) -> str:
        if isinstance(self._source, Keyed):
            return self._source.key_of(row)
        return str(row)


def classes_of(source: SampleSource, origin: str) -> tuple[LabelSet, npt.NDArray[np.int64]]:
    """A source's classes, and that of each example: int64 ``[n]``.

    Raises:
        DataError: It has none.
    """
    if source.labels is None or source.label_of is None:
        raise DataError(
            f"the pictures of {origin} have no labels, so nothing can be right or wrong",
            hint="sort them into one folder for each class, or write a CSV with path,label",
        )
    return source.labels, source.label_of.numpy().astype(np.int64)
