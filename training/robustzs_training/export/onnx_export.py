"""Towers written as ONNX by torch's dynamo exporter.

Graph inputs and outputs are those of `robustzs.backends`: ``pixels`` -> ``image_features`` and
``token_ids`` -> ``text_features``, the batch dynamic, for text the number of tokens too where the
tower allows it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from robustzs.errors import ExportError
from robustzs_training.export.towers import ImageTower, TextTower
from robustzs_training.noise import quiet_libraries

DEFAULT_OPSET = 18
# protobuf refuses a message of 2 GiB; the rest is for the graph around the tensors.
EXTERNAL_DATA_THRESHOLD = 2**31 - 2**26
# A batch of one would be taken for a constant (pytorch issues 149065 and 171618).
_EXAMPLE_BATCH = 2


@dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """How ONNX files are written.

    Attributes:
        opset: ONNX operator set.
        external_data: Tensors in a file of their own beside the graph; ``None``: only when the
            tower would not fit into one protobuf message (2 GiB).
    """

    opset: int = DEFAULT_OPSET
    external_data: bool | None = None


def export_image_tower(
    tower: ImageTower, path: Path, *, image_size: tuple[int, int], options: OnnxOptions
) -> list[Path]:
    """Write the image tower; returns the files written, the graph first.

    Raises:
        ExportError: torch cannot trace or translate the tower.
    """
    pixels = torch.rand(
        (_EXAMPLE_BATCH, 3, *image_size), generator=torch.Generator().manual_seed(0)
    )
    return _export(
        tower,
        pixels,
        path,
        names=("pixels", "image_features"),
        dynamic={0: Dim("batch", min=1)},
        options=options,
    )


def export_text_tower(
    tower: TextTower,
    path: Path,
    *,
    context_length: int,
    fixed_length: bool,
    options: OnnxOptions,
) -> list[Path]:
    """Write the text tower; returns the files written, the graph first.

    Args:
        tower: The tower.
        path: File to write.
        context_length: Tokens per prompt; the most of them where ``fixed_length`` is false.
        fixed_length: Whether the graph takes exactly ``context_length`` tokens.
        options: How to write.

    Raises:
        ExportError: torch cannot trace or translate the tower.
    """
    n_tokens = context_length if fixed_length else min(9, context_length)
    token_ids = torch.ones((_EXAMPLE_BATCH, n_tokens), dtype=torch.int64)
    dynamic = {0: Dim("batch", min=1)}
    if not fixed_length:
        dynamic[1] = Dim("tokens", min=1, max=context_length)
    return _export(
        tower,
        token_ids,
        path,
        names=("token_ids", "text_features"),
        dynamic=dynamic,
        options=options,
    )


def _export(
    tower: nn.Module,
    example: torch.Tensor,
    path: Path,
    *,
    names: tuple[str, str],
    dynamic: dict[int, Any],
    options: OnnxOptions,
) -> list[Path]:
    try:
        with quiet_libraries(), _plain_attention():
            program = torch.onnx.export(
                tower.eval(),
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=options.opset,
                input_names=[names[0]],
                output_names=[names[1]],
                dynamic_shapes=(dynamic,),
            )
    except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(
            f"torch cannot export the tower that takes {names[0]}: {_last_line(error)}",
            hint="a newer torch may; or report the architecture",
        ) from error
    if program is None:
        raise ExportError(f"torch gave no graph for the tower that takes {names[0]}")
    model = program.model
    _forget_the_trace(model)
    if model.opset_imports.get("") != options.opset:
        raise ExportError(
            f"torch wrote opset {model.opset_imports.get('')} instead of {options.opset}",
            hint="choose an --opset between 18 and the newest that this torch writes",
        )
    return _save(model, path, options)


def _save(model: Any, path: Path, options: OnnxOptions) -> list[Path]:
    import onnx_ir

    size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
    external = options.external_data
    if external is None:
        external = size > EXTERNAL_DATA_THRESHOLD
    if not external:
        onnx_ir.save(model, path)
        return [path]
    data = path.with_name(f"{path.name}.data")
    onnx_ir.save(model, path, external_data=data.name)
    return [path, data]


def _forget_the_trace(model: Any) -> None:
    """Drop what the exporter notes beside the graph: stack traces with paths of this machine.

    Intermediate shapes go too: onnxruntime infers them itself, and its quantisers stumble over
    those that torch leaves behind.
    """
    model.metadata_props.clear()
    model.doc_string = None
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        graph.metadata_props.clear()
        kept = {*graph.inputs, *graph.outputs}
        for value in kept:
            value.metadata_props.clear()
        for value in graph.initializers.values():
            value.metadata_props.clear()
            value.type = value.shape = None
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
                if value not in kept:
                    value.type = None
                    value.shape = None


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    # The fused inference path of nn.MultiheadAttention has no ONNX translation. torch takes it
    # whenever no parameter needs a gradient, as in a locked tower.
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
