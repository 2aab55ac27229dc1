"""From an HTTP request to checked images, labels, trees and options. Nothing in it is trusted.

Multipart and JSON carry the same fields under the same names. File names, content types of parts
and declared sizes are not looked at; trees and labels come as data, never as paths; what is too
large is refused while it is read.
"""

from robustzs_serving.ingest.calls import ClassifyCall, EmbedCall, ImagePart
from robustzs_serving.ingest.costs import check_prompts, count_prompts
from robustzs_serving.ingest.fetch import Fetcher
from robustzs_serving.ingest.read import (
    read_classify,
    read_embed,
    read_hierarchy,
    read_label_set,
    read_zero_shot,
)

__all__ = [
    "ClassifyCall",
    "EmbedCall",
    "Fetcher",
    "ImagePart",
    "check_prompts",
    "count_prompts",
    "read_classify",
    "read_embed",
    "read_hierarchy",
    "read_label_set",
    "read_zero_shot",
]
