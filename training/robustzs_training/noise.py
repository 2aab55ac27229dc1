"""Keeps the libraries that load and trace models from writing to our streams."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_CHATTY_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "transformers", "timm")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence warnings, progress bars and loggers of torch, transformers and timm.

    What they report here is either checked afterwards by this package (missing or unexpected keys,
    a graph that differs from torch) or about their own next version. Errors still raise.
    """
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in _CHATTY_LOGGERS]
    levels = [logger.level for logger in loggers]
    bars_were_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars_were_on:
            transformers_logging.enable_progress_bar()
