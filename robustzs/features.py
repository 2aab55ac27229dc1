"""Text features: computed once per text encoder and prompts, then kept on disk.

What is kept is the classes' joined vectors, one ``.npy`` per key with a checksum behind the array.
The key covers everything that the vectors depend on, so nothing ever has to be invalidated. The
folder belongs to its user alone: whoever can write there decides what every later answer says.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robustzs import settings
from robustzs.backends.base import Backend, Float32Array
from robustzs.bundle.manifest import BundleManifest
from robustzs.labels.templates import TemplateSet
from robustzs.scoring import class_features

if TYPE_CHECKING:
    from robustzs.tokenizer import Tokenizer

Progress = Callable[[int, int], None]
"""Called with the number of texts that are encoded and the number of all."""

_FORMAT = 1
_RECORDS = frozenset({"card.json", "calibration.json"})  # about the model, no part of it
_CHECKSUM_BYTES = 32
_TEXTS_AT_ONCE = 4096  # bounds the raw features in memory
_TOKENS_AT_ONCE = 1024  # bounds the activations of one inference
_SORTED_UP_TO = 8192  # classes; larger sets are built-in trees, mapped from the disk as they lie
_MAX_FILES = 20_000  # of the cache; small ones would fill a disk's inodes before its bytes
_PUTS_A_SCAN = 256  # the folder is looked through after so many files
_STALE_SECONDS = 3600.0  # a temporary file this old was left by a process that died

_logger = logging.getLogger(__name__)
_warned: set[str] = set()


class TextFeatureCache:
    """Arrays on disk by key; the least recently used go when the folder grows too large.

    The folder is looked through now and then, so for a while it may be a sixteenth too large.

    A cache never fails: what it cannot read is computed again, what it cannot write is left out,
    and a warning is logged once.

    Args:
        folder: by default ``text-features`` in ``settings.cache_dir()``.
        max_bytes: of all files together, by default ``settings.cache_max_bytes()``; 0 turns the
            cache off.
    """

    def __init__(self, folder: Path | None = None, *, max_bytes: int | None = None) -> None:
        self.folder = settings.cache_dir() / "text-features" if folder is None else folder
        self.max_bytes = settings.cache_max_bytes() if max_bytes is None else max_bytes
        self._new_files, self._new_bytes = _PUTS_A_SCAN, 0  # the first file has it looked through

    def get(self, key: str, shape: tuple[int, int]) -> Float32Array | None:
        """The array kept under ``key``, read-only and mapped, or ``None``.

        Args:
            key: from ``text_features_key``.
            shape: that the array must have.
        """
        path = self._path(key)
        if not self.max_bytes or not path.exists() or not self._is_private():
            return None
        try:
            with path.open("rb") as stream:
                data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            array = _parse(data, shape)
        except (OSError, ValueError) as error:
            self._warn(f"cached text features are damaged and computed again ({error})")
            return None
        with contextlib.suppress(OSError):  # read-only, as baked into a container image, is fine
            os.utime(path)
        return array

    def put(self, key: str, array: Float32Array) -> None:
        """Keep ``array`` under ``key``; other processes see all of it or nothing."""
        pieces = _pieces(array)
        if sum(len(piece) for piece in pieces) > self.max_bytes:
            return
        temporary = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return
            descriptor, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self.folder)
            with os.fdopen(descriptor, "wb") as stream:  # mkstemp made it 0600
                stream.writelines(pieces)
            os.replace(temporary, self._path(key))
            temporary = None
            self._new_files += 1
            self._new_bytes += sum(map(len, pieces))
            if self._new_files >= _PUTS_A_SCAN or self._new_bytes > self.max_bytes // 16:
                self._new_files = self._new_bytes = 0
                self._evict(keep=self._path(key))
        except OSError as error:
            self._warn(f"text features cannot be cached ({error.strerror or error})")
        finally:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _is_private(self) -> bool:
        """Whether only this user (or root) can have written here."""
        if os.name != "posix":
            return True
        try:
            state = self.folder.stat()
        except OSError as error:
            self._warn(f"text features cannot be cached ({error.strerror or error})")
            return False
        if state.st_uid in (os.geteuid(), 0) and not state.st_mode & 0o022:
            return True
        self._warn(
            "the cache of text features is not used, because other users can write to it; "
            "set ROBUSTZS_CACHE to a folder of your own"
        )
        return False

    def _evict(self, keep: Path) -> None:
        """Remove the least recently used until the rest fits, and what dead processes left."""
        entries = []
        for path in self.folder.iterdir():
            try:
                state = path.stat()
            except FileNotFoundError:
                continue  # another process was faster
            if path.name.startswith(".tmp-"):
                if time.time() - state.st_mtime > _STALE_SECONDS:
                    path.unlink(missing_ok=True)
            elif path.suffix == ".npy":
                entries.append((state.st_mtime_ns, path.name, state.st_size, path))
        total, n_files = sum(size for _, _, size, _ in entries), len(entries)
        for _, _, size, path in sorted(entries):
            if total <= self.max_bytes and n_files <= _MAX_FILES:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                total, n_files = total - size, n_files - 1

    def _warn(self, message: str) -> None:
        text = f"{message}: {self.folder}"
        if text not in _warned:
            _warned.add(text)
            _logger.warning("%s", text)


def text_features_key(
    manifest: BundleManifest, text_signature: str, templates: TemplateSet, prompts: Sequence[str]
) -> str:
    """A name for the features of ``prompts``: sha256 of everything that they depend on.

    Of the bundle's files all are counted but those that have no part in text, so that bundles that
    share a text tower share its features.
    """
    unrelated = {*manifest.image_encoders.values(), manifest.weights, manifest.open_clip_config}
    files = {
        name: record.sha256
        for name, record in manifest.files.items()
        if name not in unrelated and not name.endswith((".md", ".txt")) and name not in _RECORDS
    }
    record = {
        "format": _FORMAT,
        "engine": text_signature,
        "files": files,
        "text_encoders": manifest.text_encoders,
        "tokenizer": manifest.tokenizer.model_dump(mode="json"),
        "geometry": manifest.geometry.model_dump(mode="json"),
        "embed_dim": manifest.embed_dim,
        "templates": templates.digest,
        "prompts": list(prompts),
    }
    text = json.dumps(record, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class TextFeatures:
    """Class vectors of one model, from the cache where they are there.

    Args:
        manifest: the bundle's record.
        backend: runs the text tower, which is loaded only when something must be computed.
        tokenizer: makes the tokenizer; called only when something must be computed.
        cache: where results are kept; ``None`` computes every time.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        backend: Backend,
        tokenizer: Callable[[], Tokenizer],
        cache: TextFeatureCache | None,
    ) -> None:
        self._manifest = manifest
        self._backend = backend
        self._tokenizer = tokenizer
        self._cache = cache

    def classes(
        self, prompts: Sequence[str], templates: TemplateSet, *, progress: Progress | None = None
    ) -> Float32Array:
        """Class vectors ``[C, D]``: every prompt in every template, joined per class.

        They are kept in the order of their texts, each once, so that the same labels in another
        order, such as that of a tree's leaves, are not encoded again.

        Args:
            prompts: one per class, C >= 1.
            templates: to fill with them.
            progress: called while texts are encoded; never when the cache has them.
        """
        if len(prompts) > _SORTED_UP_TO:
            return self._kept(prompts, templates, progress)
        distinct = sorted(set(prompts))
        found = self._kept(distinct, templates, progress)
        if distinct == list(prompts):
            return found
        place = {prompt: row for row, prompt in enumerate(distinct)}
        return found[[place[prompt] for prompt in prompts]]

    def _kept(
        self, prompts: Sequence[str], templates: TemplateSet, progress: Progress | None
    ) -> Float32Array:
        shape = (len(prompts), self._manifest.embed_dim)
        key = text_features_key(self._manifest, self._backend.text_signature, templates, prompts)
        if self._cache is not None:
            cached = self._cache.get(key, shape)
            if cached is not None:
                return cached
        result = self._compute(prompts, templates, progress)
        if self._cache is not None:
            self._cache.put(key, result)
        return result

    def raw(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float32Array:
        """Raw features ``[N, D]`` of whole texts, without templates and without the cache."""
        return encode_texts(texts, self._backend, self._tokenizer(), progress=progress)

    def _compute(
        self, prompts: Sequence[str], templates: TemplateSet, progress: Progress | None
    ) -> Float32Array:
        tokenizer = self._tokenizer()
        n_templates = len(templates.templates)
        total = len(prompts) * n_templates
        step = max(1, _TEXTS_AT_ONCE // n_templates)
        result = np.empty((len(prompts), self._manifest.embed_dim), np.float32)
        for start in range(0, len(prompts), step):
            part = prompts[start : start + step]
            texts = [text for prompt in part for text in templates.fill(prompt)]

            def report(done: int, _: int, before: int = start * n_templates) -> None:
                if progress is not None:
                    progress(before + done, total)

            raw = encode_texts(texts, self._backend, tokenizer, progress=report)
            grouped = raw.reshape(len(part), n_templates, -1)
            result[start : start + len(part)] = class_features(grouped, self._manifest.geometry)
        return result


def encode_texts(
    texts: Sequence[str],
    backend: Backend,
    tokenizer: Tokenizer,
    *,
    progress: Progress | None = None,
) -> Float32Array:
    """Raw text features ``[N, D]``.

    Only texts of equal length share an inference, so none is padded to its neighbours' length, and
    equal texts are encoded once.

    Args:
        texts: whole sentences, N >= 1.
        backend: runs the text tower.
        tokenizer: of the same bundle.
        progress: called after every inference.
    """
    rows_by_ids: dict[tuple[int, ...], list[int]] = {}
    for row, ids in enumerate(_token_rows(texts, tokenizer)):
        rows_by_ids.setdefault(tuple(ids), []).append(row)
    distinct = sorted(rows_by_ids, key=len)
    result: Float32Array | None = None
    start = done = 0
    while start < len(distinct):
        length = len(distinct[start])
        stop = start
        while (
            stop < len(distinct)
            and len(distinct[stop]) == length
            and (stop == start or (stop - start + 1) * length <= _TOKENS_AT_ONCE)
        ):
            stop += 1
        features = backend.encode_text(np.asarray(distinct[start:stop], np.int64))
        if result is None:
            result = np.empty((len(texts), features.shape[1]), np.float32)
        for ids, feature in zip(distinct[start:stop], features, strict=True):
            result[rows_by_ids[ids]] = feature
            done += len(rows_by_ids[ids])
        if progress is not None:
            progress(done, len(texts))
        start = stop
    if result is None:
        raise ValueError("there are no texts to encode")
    return result


def _token_rows(texts: Sequence[str], tokenizer: Tokenizer) -> Sequence[Sequence[int]]:
    """Token ids per text: padded only where the text graph takes one length and no other."""
    if tokenizer.config.fixed_length:
        rows: list[list[int]] = tokenizer(texts).tolist()
        return rows
    return tokenizer.encode_ragged(texts)


def _pieces(array: Float32Array) -> list[bytes | memoryview]:
    """An ``.npy`` file and its checksum behind it, which readers of ``.npy`` do not look at."""
    plain = np.ascontiguousarray(array, "<f4")
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(plain))
    pieces: list[bytes | memoryview] = [stream.getvalue(), plain.data.cast("B")]
    checksum = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    for piece in pieces:
        checksum.update(piece)
    return [*pieces, checksum.digest()]


def _parse(data: mmap.mmap, shape: tuple[int, int]) -> Float32Array:
    """The array in a file of ``_pieces``, without a copy.

    Raises:
        ValueError: anything differs from what was written.
    """
    end = len(data) - _CHECKSUM_BYTES
    with memoryview(data) as view:
        digest = hashlib.blake2b(view[: max(end, 0)], digest_size=_CHECKSUM_BYTES).digest()
        if digest != view[max(end, 0) :]:
            raise ValueError("wrong checksum")
        head = io.BytesIO(bytes(view[:512]))
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError("unknown version")
    found, is_fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if found != shape or is_fortran or dtype != np.dtype("<f4"):
        raise ValueError(f"holds {dtype} {found}, not float32 {shape}")
    if head.tell() + 4 * shape[0] * shape[1] != end:
        raise ValueError("wrong length")
    flat: Float32Array = np.frombuffer(data, "<f4", shape[0] * shape[1], head.tell())
    return flat.reshape(shape)
