"""`robustzs caption`: captions for training images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustzs.cli.escape import terminal_safe
from robustzs.errors import MissingExtraError

if TYPE_CHECKING:
    from robustzs_training.captions.command import CaptionResult
    from robustzs_training.captions.run import State

_LINE_EVERY = 30.0  # seconds, where no bar is shown


class Source(str, Enum):
    """Who writes the captions."""

    gloss = "gloss"
    transformers = "transformers"
    openai = "openai"


class DType(str, Enum):
    """Numbers that a local model computes with."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


ImagesArgument = Annotated[Path, typer.Argument(help="Folder of images.", show_default=False)]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Table to write: .jsonl or .parquet.")
]
SourceOption = Annotated[
    Source,
    typer.Option(
        "--source",
        "-s",
        help="gloss: from the class folders' WordNet entries; transformers: a model on this "
        "machine; openai: any OpenAI-compatible endpoint.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="transformers: a folder, or a name on the hub; openai: its name."
    ),
]
UrlOption = Annotated[str | None, typer.Option(help="openai: as http://localhost:8000/v1.")]
PromptOption = Annotated[
    str | None,
    typer.Option(help="Else the paper's: Describe the image in detail within 50 words."),
]
NamesOption = Annotated[
    bool, typer.Option("--names-only", help="gloss: the name without kind and looks.")
]
TokensOption = Annotated[int, typer.Option(min=1, help="Longest answer of a model.")]
BatchOption = Annotated[int, typer.Option(min=1, max=4096, help="transformers: images at once.")]
DeviceOption = Annotated[str, typer.Option(help="transformers: cpu, cuda, cuda:N or auto.")]
DTypeOption = Annotated[DType, typer.Option(help="transformers: auto is bfloat16 on a GPU.")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, max=1024, help="openai: images at once.")]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="openai: seconds for one answer.")]
RetriesOption = Annotated[int, typer.Option(min=0, max=20, help="openai: for one image.")]
KeyOption = Annotated[str, typer.Option(help="openai: variable that holds the key, if any.")]
SideOption = Annotated[
    int, typer.Option(min=32, max=8192, help="openai: longer side of what is sent, in pixels.")
]
PriceInOption = Annotated[
    float, typer.Option(min=0, help="Price of a million tokens that the model reads.")
]
PriceOutOption = Annotated[
    float, typer.Option(min=0, help="Price of a million tokens that the model writes.")
]
MaxCostOption = Annotated[float | None, typer.Option(min=0, help="Ask no more at this cost.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Try images again that failed before.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Forget what earlier runs did.")]
TowerOption = Annotated[
    str, typer.Option(help="Warn of captions too long for it: clip, or a bundle.")
]

HELP = """Write a caption for each image of a folder; a run that was stopped goes on.

Exit code 1 if an image has no caption at the end.

\b
Examples:
  robustzs caption train/ -o captions.parquet
  robustzs caption train/ -o captions.parquet --source transformers
  robustzs caption train/ -o captions.jsonl --source openai \\
      --url http://localhost:8000/v1 \\
      --model OpenGVLab/InternVL2_5-8B --concurrency 32
"""


def caption(
    images: ImagesArgument,
    output: OutputOption,
    source: SourceOption = Source.gloss,
    model: ModelOption = None,
    url: UrlOption = None,
    prompt: PromptOption = None,
    names_only: NamesOption = False,
    max_tokens: TokensOption = 128,
    batch_size: BatchOption = 8,
    device: DeviceOption = "auto",
    dtype: DTypeOption = DType.auto,
    concurrency: ConcurrencyOption = 8,
    timeout: TimeoutOption = 120.0,
    retries: RetriesOption = 5,
    api_key_env: KeyOption = "OPENAI_API_KEY",
    max_side: SideOption = 896,
    price_in_per_million: PriceInOption = 0.0,
    price_out_per_million: PriceOutOption = 0.0,
    max_cost: MaxCostOption = None,
    limit: LimitOption = None,
    retry_failed: RetryOption = False,
    force: ForceOption = False,
    tower: TowerOption = "clip",
) -> None:
    """Write captions; people read :data:`HELP`."""
    try:
        from robustzs_training.captions.command import CaptionArguments, run_caption
        from robustzs_training.captions.run import Prices
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    arguments = CaptionArguments(
        images=images,
        output=output,
        source=source.value,
        model=model,
        url=url,
        prompt=prompt,
        properties=not names_only,
        max_tokens=max_tokens,
        batch_size=batch_size,
        device=device,
        dtype=dtype.value,
        concurrency=concurrency,
        timeout=timeout,
        n_retries=retries,
        api_key_env=api_key_env,
        max_side=max_side,
        prices=Prices(prompt=price_in_per_million, completion=price_out_per_million),
        max_cost=max_cost,
        limit=limit,
        retry_failed=retry_failed,
        force=force,
        tower=tower,
    )
    with _progress() as report:
        result = run_caption(arguments, report)
    _tell(result)
    if result.summary.captioned < result.summary.total:
        raise typer.Exit(1)


def _tell(result: CaptionResult) -> None:
    for line in _lines(result):
        sys.stderr.write(f"{terminal_safe(line)}\n")
    sys.stdout.write(f"{terminal_safe(str(result.output))}\n")


def _lines(result: CaptionResult) -> Iterator[str]:
    summary, overlong = result.summary, result.overlong
    yield from (f"warning: {warning}" for warning in result.warnings)
    if overlong.count:
        yield (
            f"warning: {overlong.count} captions are longer than the {overlong.context} tokens "
            f"that {overlong.tower} reads, the rest of them will be cut; the longest has "
            f"{overlong.longest}: {overlong.key}"
        )
    yield (
        f"{summary.captioned} of {summary.total} images have a caption, {summary.new} new in "
        f"{_duration(summary.seconds)}"
    )
    n_tokens = summary.prompt_tokens + summary.completion_tokens
    if n_tokens:
        cost = f", cost {summary.cost:.2f}" if summary.cost else ""
        yield (
            f"{summary.prompt_tokens} tokens read and {summary.completion_tokens} written, "
            f"earlier runs included{cost}"
        )
    if summary.is_stopped:
        yield "stopped at --max-cost; the same command with a higher one goes on"
    if summary.failures:
        reasons = ", ".join(f"{count} {why}" for why, count in summary.failures.most_common())
        yield f"failed: {reasons}; {result.journal.name} says which; --retry-failed tries again"


@contextmanager
def _progress() -> Iterator[Callable[[State], None]]:
    """A bar where a person watches, else a line now and then."""
    if not sys.stderr.isatty():
        yield _line_reporter()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("captioning"), BarColumn(), MofNCompleteColumn())
    note = TextColumn("{task.fields[note]}")
    with Progress(*columns, note, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("captioning", total=None, note="")
        yield lambda state: bar.update(
            task, completed=state.done, total=state.total, note=_note(state)
        )


def _line_reporter() -> Callable[[State], None]:
    last = time.monotonic()

    def report(state: State) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY:
            last = time.monotonic()
            sys.stderr.write(f"{state.done} of {state.total} images, {_note(state)}\n")
            sys.stderr.flush()

    return report


def _note(state: State) -> str:
    parts = [f"{state.failed} failed"] if state.failed else []
    if state.cost:
        parts.append(f"cost {state.cost:.2f}")
    parts.append(f"{_duration(state.eta)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
