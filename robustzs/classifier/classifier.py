"""The one engine behind the command line, the service and the tests: images in, answers out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from robustzs.answer import Answer, AnswerError, ModelRef, StopRule, Strategy
from robustzs.backends.base import Float32Array
from robustzs.classifier.answering import AnswerMaker
from robustzs.classifier.calibrated import (
    CalibrationInput,
    choose_calibration,
    make_binding,
)
from robustzs.classifier.embedder import Embedder, check_batch_size, error_row
from robustzs.classifier.inputs import ImageInput, image_name
from robustzs.classifier.options import (
    Options,
    check_calibration,
    choose_threshold,
    rejection_threshold,
)
from robustzs.classifier.strategies import make_scorer
from robustzs.classifier.trees import Labels, Trees, find_roots, load_labels, load_trees
from robustzs.errors import UsageError
from robustzs.features import Progress
from robustzs.images.limits import DEFAULT_LIMITS, ImageLimits
from robustzs.labels.templates import TemplateSet, get_templates

if TYPE_CHECKING:
    from robustzs.backends.triton import TritonTarget
    from robustzs.bundle.manifest import BundleManifest, Precision
    from robustzs.calibration.document import Binding
    from robustzs.hierarchy.forest import Forest
    from robustzs.hierarchy.resolve import OnAmbiguous, OnUnknown
    from robustzs.hierarchy.tree import Hierarchy
    from robustzs.labels.label_set import LabelSet


class Classifier:
    """A model, labels and trees, ready to answer; see ``Classifier.load``.

    Safe to use from several threads. An image's answer does not depend on the images that it is
    classified with.

    Args:
        embedder: the model; closed with the classifier.
        options: how to classify.
        labels: what to choose from; by default the leaves of the hierarchy.
        hierarchy: tree or trees; by default WordNet's over ImageNet-1k's classes, or a flat one
            over ``labels``.
        templates: prompt templates; by default the bundle's.
        calibration: sets theta and temperature where the caller does not; by default the bundle's,
            where ``options.target_accuracy`` is given.
        on_ambiguous: ``error`` or ``first``, for labels with several senses in WordNet.
        on_unknown: ``error`` or ``attach``, for labels that WordNet lacks.
        progress: called while texts are encoded, with their number so far and in all.

    Attributes:
        embedder: as given.
        options: as given.
        forest: the trees; answers are in the first, and in ``Answer.forest`` in the others.
        templates: the prompt templates in use.
        thresholds: theta and its source, for each tree.
        temperature: of the softmax, in use.
        scorer: features to probabilities.
        resolutions: the WordNet sense chosen for each label, where senses were looked for.
        warnings: what a person should know about labels and trees; part of every answer.
    """

    def __init__(
        self,
        embedder: Embedder,
        options: Options | None = None,
        *,
        labels: Labels | None = None,
        hierarchy: Trees | None = None,
        templates: str | Sequence[str] | TemplateSet | None = None,
        calibration: CalibrationInput | None = None,
        on_ambiguous: OnAmbiguous = "error",
        on_unknown: OnUnknown = "error",
        progress: Progress | None = None,
    ) -> None:
        manifest = embedder.manifest
        self.embedder = embedder
        self.options = options = options or Options()
        trees = load_trees(
            hierarchy, load_labels(labels), on_ambiguous=on_ambiguous, on_unknown=on_unknown
        )
        self.forest: Forest = trees.forest
        self.resolutions = trees.resolutions
        calibration = choose_calibration(calibration, options, embedder.bundle, self.forest)
        self.warnings = trees.warnings
        if calibration is not None and calibration.warning is not None:
            self.warnings = (*self.warnings, calibration.warning)
        self.thresholds = tuple(
            choose_threshold(
                options,
                calibration if tree is self.hierarchy else None,  # it was made for one tree
                manifest,
                flat=int(tree.depth.max()) == 1,
            )
            for tree in self.forest
        )
        self.templates = _templates(templates, manifest, self.forest)
        self.temperature = options.temperature or (
            manifest.temperature if calibration is None else calibration.temperature
        )
        self._roots = roots = find_roots(self.forest, options.root, options.level)
        if calibration is not None:
            check_calibration(
                calibration,
                model_digest=embedder.bundle.digest,
                hierarchy_digest=self.hierarchy.digest,
                strategy=options.strategy,
                rule=options.rule,
                temperature=self.temperature,
                templates_digest=self.templates.digest,
                binding=None if calibration.binding is None else self.binding,
            )
        self._answers = AnswerMaker(
            model=ModelRef(name=manifest.name, digest=embedder.bundle.digest),
            forest=self.forest,
            roots=roots,
            options=options,
            thresholds=self.thresholds,
            rejection=rejection_threshold(options, manifest),
            low_confidence=None
            if manifest.low_confidence is None
            else manifest.low_confidence.value,
            warnings=self.warnings,
        )
        self.scorer = make_scorer(
            self.forest,
            roots,
            options.strategy,
            lambda prompts: embedder.text.classes(prompts, self.templates, progress=progress),
            n_hyponyms=options.n_hyponyms,
            geometry=manifest.geometry,
            logit_scale=manifest.logit_scale,
            temperature=self.temperature,
        )

    @classmethod
    def load(
        cls,
        model: str | Path = "robustzs-lite",
        *,
        labels: Labels | None = None,
        hierarchy: Trees | None = None,
        strategy: Strategy = "marginal",
        theta: float | None = None,
        target_accuracy: float | None = None,
        rule: StopRule = "greedy",
        top_k: int = 5,
        root: str | None = None,
        level: int | str | None = None,
        templates: str | Sequence[str] | TemplateSet | None = None,
        temperature: float | None = None,
        reject: bool | float = False,
        n_hyponyms: int = 10,
        calibration: CalibrationInput | None = None,
        on_ambiguous: OnAmbiguous = "error",
        on_unknown: OnUnknown = "error",
        device: str = "cpu",
        threads: int | None = None,
        image_precision: Precision | None = None,
        text_precision: Precision | None = None,
        expect_digest: str | None = None,
        limits: ImageLimits = DEFAULT_LIMITS,
        triton: TritonTarget | None = None,
        progress: Progress | None = None,
    ) -> Classifier:
        """Open a model and make it ready for its labels.

        Args:
            model: a name of ``robustzs models list``, or a bundle's folder.
            labels: names, a ``LabelSet``, a file, or ``"a,b,c"``.
            hierarchy: ``wordnet``, ``wordnet-nouns``, ``flat``, a file, several of them, or a tree.
                By default ``wordnet``; ``flat`` when labels are given.
            strategy: ``marginal``, ``topdown``, ``hyponyms`` or ``level``.
            theta: stop threshold in [0, 1]; by default the calibration's, else the model's.
            target_accuracy: hierarchical accuracy that a calibration promises; sets theta.
            rule: ``greedy`` or ``climb``.
            top_k: most probable leaves to list.
            root: answer below this node only: an id, a synset or a name.
            level: answer at this depth or named rank, whatever theta says.
            templates: name of a template set, or templates with ``{}``.
            temperature: of the softmax; by default the model's.
            reject: allow "none of these": True for the model's threshold, or a similarity.
            n_hyponyms: kinds of each label to add in strategy ``hyponyms``.
            calibration: sets theta and temperature where the caller does not: a file of
                ``robustzs calibrate``; by default the model's, where a target is given.
            on_ambiguous: ``error`` or ``first``, for labels with several senses in WordNet.
            on_unknown: ``error`` or ``attach``, for labels that WordNet lacks.
            device: ``cpu``, ``cuda``, ``cuda:N``, ``auto`` or an execution provider.
            threads: of one operator; by default the CPUs that this process may use.
            image_precision: variant of the image encoder; by default the model's choice.
            text_precision: variant of the text encoder; by default the model's choice.
            expect_digest: refuse the model unless its bundle has this digest.
            limits: on every image.
            triton: servers that run the encoders, instead of ONNX Runtime in this process.
            progress: called while texts are encoded, with their number so far and in all.

        Raises:
            UsageError: an option is out of range, or options contradict each other.
            BundleError: no such model, or not whole.
            LabelError: the labels are wrong.
            HierarchyError: the tree is wrong, or does not fit the labels.
            CalibrationError: no calibration for a target accuracy, or one made for something else.
            BackendError: the engine cannot run the model.
        """
        options = Options(
            strategy=strategy,
            rule=rule,
            theta=theta,
            target_accuracy=target_accuracy,
            temperature=temperature,
            top_k=top_k,
            level=level,
            root=root,
            reject=reject,
            n_hyponyms=n_hyponyms,
        )
        embedder = Embedder.load(
            model,
            device=device,
            threads=threads,
            image_precision=image_precision,
            text_precision=text_precision,
            expect_digest=expect_digest,
            limits=limits,
            triton=triton,
        )
        return cls(
            embedder,
            options,
            labels=labels,
            hierarchy=hierarchy,
            templates=templates,
            calibration=calibration,
            on_ambiguous=on_ambiguous,
            on_unknown=on_unknown,
            progress=progress,
        )

    @property
    def hierarchy(self) -> Hierarchy:
        """The tree of the answers; the first one of a forest."""
        return self.forest[0]

    @property
    def binding(self) -> Binding:
        """Everything that a calibration of this classifier depends on."""
        return make_binding(
            self.embedder,
            self.hierarchy,
            self._roots[0],
            self.options,
            self.templates,
            self.temperature,
        )

    @property
    def labels(self) -> LabelSet:
        """What it chooses from, in the order of the tree's leaves."""
        return self.forest.labels

    def classify(self, image: ImageInput, *, name: str | None = None) -> Answer:
        """Classify one image.

        Args:
            image: a path, bytes, an open binary file, a PIL image or an array ``[H, W, 3]`` uint8.
            name: how the answer refers to it.

        Raises:
            ImageError: anything that is wrong with the image.
            BackendError: the engine failed.
        """
        pixels = self.embedder.preprocess(image)
        return self.classify_pixels(pixels[None], [image_name(image) if name is None else name])[0]

    def classify_many(
        self, images: Iterable[ImageInput], *, batch_size: int = 16
    ) -> Iterator[Answer | AnswerError]:
        """Classify images, one answer or error each, in order.

        The next images are decoded while the model runs; memory does not grow with their number.

        Args:
            images: as for ``classify``; read as they are needed, may be endless.
            batch_size: images per inference, 1 to 4096.

        Yields:
            An answer, or the error of an image that cannot be read.

        Raises:
            UsageError: ``batch_size`` is out of range.
            BackendError: the engine failed.
        """
        check_batch_size(batch_size)
        return self._classify_many(images, batch_size)

    def _classify_many(
        self, images: Iterable[ImageInput], batch_size: int
    ) -> Iterator[Answer | AnswerError]:
        for decoded, features in self.embedder.batches(images, batch_size=batch_size):
            names = [image_name(row.item) for row in decoded]
            good = [name for name, row in zip(names, decoded, strict=True) if row.error is None]
            answers = iter(self.classify_features(features, good))
            for name, row in zip(names, decoded, strict=True):
                yield next(answers) if row.error is None else error_row(name, row.error)

    def classify_pixels(self, pixels: Float32Array, names: Sequence[str]) -> list[Answer]:
        """Classify images that were prepared by ``preprocess``, perhaps in another process.

        Args:
            pixels: float32 ``[B, 3, H, W]`` in [0, 1], B >= 1.
            names: ``B`` names for the answers.

        Raises:
            BackendError: wrong pixels, or the engine failed.
        """
        return self.classify_features(self.embedder.backend.encode_image(pixels), names)

    def classify_features(self, image_features: Float32Array, names: Sequence[str]) -> list[Answer]:
        """Answers for raw image features ``[B, D]`` with their ``B`` names."""
        if len(image_features) != len(names):
            raise UsageError(f"{len(image_features)} images and {len(names)} names")
        if not len(image_features):
            return []
        return self._answers(self.scorer(image_features), names)

    def preprocess(self, image: ImageInput) -> Float32Array:
        """One image as the model's ``pixels`` ``[3, H, W]`` in [0, 1].

        Raises:
            ImageError: anything that is wrong with the image.
        """
        return self.embedder.preprocess(image)

    def embed_images(
        self, images: Iterable[ImageInput], *, batch_size: int = 16
    ) -> Iterator[tuple[str, Float32Array | AnswerError]]:
        """Raw features ``[D]`` of every image, with its name, in order."""
        return self.embedder.embed_images(images, batch_size=batch_size)

    def embed_texts(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> Float32Array:
        """Raw features ``[N, D]`` of whole texts; no template is put around them."""
        return self.embedder.embed_texts(texts, progress=progress)

    def close(self) -> None:
        """Free the engine; calls after it raise ``InferenceError``."""
        self.embedder.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _templates(
    chosen: str | Sequence[str] | TemplateSet | None,
    manifest: BundleManifest,
    forest: Forest,
) -> TemplateSet:
    """The caller's templates, else the bundle's; one alone for all nouns, which are many.

    Where the text tower's work grows with the length of a text, that one is the bare name.
    """
    if isinstance(chosen, TemplateSet):
        return chosen
    if chosen is not None:
        return get_templates(chosen)
    if forest[0].name == "wordnet-nouns":
        return get_templates("single" if manifest.tokenizer.fixed_length else "name")
    return get_templates(manifest.templates)
