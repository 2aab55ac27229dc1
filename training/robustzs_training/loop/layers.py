"""How deep each parameter of an image encoder lies, by its name: what ``layer_decay`` scales.

The convention is that of timm and BEiT: layer ``i`` of ``L`` learns at ``lr decay^(L - i)``, the
last at ``lr``. Below 1 spares the first layers, as fine-tuning to a new task wants. Above 1 moves
them most: a pixel attack enters there, and what the last layers mean is to stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from robustzs.errors import UsageError

# open_clip's towers and timm's trunks inside them: blocks of a ViT, stages of a CNN.
_STAGE = re.compile(r"\.(?:resblocks\.|blocks\.|stages\.|layers\.|layer)(\d+)\.")
_LAST = re.compile(
    r"\.visual\.(?:trunk\.(?:conv_head|bn2|norm|fc_norm|norm_head|head|attn_pool)|head|ln_post|proj"
    r"|attnpool|attn_pool)(?:\.|$)"
)


def layer_depths(names: Iterable[str]) -> dict[str, int]:
    """The place of each parameter's layer: 0 for the stem, then the stages, then the rest.

    Args:
        names: Of parameters, as ``model.visual.trunk.blocks.3.0.conv_pw.weight``. One outside of
            the image encoder counts as one of the last layer.

    Raises:
        UsageError: None of them lies in a block or a stage.
    """
    found = {name: _STAGE.search(f".{name}") for name in names}
    stages = [int(match[1]) for name, match in found.items() if match and _is_visual(name)]
    if not stages:
        raise UsageError(
            "optimizer.layer_decay is set, but no parameter to be trained has a stage in its name",
            hint="leave layer_decay out for this model",
        )
    first, last = min(stages), max(stages)
    depths: dict[str, int] = {}
    for name, match in found.items():
        if not _is_visual(name) or _LAST.search(f".{name}"):
            depths[name] = last - first + 2
        else:
            depths[name] = 0 if match is None else int(match[1]) - first + 1
    return depths


def _is_visual(name: str) -> bool:
    return ".visual." in f".{name}"
