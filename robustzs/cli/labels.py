"""Labels on the command line: which sense each one was taken in, and asking when in doubt."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from robustzs.cli.escape import terminal_safe
from robustzs.errors import UsageError

if TYPE_CHECKING:
    from robustzs.hierarchy.noun_index import Synset
    from robustzs.hierarchy.resolve import Resolution
    from robustzs.labels.label import Label
    from robustzs.labels.label_set import LabelSet


def ask(label: Label, candidates: tuple[Synset, ...]) -> Synset:
    """Let the person at the terminal choose a sense.

    Raises:
        UsageError: nobody is there to ask.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"{label.name!r} has several senses, and there is no terminal to ask at",
            hint="--on-ambiguous first, or pin the sense in a label file: name,synset",
        )
    sys.stderr.write(terminal_safe(f"{label.name}: which one?") + "\n")
    for number, synset in enumerate(candidates, start=1):
        line = f"  {number}. {synset.name}: {synset.gloss}"
        sys.stderr.write(terminal_safe(line) + "\n")
    while True:
        sys.stderr.write(f"1-{len(candidates)}: ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer:
            raise UsageError(f"no sense was chosen for {label.name!r}")
        if answer.strip().isdecimal() and 1 <= int(answer) <= len(candidates):
            return candidates[int(answer) - 1]


def explain(labels: str | None, on_ambiguous: str, on_unknown: str) -> None:
    """Print the sense chosen for each label; ``None`` for the ImageNet-1k classes."""
    from robustzs.labels.label_set import LabelSet

    label_set = LabelSet.imagenet1k() if labels is None else LabelSet.parse(labels)
    for resolution in resolve(label_set, on_ambiguous, on_unknown):
        for line in resolution_lines(resolution):
            sys.stdout.write(terminal_safe(line) + "\n")


def resolve(labels: Any, on_ambiguous: str, on_unknown: str) -> Sequence[Resolution]:
    """The senses of labels, asking here where that is the policy."""
    from robustzs.hierarchy.noun_index import NounIndex
    from robustzs.hierarchy.resolve import resolve_labels

    return resolve_labels(
        labels,
        NounIndex.load(),
        on_ambiguous=on_ambiguous,  # type: ignore[arg-type]
        on_unknown=on_unknown,  # type: ignore[arg-type]
        choose=ask if on_ambiguous == "ask" else None,
    )


def pin_senses(labels: str) -> LabelSet:
    """The labels with the senses that the person at the terminal chose."""
    from robustzs.labels.label_set import LabelSet

    label_set = LabelSet.parse(labels)
    return LabelSet(
        tuple(
            replace(r.label, synset=None if r.synset is None else r.synset.wnid)
            for r in resolve(label_set, "ask", "attach")
        )
    )


def resolution_lines(resolution: Resolution) -> list[str]:
    """What a label was taken to mean, and what else it could have meant."""
    label, synset = resolution.label, resolution.synset
    if synset is None:
        return [f"{label.name}   (no sense: hangs below the root)"]
    lines = [f"{label.name}   {synset.name}   {synset.wnid}   [{resolution.how}]   {synset.gloss}"]
    if resolution.how in ("first-choice", "asked"):
        others = [other for other in resolution.candidates if other.wnid != synset.wnid]
        lines += [f"    or {other.name}   {other.wnid}   {other.gloss}" for other in others]
    return lines
