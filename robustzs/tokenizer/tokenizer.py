"""The tokenizer of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustzs.errors import MissingExtraError, TokenizerFileError, UsageError
from robustzs.tokenizer.cleaning import clean
from robustzs.tokenizer.clip_vocabulary import END_TOKEN, START_TOKEN

if TYPE_CHECKING:
    from robustzs.bundle.manifest import TokenizerConfig
    from robustzs.bundle.store import Bundle

TOKENIZER_FILE = "tokenizer.json"
_MODEL_OF_KIND = {"clip-bpe": "BPE", "wordpiece": "WordPiece"}


class Tokenizer:
    """Prompts to token ids, as the model's origin makes them.

    ``clip-bpe`` gives open_clip's ``SimpleTokenizer`` token by token, ``wordpiece`` its
    ``HFTokenizer`` over a BERT vocabulary. Special tokens that a text spells out are treated as
    there: ``<end_of_text>`` and ``[SEP]`` become the special ids, ``<|endoftext|>`` is plain text.

    Args:
        config: The bundle's record of its tokenizer.
        tokenizer_json: ``tokenizer.json``, or the path to it.

    Raises:
        MissingExtraError: The package ``tokenizers`` is not installed.
        TokenizerFileError: The file cannot be read or is not of the recorded kind.
    """

    def __init__(self, config: TokenizerConfig, tokenizer_json: bytes | Path) -> None:
        self.config = config
        self._engine = _load_engine(tokenizer_json)
        self._check_kind()
        frame = self._engine.encode("").ids
        if len(frame) != 2:
            raise TokenizerFileError(
                f"tokenizer.json puts {len(frame)} special tokens around a text instead of 2",
                hint="export the bundle again",
            )
        self._start_id, self._end_id = int(frame[0]), int(frame[1])
        self._special_ids = {
            token: self._engine.token_to_id(token) for token in (START_TOKEN, END_TOKEN)
        }

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Tokenizer:
        """The tokenizer that a bundle carries.

        Raises:
            MissingExtraError: The package ``tokenizers`` is not installed.
            TokenizerFileError: As in ``Tokenizer``.
        """
        return cls(bundle.manifest.tokenizer, bundle.file(TOKENIZER_FILE))

    @property
    def context_length(self) -> int:
        """Most tokens of one text, the two special ones included."""
        return self.config.context_length

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Token ids ``[N, T]``, padded at the end with ``config.pad_id``.

        ``T`` is ``context_length`` where the text graph has a fixed length, else the length of the
        longest text. A text that is too long is cut, and its end token kept.

        Raises:
            UsageError: ``texts`` is a single text, or something in it is not a text.
        """
        rows = self.encode_ragged(texts)
        width = self.context_length
        if not self.config.fixed_length:
            width = max(map(len, rows), default=0)
        token_ids = np.full((len(rows), width), self.config.pad_id, dtype=np.int64)
        for index, row in enumerate(rows):
            token_ids[index, : len(row)] = row
        return token_ids

    def encode_ragged(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text without padding, start and end token included.

        Raises:
            UsageError: ``texts`` is a single text, or something in it is not a text.
        """
        if isinstance(texts, str):
            raise UsageError(
                f"the tokenizer takes a list of texts, not the text {texts[:40]!r}",
                hint="put it in a list",
            )
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise UsageError(f"text {index} is not a text but {type(text).__name__}")
        lower = self.config.kind == "clip-bpe" and self.config.lowercase
        cleaned = [clean(text, lowercase=lower) for text in texts]
        encodings = self._engine.encode_batch_fast(cleaned, add_special_tokens=False)
        rows = [self._frame(encoding.ids) for encoding in encodings]
        if self.config.kind == "clip-bpe":
            for index, text in enumerate(cleaned):
                if START_TOKEN in text or END_TOKEN in text:
                    rows[index] = self._frame(self._with_special_tokens(text))
        return rows

    def _frame(self, ids: list[int]) -> list[int]:
        row = [self._start_id, *ids[: self.context_length - 2], self._end_id]
        if self.config.strip_sep_token:
            # CLIPA: what open_clip's `strip_sep_token` does, wherever the id comes from.
            return [0 if token_id == self._end_id else token_id for token_id in row]
        return row

    def _with_special_tokens(self, text: str) -> list[int]:
        """Tokens of a text that spells out special ones, found where ``SimpleTokenizer`` does.

        The package takes special tokens out of a text before anything else looks at it;
        SimpleTokenizer finds them with its word pattern, so not within a run of punctuation.
        """
        ids: list[int] = []
        for piece, _ in self._engine.pre_tokenizer.pre_tokenize_str(text):
            special = self._special_ids.get(piece)
            if special is not None:
                ids.append(special)
            else:
                ids.extend(token.id for token in self._engine.model.tokenize(piece))
        return ids

    def _check_kind(self) -> None:
        found = type(self._engine.model).__name__
        if found != _MODEL_OF_KIND[self.config.kind]:
            raise TokenizerFileError(
                f"tokenizer.json holds a {found} model, the record says {self.config.kind}",
                hint="export the bundle again",
            )
        # WordPiece lowers the case (and drops accents) in tokenizer.json, where the record cannot
        # reach it: a contradiction means that one of the two belongs to another model.
        lowers = getattr(self._engine.normalizer, "lowercase", self.config.lowercase)
        if self.config.kind == "wordpiece" and lowers != self.config.lowercase:
            raise TokenizerFileError(
                f"tokenizer.json has lowercase {lowers}, the record says {self.config.lowercase}",
                hint="export the bundle again",
            )
        if self.config.context_length < 2:
            raise TokenizerFileError(
                f"a context of {self.config.context_length} token cannot hold start and end",
                hint="export the bundle again",
            )


def _load_engine(tokenizer_json: bytes | Path) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "cpu") from error
    try:
        data = tokenizer_json if isinstance(tokenizer_json, bytes) else tokenizer_json.read_bytes()
        engine = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the package raises nothing narrower
        raise TokenizerFileError(
            f"tokenizer.json cannot be read: {error}", hint="verify or export the bundle again"
        ) from error
    # Length and padding belong to the bundle's record, whatever the file was saved with.
    engine.no_truncation()
    engine.no_padding()
    return engine
