"""One step of QT-AFT by its authors' own loop, imported from a checkout of theirs.

Nothing of theirs is here: ``train_qtaft.train`` runs as it stands, on one batch, with OpenAI's
``clip``. What it imports for data sets and evaluation is replaced by empty modules, and
``clip.load``, which would download, by the same architecture with the weights of the comparison.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys
import types
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.train_step.setting import (
    BETAS,
    CAPTION_WEIGHT,
    EPS,
    LEARNING_RATE,
    MOMENTUM,
    STEP_SIZE,
    WEIGHT_DECAY,
    Setting,
)

_UNUSED = {
    "dataloader": ("build_train_loader", "build_val_datasets", "get_val_loader_list"),
    "eval_utils": ("build_zeroshot_weights_dict", "validate_zeroshot"),
}


def _absent(*_: Any, **__: Any) -> None:
    raise SystemExit("the training step needs no data sets and no evaluation")


def import_loop(folder: Path, weights: Path) -> Any:
    """``train_qtaft`` of the checkout in ``folder``; every model it loads gets ``weights``."""
    if not (folder / "train_qtaft.py").is_file():
        raise SystemExit(f"{folder} is no checkout of github.com/futakw/QTAFT")
    if importlib.util.find_spec("clip") is None:
        raise SystemExit("QTAFT needs OpenAI's clip, as its README says: pip install clip-anytorch")
    if importlib.util.find_spec("pkg_resources") is None:  # newer setuptools have none
        import packaging.version

        sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
        setattr(sys.modules["pkg_resources"], "packaging", packaging)  # noqa: B010
    for name, functions in _UNUSED.items():
        module = types.ModuleType(name)
        for function in functions:
            setattr(module, function, _absent)
        sys.modules[name] = module
    import clip
    import clip.model

    def load(_name: str, _device: str, jit: bool = False) -> tuple[torch.nn.Module, None]:
        del jit
        return clip.model.build_model(load_file(weights)), None

    clip.load = load
    sys.path.insert(0, str(folder.resolve()))
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        import train_qtaft
    return train_qtaft


class Theirs:
    """See the module's text."""

    def __init__(self, folder: Path, weights: Path, setting: Setting) -> None:
        # torch.cuda.amp on a machine without CUDA says that it does nothing: float32.
        warnings.filterwarnings("ignore")
        self.loop = loop = import_loop(folder, weights)
        self.setting = setting
        self.args = Namespace(
            model="clip", arch="vit_b16", is_update_logit_scale=True, attack="pgd",
            attack_bn_mode="eval", batch_size=setting.batch_size, w_i2t=CAPTION_WEIGHT,
            train_eps=EPS, train_stepsize=STEP_SIZE, train_numsteps=setting.n_steps,
            print_freq=500, save_freq=10**9, total_train_steps=None, debug=False,
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            self.model, self.original = loop.build_clip_models(self.args)
        parameters = [*self.model.module.visual.parameters(), self.model.module.logit_scale]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS
        )
        # No warm-up: their rate is not what is compared, and ours is constant, too.
        self.scheduler = loop.cosine_lr(self.optimizer, LEARNING_RATE, 0, 10**9)
        self.scaler = loop.GradScaler()
        self.pixels = setting.pixels()
        torch.manual_seed(setting.seed)

    def step(self) -> float:
        """Their ``train`` over a loader of one batch; returns the loss before the update."""
        indices = torch.arange(self.setting.batch_size)
        loader = [(self.pixels, indices, self.setting.captions(), indices)]
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            loss, _ = self.loop.train(
                loader, self.model, self.original, self.optimizer, self.scheduler, self.scaler,
                0, 0, self.args,
            )  # fmt: skip
        return float(loss)

    def check(self) -> tuple[float, float, torch.Tensor]:
        """Loss at the shared starting point and after their attack from there, and its images."""
        loop, model = self.loop, self.model
        self.model.eval()
        with torch.no_grad():
            clean = loop.encode_image(self.original, loop.clip_img_preprocessing(self.pixels))
            captions = loop.encode_text(model, self.setting.captions())
        targets = torch.arange(self.setting.batch_size)
        loss = loop.CaptionLossWrapper(model, clean, captions, targets, CAPTION_WEIGHT)

        def value(pixels: torch.Tensor) -> float:
            with torch.no_grad():
                found = loop.encode_image(model, loop.clip_img_preprocessing(pixels))
                return float(loss(found))

        noise = self.setting.noise()
        start = value(self.pixels + noise)
        adversarial = loop.pgd(
            forward=model.module.encode_image, loss_fn=loss, data_clean=self.pixels,
            targets=targets, norm="linf", eps=EPS, iterations=self.setting.n_steps,
            stepsize=STEP_SIZE, output_normalize=False, perturbation=noise.requires_grad_(),
            mode="max", momentum=MOMENTUM,
        )  # fmt: skip
        return start, value(adversarial.detach()), adversarial.detach()
