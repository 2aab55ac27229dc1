"""Text features of all captions of a data set, kept on disk: the text tower never trains.

One float32 row for each distinct caption, in one ``.npy`` file that is mapped into memory, named by
the sha256 of the text tower, its tokens and the captions. The first process of each machine writes
it; a file of that name is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustzs.errors import PreflightError, TrainingError
from robustzs_training.adapter import ClipAdapter
from robustzs_training.data.base import SampleSource

Tokenize = Callable[[list[str]], Any]
Report = Callable[[int, int], None]
_CHUNK = 256
_WAIT_SECONDS = 0.5
_PATIENCE_SECONDS = 6 * 3600.0


@dataclass(frozen=True, kw_only=True, eq=False)
class CaptionFeatures:
    """Raw features by example.

    Attributes:
        features: float32 ``[n_captions, D]``, mapped into memory.
        rows: int64 ``[n]``: the row of each example's caption.
        path: The file.
    """

    features: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    path: Path

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        """Features ``[B, D]`` of examples, by their places in the source: int64 ``[B]``."""
        return torch.from_numpy(self.features[self.rows[indices.cpu().numpy()]])


def distinct_captions(source: SampleSource) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Captions without repeats, and the place of each example's among them.

    An example without a caption has the empty one.
    """
    places: dict[str, int] = {}
    rows = np.fromiter(
        (
            places.setdefault(source.caption_of(index) or "", len(places))
            for index in range(len(source))
        ),
        dtype=np.int64,
        count=len(source),
    )
    return list(places), rows


def caption_features(
    model: ClipAdapter,
    tokenizer: Tokenize,
    source: SampleSource,
    folder: Path,
    *,
    report: Report | None = None,
) -> CaptionFeatures:
    """Encode every distinct caption once, or find that this was done.

    Args:
        model: As it is before training; encoded on its device in float32.
        tokenizer: The model's.
        source: Every example's caption is encoded; one without a caption has the empty one.
        folder: Where the file is kept, and looked for.
        report: Told of captions done, and of how many.

    Raises:
        PreflightError: No space for the file, or no permission.
        TrainingError: The process that writes the file did not finish.
    """
    captions, rows = distinct_captions(source)
    path = folder / f"{_digest(model, tokenizer, captions)}.npy"
    if not path.is_file():
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            _write(path, model, tokenizer, captions, report)
        else:
            _wait_for(path)
    features: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return CaptionFeatures(features=features, rows=rows, path=path)


def _digest(model: ClipAdapter, tokenizer: Tokenize, captions: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name, child in model.model.named_children():
        if name != "visual":
            digest.update(f"{name}: {child!r}".encode())  # activations are in its text
    for name, tensor in model.model.state_dict().items():
        if not name.startswith("visual."):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    digest.update(np.asarray(tokenizer([*captions[:4], ""])).tobytes())
    for caption in captions:
        encoded = caption.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def _write(
    path: Path,
    model: ClipAdapter,
    tokenizer: Tokenize,
    captions: Sequence[str],
    report: Report | None,
) -> None:
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".captions-", suffix=".npy", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        kept: np.memmap[Any, np.dtype[np.float32]] | None = None
        done = 0
        for places, found in _encode(model, tokenizer, captions):
            if kept is None:
                _check_space(path.parent, len(captions) * found.shape[1] * 4)
                shape = (len(captions), found.shape[1])
                kept = np.lib.format.open_memmap(temporary, "w+", dtype=np.float32, shape=shape)
            kept[places] = found
            done += len(places)
            if report is not None:
                report(done, len(captions))
        if kept is not None:
            kept.flush()
        os.replace(temporary, path)
    except OSError as error:
        raise PreflightError(
            f"features of {len(captions)} captions cannot be kept in {path.parent}: "
            f"{error.strerror or error}",
            hint="free disk space, or name another folder by ROBUSTZS_CACHE",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@torch.no_grad()
def _encode(
    model: ClipAdapter, tokenizer: Tokenize, captions: Sequence[str]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    device = next(model.parameters()).device
    # Of about one length together: what is cut off behind the longest is not computed.
    order = np.argsort([len(caption) for caption in captions], kind="stable")
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), _CHUNK):
            places = order[start : start + _CHUNK]
            ids = torch.as_tensor(tokenizer([captions[place] for place in places])).to(device)
            with torch.autocast(device.type, enabled=False):
                yield places, model.text_features(model.trim(ids)).float().cpu().numpy()
    finally:
        model.train(was_training)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.02:
        raise PreflightError(
            f"features of captions take {needed / 1e9:.2f} GB, and {folder} has "
            f"{free / 1e9:.2f} GB left",
            hint="free disk space, or name another folder by ROBUSTZS_CACHE",
        )


def _wait_for(path: Path) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not path.is_file():
        if time.monotonic() > end:
            raise TrainingError(
                f"the first process of this machine did not write {path}",
                hint="see its output; start the run again",
            )
        time.sleep(_WAIT_SECONDS)
