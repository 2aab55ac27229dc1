"""Captions by a vision-language model on this machine, through transformers.

QT-AFT used InternVL2.5-8B. Its original files bring their own code, which is never run here;
``OpenGVLab/InternVL2_5-8B-MPO-hf`` is the authors' conversion of its preference-tuned sibling to
the classes of transformers. The original itself can be converted with
``internvl_chat/tools/internvl_custom2hf.py`` of OpenGVLab/InternVL, and then named as a folder.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from robustzs.errors import CaptionError, ImageError
from robustzs_training.captions.endpoint import PROMPT, read_image
from robustzs_training.captions.journal import Outcome
from robustzs_training.captions.run import one_line

DEFAULT_MODEL = "OpenGVLab/InternVL2_5-8B-MPO-hf"


@dataclass(kw_only=True)
class LocalCaptioner:
    """An image-text-to-text model; make one with :meth:`load`.

    Attributes:
        folder: What keys are below.
        name: The model, as it was named.
        model: A model of transformers that generates text from images and text.
        processor: Its processor, with a chat template.
        prompt: What to ask.
        max_tokens: Longest answer.
        batch_size: Images at once; halved when the memory does not suffice.
    """

    folder: Path
    name: str
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    prompt: str = PROMPT
    max_tokens: int = 128
    batch_size: int = 8

    @classmethod
    def load(
        cls,
        folder: Path,
        name: str = DEFAULT_MODEL,
        *,
        device: str = "auto",
        dtype: str = "auto",
        **options: Any,
    ) -> LocalCaptioner:
        """Load a model: safetensors only, and no code of its own.

        Args:
            folder: What keys are below.
            name: Folder, or name on the Hugging Face hub.
            device: ``auto`` takes the first GPU where there is one.
            dtype: ``float32``, ``bfloat16``, ``float16``; ``auto`` is bfloat16 on a GPU that has
                it, else float32.
            options: Further attributes.

        Raises:
            CaptionError: The model cannot be loaded, or only with code of its own.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

        where = _device(device)
        kind = _dtype(dtype, where)
        try:
            AutoConfig.from_pretrained(name, trust_remote_code=False)  # tells code of its own best
            processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
            model = AutoModelForImageTextToText.from_pretrained(
                name, dtype=kind, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
            raise _not_loadable(name, error) from error
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or not getattr(processor, "chat_template", None):
            raise CaptionError(
                f"{name!r} has no processor with a tokenizer and a chat template",
                hint="choose an instruction-tuned image-text-to-text model",
            )
        # Answers begin where the longest question ends, so shorter ones are filled up before.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        model = model.to(where).eval()
        return cls(folder=folder, name=name, model=model, processor=processor, **options)

    @property
    def settings(self) -> dict[str, str]:
        """As in the table."""
        return {"source": "transformers", "prompt": self.prompt, "model": self.name}

    def caption(self, keys: Iterable[str]) -> Generator[Sequence[Outcome], None, None]:
        """Outcomes batch by batch, in order.

        Raises:
            CaptionError: The memory does not suffice for one image.
        """
        left = iter(keys)
        while group := list(islice(left, self.batch_size)):
            images: dict[str, Image.Image] = {}
            outcomes = []
            for key in group:
                try:
                    images[key] = read_image(self.folder, key)
                except ImageError as error:
                    outcomes.append(Outcome(key=key, error=error.code, message=str(error)))
            if images:
                outcomes += self._answers(list(images), list(images.values()))
            yield outcomes

    def _answers(self, keys: Sequence[str], images: Sequence[Image.Image]) -> list[Outcome]:
        try:
            return self._generate(keys, images)
        except torch.OutOfMemoryError as error:
            if len(keys) == 1:
                raise CaptionError(
                    f"the memory of the device does not suffice for {keys[0]!r}",
                    hint="choose a smaller model or --dtype bfloat16",
                ) from error
        torch.cuda.empty_cache()
        self.batch_size = half = max(1, len(keys) // 2)
        return [
            outcome
            for start in range(0, len(keys), half)
            for outcome in self._answers(keys[start : start + half], images[start : start + half])
        ]

    @cached_property
    def _question(self) -> str:
        """The prompt about one image, in the model's own form."""
        content = [{"type": "image"}, {"type": "text", "text": self.prompt}]
        return str(
            self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        )

    @property
    def _begins_itself(self) -> bool:
        first = self.processor.tokenizer.bos_token
        return first is not None and self._question.startswith(first)

    @torch.inference_mode()
    def _generate(self, keys: Sequence[str], images: Sequence[Image.Image]) -> list[Outcome]:
        inputs = self.processor(
            images=[[image] for image in images],
            text=[self._question] * len(images),
            padding=True,
            return_tensors="pt",
            # The template may have begun the text with what the tokenizer would begin it with.
            add_special_tokens=not self._begins_itself,
        ).to(self.model.device, dtype=self.model.dtype)
        tokenizer = self.processor.tokenizer
        written = self.model.generate(
            **inputs,
            max_new_tokens=self.max_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(written, skip_special_tokens=True)
        n_read = inputs["attention_mask"].sum(dim=1).tolist()
        n_written = (written != tokenizer.pad_token_id).sum(dim=1).tolist()
        return [
            _outcome(key, text, read, wrote, is_cut=wrote >= self.max_tokens)
            for key, text, read, wrote in zip(keys, texts, n_read, n_written, strict=True)
        ]


def _outcome(key: str, text: str, n_read: int, n_written: int, *, is_cut: bool) -> Outcome:
    caption = one_line(text, is_cut=is_cut)
    return Outcome(
        key=key,
        caption=caption or None,
        error="" if caption else "empty",
        message="" if caption else "the model gave an empty answer",
        prompt_tokens=n_read,
        completion_tokens=n_written,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise CaptionError(f"there is no device {name!r} here", hint="use cpu or auto") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in kinds:
        raise CaptionError(f"there is no dtype {name!r}", hint=f"use auto, {', '.join(kinds)}")
    return kinds[name]


def _not_loadable(name: str, error: Exception) -> CaptionError:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text or "custom code" in text:
        return CaptionError(
            f"{name!r} brings code of its own, which is not run",
            hint=f"choose a model in the layout of transformers, such as {DEFAULT_MODEL}",
        )
    return CaptionError(
        f"{name!r} cannot be loaded as an image-text-to-text model: {text[:300]}",
        hint="give a folder or a name on the Hugging Face hub, with safetensors weights",
    )
