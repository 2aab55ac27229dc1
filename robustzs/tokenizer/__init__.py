"""Prompts to token ids, without torch: CLIP's byte-pair encoding and BERT's WordPiece."""

from robustzs.tokenizer.clip_vocabulary import build_clip_tokenizer_json
from robustzs.tokenizer.tokenizer import Tokenizer

__all__ = ["Tokenizer", "build_clip_tokenizer_json"]
