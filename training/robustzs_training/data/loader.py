"""Batches for the training loop, the same ones whatever reads them.

What a batch holds follows from ``(seed, epoch, step)``: not from the number of loader processes,
not from the number of training processes, not from where a run was interrupted. The global random
state of torch is never touched.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

import numpy as np
import torch
import torch.utils.data

from robustzs.errors import DataError, UsageError
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.tree import Hierarchy
from robustzs.images.preprocess import PreprocessConfig
from robustzs_training.data.base import Chunked, Examples, Lean, SampleSource, Surveyed
from robustzs_training.data.order import EpochOrder, Families
from robustzs_training.data.reading import Answer, BatchReader, Request
from robustzs_training.data.transform import ImageTransform, resized_rule
from robustzs_training.data.trouble import Trouble
from robustzs_training.recipe import AugmentPart

_T = TypeVar("_T")

PREFETCHED = 4
"""Batches that each loader process prepares ahead."""


class ExampleLoader:
    """Gives one process its share of every full batch.

    Loader processes are started by the first epoch, stay for the following ones, and end with
    :meth:`close`, at the end of a ``with`` block, or when an epoch is left before its end.

    Args:
        source: The examples.
        batch_size: Of this process; a global batch has ``world_size`` times as many.
        augment: Crop and flip.
        image_size: Height and width of the pixels.
        resize: The model's own rule, brought to ``image_size``.
        seed: Of the run.
        n_workers: Loader processes; with 0 this process reads.
        rank: Of this process.
        world_size: Training processes.
        siblings: Examples of one family in a row; 1 for a uniform order.
        hierarchy: Says who is a sibling; its leaves have the ids of the source's labels.
        trouble: Counts what cannot be used.
        pin_memory: ``None``: where there is CUDA.

    Raises:
        DataError: Fewer examples than a global batch; siblings of examples without classes.
        TooManyBadSamplesError: What the source knows to be wrong is more than the limit.
        LabelMismatchError: The hierarchy lacks a class.
        UsageError: A number out of range.
    """

    def __init__(
        self,
        source: SampleSource,
        *,
        batch_size: int,
        augment: AugmentPart,
        image_size: tuple[int, int],
        resize: PreprocessConfig,
        seed: int,
        n_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        siblings: int = 1,
        hierarchy: Hierarchy | Forest | None = None,
        trouble: Trouble | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        if batch_size < 1 or n_workers < 0 or siblings < 1 or not 0 <= rank < world_size:
            raise UsageError(
                f"batch_size {batch_size}, n_workers {n_workers}, siblings {siblings}, "
                f"rank {rank} of {world_size} cannot be"
            )
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.n_workers = n_workers
        self.trouble = Trouble() if trouble is None else trouble
        self._rows = slice(rank * batch_size, (rank + 1) * batch_size)
        self._label_of = None if source.label_of is None else source.label_of.cpu()
        families = _families(source, siblings, hierarchy)
        self._order = EpochOrder(
            n_examples=len(source),
            batch_size=batch_size * world_size,
            seed=seed,
            chunks=source.chunks if isinstance(source, Chunked) else None,
            families=families,
        )
        if self._order.n_batches == 0:
            raise DataError(
                f"the data hold {len(source)} images, fewer than one batch of "
                f"{batch_size * world_size}",
                hint="lower run.batch_size",
            )
        transform = ImageTransform(
            augment=augment, rule=resized_rule(resize, image_size), seed=seed
        )
        self.digest = self._digest(transform, siblings, hierarchy)
        self._is_lean = isinstance(source, Lean)
        reader = BatchReader(
            source.for_workers() if isinstance(source, Lean) else source, transform
        )
        self._requests = _Requests(self._order, self._rows)
        self._loader = _data_loader(reader, self._requests, n_workers, pin_memory)
        self._counts_captions = self._take_findings()

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches; what is left over is dropped."""
        return self._order.n_batches

    def epoch(self, epoch: int, *, skip: int = 0) -> Iterator[Examples]:
        """This process's rows of every batch of an epoch.

        Args:
            epoch: From 0.
            skip: Batches at the beginning that are neither read nor given.

        Raises:
            TooManyBadSamplesError: More is unusable than the limit allows.
            DataError: The data are gone, or a loader process died.
        """
        if epoch < 0 or skip < 0:
            raise UsageError(f"epoch {epoch} and skip {skip} count from 0")
        self._requests.select(epoch, skip)
        is_whole = False
        try:
            for answer in self._answers():
                yield self._examples(answer)
            is_whole = True
        finally:
            if not is_whole:
                self.close()

    def close(self) -> None:
        """End the loader processes; a later epoch starts new ones."""
        iterator = self._loader._iterator
        self._loader._iterator = None
        if isinstance(iterator, torch.utils.data.dataloader._MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()

    def __enter__(self) -> ExampleLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answers(self) -> Iterator[Answer]:
        try:
            with _any_number_of_workers():
                answers = iter(self._loader)
            yield from answers
        except (RuntimeError, OSError, EOFError, multiprocessing.ProcessError) as error:
            # Which of them a killed process causes depends on what it was sending.
            if self.n_workers == 0 or str(error).startswith("Caught "):
                raise  # an error of the source's own
            raise DataError(
                f"a loader process died: {error}",
                hint="it may lack memory, or room in /dev/shm: lower data.n_workers",
            ) from error

    def _examples(self, answer: Answer) -> Examples:
        self.trouble.saw(answer.n_read)
        for key, reason in answer.unreadable:
            self.trouble.add("unreadable-image", key, reason)
        captions = self._captions(answer)
        self.trouble.check()
        if answer.error is not None or answer.pixels is None:
            raise answer.error or DataError("a loader process gave no pixels")
        indices = torch.tensor(answer.indices, dtype=torch.int64)
        return Examples(
            indices=indices,
            keys=tuple(answer.keys),
            pixels=answer.pixels,
            labels=self._labels(indices, answer),
            captions=captions,
        )

    def _labels(self, indices: torch.Tensor, answer: Answer) -> torch.Tensor | None:
        if self._label_of is not None:
            return self._label_of[indices]
        known = [label for label in answer.labels if label is not None]
        return torch.tensor(known) if known and len(known) == len(indices) else None

    def _captions(self, answer: Answer) -> tuple[str, ...] | None:
        texts = answer.captions
        if self._is_lean:
            texts = [self.source.caption_of(index) for index in answer.indices]
        for key, text in zip(answer.keys, texts, strict=True):
            if not text and self._counts_captions:
                self.trouble.add("missing-caption", key)
        return tuple(text or "" for text in texts) if self._has_captions else None

    def _take_findings(self) -> bool:
        """Hand what the source knows to ``trouble``; whether captions remain to be counted."""
        self.trouble.expect(len(self.source))
        findings = self.source.findings if isinstance(self.source, Surveyed) else ()
        for finding in findings:
            self.trouble.found(finding)
        has_table = "missing-caption" in {finding.kind for finding in findings}
        self._has_captions = has_table or _has_captions(self.source)
        return self._has_captions and not has_table

    def _digest(
        self, transform: ImageTransform, siblings: int, hierarchy: Hierarchy | Forest | None
    ) -> str:
        """Over all that decides which pixels come when."""
        record = {
            "source": self.source.digest,
            "batch_size": self._order.batch_size,
            "seed": self.seed,
            "chunks": [list(map(int, chunk)) for chunk in self._order.chunks or ()],
            "siblings": siblings,
            "hierarchy": hierarchy.digest if hierarchy is not None and siblings > 1 else None,
            "augment": transform.augment.model_dump(mode="json"),
            "rule": transform.rule.model_dump(mode="json"),
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


class _Requests(torch.utils.data.Sampler[Request]):
    """What the DataLoader is to read in the epoch that was selected."""

    def __init__(self, order: EpochOrder, rows: slice) -> None:
        self._order = order
        self._rows = rows
        self._epoch = 0
        self._skip = 0

    def select(self, epoch: int, skip: int) -> None:
        self._epoch, self._skip = epoch, skip

    def __iter__(self) -> Iterator[Request]:
        epoch = self._epoch
        for batch in self._order.batches(epoch, skip=self._skip):
            yield Request(epoch, tuple(batch[self._rows].tolist()))

    def __len__(self) -> int:
        return max(0, self._order.n_batches - self._skip)


def _data_loader(
    reader: BatchReader, requests: _Requests, n_workers: int, pin_memory: bool | None
) -> torch.utils.data.DataLoader[Answer]:
    """A DataLoader whose items are whole batches; it draws nothing from global random numbers."""
    if pin_memory is None:
        pin_memory = torch.cuda.is_available()
    with _any_number_of_workers():
        return torch.utils.data.DataLoader(
            reader,
            batch_size=None,
            sampler=requests,
            num_workers=n_workers,
            collate_fn=_unchanged,
            pin_memory=pin_memory,
            worker_init_fn=_begin_worker if n_workers else None,
            multiprocessing_context=_context() if n_workers else None,
            prefetch_factor=PREFETCHED if n_workers else None,
            persistent_workers=n_workers > 0,
            generator=torch.Generator(),
        )


@contextlib.contextmanager
def _any_number_of_workers() -> Iterator[None]:
    """More processes than cores is the recipe's choice, and right where reading waits for disks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        yield


@functools.lru_cache(maxsize=1)
def _context() -> multiprocessing.context.BaseContext:
    """How loader processes start: never by a fork of this one, which has threads and a GPU."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Imported once, in the server, instead of by every loader process.
    context.set_forkserver_preload([BatchReader.__module__])
    return context


def _begin_worker(worker: int) -> None:
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """End this process when the one that asked for it is gone, be it by SIGKILL.

    torch watches the parent by its process id, which here is that of the fork server; and the
    server lives as long as the loader processes do.
    """
    parent.join()
    os._exit(1)


def _unchanged(item: _T) -> _T:
    return item


def _families(
    source: SampleSource, siblings: int, hierarchy: Hierarchy | Forest | None
) -> Families | None:
    if siblings == 1:
        return None
    if source.labels is None or source.label_of is None or hierarchy is None:
        raise DataError(
            f"siblings={siblings} needs classes and a tree over them",
            hint="give data with class folders and data.hierarchy, or set data.siblings=1",
        )
    labels = source.label_of.cpu().numpy().astype(np.int64)
    return Families.of(labels, source.labels, hierarchy, siblings)


def _has_captions(source: SampleSource) -> bool:
    """Whether any of a spread of examples has a caption."""
    n = len(source)
    return any(source.caption_of(i) for i in range(0, n, max(1, n // 1000)))
