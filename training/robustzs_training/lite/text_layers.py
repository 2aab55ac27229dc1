"""MiniLM cut in two: layers that stay as published, run once, and last layers that learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustzs_training.lite.towers import wordpiece


@dataclass(frozen=True, kw_only=True)
class StoredStates:
    """Hidden states of sentences after the frozen layers, end to end.

    Attributes:
        states: ``[total tokens, 384]`` bfloat16.
        starts: ``[n + 1]`` first token of each sentence, and the end.
    """

    states: torch.Tensor
    starts: npt.NDArray[np.int64]

    def padded(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """States ``[n, T, 384]`` of some sentences and their mask ``[n, T]`` (1: a token)."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        offsets = np.arange(lengths.max())
        mask = offsets[None] < lengths[:, None]
        tokens = np.where(mask, self.starts[rows][:, None] + offsets[None], 0)
        return self.states[torch.from_numpy(tokens)], torch.from_numpy(mask)


def store_states(
    text: Any, sentences: list[str], n_layers: int, max_tokens: int = 4096
) -> StoredStates:
    """Run the embeddings and all but the last ``n_layers`` layers once, in bfloat16.

    Sentences of equal length share a batch, so that there is no padding.

    Args:
        text: open_clip's ``HFTextEncoder`` over MiniLM.
        sentences: What to encode.
        n_layers: Layers that will be trained, counted from the last.
        max_tokens: Of one batch.
    """
    tokenizer: Any = wordpiece(padded=False)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(sentences)]
    lengths = np.array([len(i) for i in ids])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    states = torch.empty((int(starts[-1]), text.config.hidden_size), dtype=torch.bfloat16)
    bert = text.transformer
    frozen = bert.encoder.layer[: len(bert.encoder.layer) - n_layers]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        for length in np.unique(lengths):
            members = np.flatnonzero(lengths == length)
            size = max(1, max_tokens // int(length))
            for rows in np.split(members, range(size, len(members), size)):
                hidden = bert.embeddings(input_ids=torch.tensor([ids[r] for r in rows]))
                for layer in frozen:
                    hidden = _first(layer(hidden))
                for row, state in zip(rows, hidden, strict=True):
                    states[starts[row] : starts[row + 1]] = state
    return StoredStates(states=states, starts=starts)


def finish(text: Any, states: torch.Tensor, mask: torch.Tensor, n_layers: int) -> torch.Tensor:
    """Run the last layers, the mean over tokens and the projection; ``[n, D]``."""
    projected: torch.Tensor = text.proj(_pooled(text, states, mask, n_layers))
    return projected


def hidden_features(text: Any, stored: StoredStates, n_layers: int) -> npt.NDArray[np.float32]:
    """What the projection's last matrix is applied to, per sentence, in float32; ``[n, H]``."""
    order = np.argsort(np.diff(stored.starts), kind="stable")
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), 256):
            states, mask = stored.padded(order[start : start + 256])
            parts.append(text.proj[:-1](_pooled(text, states.float(), mask, n_layers)).numpy())
    return np.concatenate(parts)[np.argsort(order)]


def _pooled(text: Any, states: torch.Tensor, mask: torch.Tensor, n_layers: int) -> torch.Tensor:
    bert = text.transformer
    bias = torch.zeros(mask.shape, dtype=states.dtype).masked_fill(~mask, -1e4)[:, None, None, :]
    hidden = states
    for layer in bert.encoder.layer[len(bert.encoder.layer) - n_layers :]:
        hidden = _first(layer(hidden, attention_mask=bias))
    weights = mask[..., None].to(hidden.dtype)
    pooled: torch.Tensor = (hidden * weights).sum(1) / weights.sum(1)
    return pooled


def _first(output: Any) -> torch.Tensor:
    first: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return first
