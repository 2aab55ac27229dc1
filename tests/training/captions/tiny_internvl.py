"""A randomly initialised InternVL of transformers' own architecture, small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXT = "describe the image in detail within 50 words . user assistant a cat dog on mat red"
MARKS = "<pad> <unk> <img> </img> <IMG_CONTEXT> <|im_start|> <video> <|im_end|>"
SPECIAL = MARKS.split(" ")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT> ' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
)


VOCABULARY = {token: number for number, token in enumerate([*SPECIAL, *TEXT.split(" ")])}
SIZE = {"height": 28, "width": 28}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.6,
    "image_size": [28, 28],
    "patch_size": [14, 14],
}
LANGUAGE = {
    "model_type": "qwen2",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.6,
    "max_position_embeddings": 256,
    "eos_token_id": VOCABULARY["<|im_end|>"],
}


def save_tiny_internvl(folder: Path) -> Path:
    """Model, tokenizer and processor as `save_pretrained` writes them."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=SIZE, max_patches=1, crop_to_patches=False),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=SIZE),
        image_seq_length=1,
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(folder)
    config = InternVLConfig(
        vision_config=VISION,
        text_config=LANGUAGE,
        image_token_id=VOCABULARY["<IMG_CONTEXT>"],
        image_seq_length=1,
        downsample_ratio=0.5,
    )
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(config)
    model.save_pretrained(folder)
    return folder


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words of :data:`VOCABULARY`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    engine.normalizer = normalizers.Lowercase()
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=engine,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL[2:7],
        extra_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )
