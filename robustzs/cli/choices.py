"""Choices that options offer."""

from __future__ import annotations

from enum import Enum


class Strategy(str, Enum):
    """How node probabilities come about."""

    marginal = "marginal"
    topdown = "topdown"
    hyponyms = "hyponyms"
    level = "level"


class Rule(str, Enum):
    """How the path down the tree is chosen."""

    greedy = "greedy"
    climb = "climb"


class OutputFormat(str, Enum):
    """How results are written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


class OnAmbiguous(str, Enum):
    """What to do with a label that has several senses."""

    error = "error"
    first = "first"
    ask = "ask"


class OnUnknown(str, Enum):
    """What to do with a label that WordNet has not."""

    error = "error"
    attach = "attach"
