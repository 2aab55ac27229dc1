"""What `robustzs caption` does, without its options and its printing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from robustzs.chat import ChatConfig
from robustzs.errors import UsageError
from robustzs_training.captions.journal import Journal, Outcome
from robustzs_training.captions.run import Captioner, Prices, State, Summary, caption_images
from robustzs_training.captions.table import Row, check_output, write_table
from robustzs_training.captions.tower import Overlong, count_overlong
from robustzs_training.data.scan import find_split, scan_folder


@dataclass(frozen=True, kw_only=True)
class CaptionArguments:
    """What is asked for; each source reads what concerns it.

    Attributes:
        images: Folder.
        output: Table to write.
        source: ``gloss``, ``transformers`` or ``openai``.
        model: For transformers a name or folder, for openai as the server calls it.
        url: For openai.
        prompt: What a model is asked; ``None`` for the paper's.
        properties: For gloss: whether kind and looks are told beside the name.
        max_tokens: Longest answer.
        batch_size: For transformers.
        device: For transformers.
        dtype: For transformers.
        concurrency: For openai: questions at once.
        timeout: For openai: seconds for one answer.
        n_retries: For openai.
        api_key_env: For openai.
        max_side: For openai: larger images are sent smaller.
        prices: For the cost.
        max_cost: Then no more is asked.
        limit: Only the first so many images.
        retry_failed: Try failed images again.
        force: Forget what earlier runs did.
        tower: Whose context captions should fit: ``clip`` or a bundle.
    """

    images: Path
    output: Path
    source: str
    model: str | None = None
    url: str | None = None
    prompt: str | None = None
    properties: bool = True
    max_tokens: int = 128
    batch_size: int = 8
    device: str = "auto"
    dtype: str = "auto"
    concurrency: int = 8
    timeout: float = 120.0
    n_retries: int = 5
    api_key_env: str = "OPENAI_API_KEY"
    max_side: int = 896
    prices: Prices = field(default_factory=Prices)
    max_cost: float | None = None
    limit: int | None = None
    retry_failed: bool = False
    force: bool = False
    tower: str = "clip"


@dataclass(frozen=True, kw_only=True)
class CaptionResult:
    """What was done.

    Attributes:
        output: The table.
        journal: The journal; it may be deleted when no more is to be done.
        summary: Counts.
        overlong: Captions that the text tower cuts.
        warnings: What a person should be told.
    """

    output: Path
    journal: Path
    summary: Summary
    overlong: Overlong
    warnings: tuple[str, ...] = ()


def run_caption(
    arguments: CaptionArguments, report: Callable[[State], None] | None = None
) -> CaptionResult:
    """Caption a folder and write the table; or go on with a run that was stopped.

    Raises:
        UsageError: Options contradict each other.
        DataError: There are no images.
        CaptionError: The journal or table cannot be written, or no model can be asked.
        ServerError: The endpoint refuses every request.
    """
    check_output(arguments.output)
    _refuse_splits(arguments.images)
    keys = list(scan_folder(arguments.images).keys)[: arguments.limit]
    journal_path = journal_of(arguments.output)
    if arguments.output.exists() and not (journal_path.exists() or arguments.force):
        raise UsageError(
            f"{str(arguments.output)!r} is there, but not its journal {journal_path.name!r}",
            hint="name another --output, or replace it with --force",
        )
    make, settings = _captioner(arguments, keys)
    with Journal.open(journal_path, settings, force=arguments.force) as journal:
        captioner: Captioner | None = None
        warnings: tuple[str, ...] = ()
        if any(journal.is_open(key, retry_failed=arguments.retry_failed) for key in keys):
            captioner = make()
            warnings = tuple(getattr(captioner, "warnings", ()))
        summary = caption_images(
            keys,
            captioner or _Nobody(settings),
            journal,
            retry_failed=arguments.retry_failed,
            prices=arguments.prices,
            max_cost=arguments.max_cost,
            report=report,
        )
        write_table(arguments.output, _rows(keys, journal, settings))
        done = ((key, journal.caption(key)) for key in keys if key in journal)
        overlong = count_overlong(done, arguments.tower)
    return CaptionResult(
        output=arguments.output,
        journal=journal_path,
        summary=summary,
        overlong=overlong,
        warnings=warnings,
    )


def _refuse_splits(folder: Path) -> None:
    """A recipe reads one split, and keys are below it; nor is ``train`` the class of its images.

    Raises:
        UsageError: The folder holds splits.
    """
    split = find_split(folder, "train")
    if split != folder:
        raise UsageError(
            f"{str(folder)!r} holds splits", hint=f"caption one of them: {str(split)!r}"
        )


def journal_of(output: Path) -> Path:
    """The journal beside a table."""
    return output.with_name(output.name + ".journal")


def _rows(keys: list[str], journal: Journal, settings: dict[str, str]) -> Iterator[Row]:
    source, prompt, model = settings["source"], settings["prompt"], settings["model"]
    for key in keys:
        if key in journal:
            yield key, journal.caption(key), source, prompt, model


@dataclass(frozen=True)
class _Nobody:
    """Asked when nothing is left to do, so that no model is loaded for it."""

    settings: dict[str, str]

    def caption(self, keys: Iterable[str]) -> Generator[Sequence[Outcome], None, None]:
        yield from ()


def _captioner(
    arguments: CaptionArguments, keys: list[str]
) -> tuple[Callable[[], Captioner], dict[str, str]]:
    """Who writes captions, made on demand, and the settings, known before."""
    if arguments.source == "gloss":
        return _gloss(arguments, keys)
    if arguments.source == "transformers":
        return _transformers(arguments)
    return _openai(arguments)


def _gloss(
    arguments: CaptionArguments, keys: list[str]
) -> tuple[Callable[[], Captioner], dict[str, str]]:
    from robustzs_training.captions.classes import GlossCaptioner

    captioner = GlossCaptioner.over(keys, properties=arguments.properties)
    return lambda: captioner, captioner.settings


def _transformers(arguments: CaptionArguments) -> tuple[Callable[[], Captioner], dict[str, str]]:
    from robustzs_training.captions.endpoint import PROMPT
    from robustzs_training.captions.local import DEFAULT_MODEL, LocalCaptioner

    name, prompt = arguments.model or DEFAULT_MODEL, arguments.prompt or PROMPT

    def load() -> Captioner:
        return LocalCaptioner.load(
            arguments.images,
            name,
            device=arguments.device,
            dtype=arguments.dtype,
            prompt=prompt,
            max_tokens=arguments.max_tokens,
            batch_size=arguments.batch_size,
        )

    return load, {"source": "transformers", "prompt": prompt, "model": name}


def _openai(arguments: CaptionArguments) -> tuple[Callable[[], Captioner], dict[str, str]]:
    from robustzs_training.captions.endpoint import PROMPT, EndpointCaptioner

    if not arguments.url or not arguments.model:
        raise UsageError(
            "--source openai needs --url and --model",
            hint="--url http://localhost:8000/v1 --model OpenGVLab/InternVL2_5-8B",
        )
    captioner = EndpointCaptioner(
        folder=arguments.images,
        config=ChatConfig(
            url=arguments.url,
            model=arguments.model,
            api_key_env=arguments.api_key_env,
            timeout=arguments.timeout,
            n_retries=arguments.n_retries,
            max_tokens=arguments.max_tokens,
            connections=arguments.concurrency,
        ),
        prompt=arguments.prompt or PROMPT,
        max_side=arguments.max_side,
    )
    return lambda: captioner, captioner.settings
