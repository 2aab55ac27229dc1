"""What open_clip does to a text before it is tokenized."""

from __future__ import annotations

import html
import re

from robustzs.errors import MissingExtraError

# On these characters (printable ASCII and white space, without "&") ftfy and html.unescape change
# nothing that survives the collapsing of white space: nearly every prompt, and no import of ftfy.
_NOTHING_TO_FIX = re.compile(r"[\t\n\r\x20-\x25\x27-\x7e]*")


def clean(text: str, *, lowercase: bool) -> str:
    """Mend mojibake, resolve HTML entities twice, collapse white space, maybe lower the case.

    The same as open_clip's ``_clean_lower`` and ``_clean_whitespace``
    (``open_clip/tokenizer.py``, 3.3.0), which is what its models were trained with.

    Raises:
        MissingExtraError: The text is not plain ASCII and ``ftfy`` is not installed.
    """
    if not _NOTHING_TO_FIX.fullmatch(text):
        text = html.unescape(html.unescape(_fix_text(text)))
    text = " ".join(text.split())
    return text.lower() if lowercase else text


def _fix_text(text: str) -> str:
    try:
        import ftfy
    except ImportError as error:
        raise MissingExtraError("ftfy", "cpu") from error
    return str(ftfy.fix_text(text))
