"""What a run gained: the model before and after it, attacked on the same held-out images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robustzs.labels.templates import get_templates
from robustzs.settings import cache_dir
from robustzs_training.assemble import Workshop
from robustzs_training.evaluation.heldout import MAX_UNREADABLE, HeldOut, heldout_of
from robustzs_training.evaluation.robustness import compare, measure
from robustzs_training.evaluation.victim import head_of
from robustzs_training.factory import adapter_of, device_of, load_model, tokenizer_for
from robustzs_training.finish import geometry_of, templates_of
from robustzs_training.recipe import EvaluatePart

_N_TRIED = 4  # one that is broken is for the measurement to count
NOT_MEASURED: dict[str, Any] = {"before": None, "after": None, "gain": None, "protocol": None}


def measure_gain(
    shop: Workshop,
    *,
    report: Callable[[int, int], None] | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure the trained model in ``shop``, and its origin, which is loaded anew.

    Returns:
        ``before``, ``after``, ``gain`` and ``protocol``; all ``None`` where nothing is held out.

    Raises:
        RobustZSError: The pictures cannot be read, or a number cannot be trusted.
    """
    recipe, source = shop.recipe, shop.source
    part = recipe.evaluate
    if part is None:
        return dict(NOT_MEASURED)
    heldout = held_out_of(shop, part)
    if heldout is None:
        return dict(NOT_MEASURED)
    say(f"measuring on {len(heldout)} pictures, {part.n_steps} iterations of APGD-CE, twice")
    tokenizer, templates = tokenizer_for(source), get_templates(templates_of(recipe, source))
    device = device_of(shop.model)
    origin = load_model(recipe.model, seed=recipe.run.seed)
    own = None if origin.manifest is None else origin.manifest.geometry
    geometry = geometry_of(shop.objective) or own
    found = [
        measure(
            model,
            tokenizer,
            heldout,
            part,
            templates,
            head=head_of(compared),
            seed=recipe.run.seed,
            progress=report,
        )
        for model, compared in (
            (adapter_of(origin).to(device), own),
            (shop.model, geometry),
        )
    ]
    return compare(found[0], found[1])


def check_measurable(shop: Workshop) -> tuple[str, ...]:
    """Find out before a run whether it can be measured after it; what people should be told.

    Raises:
        RobustZSError: The pictures are not there, or have no classes.
    """
    part = shop.recipe.evaluate
    if part is None:
        return ()
    few = part.model_copy(update={"n_images": _N_TRIED})
    if held_out_of(shop, few, max_unreadable=1.0) is not None:
        return ()
    return (
        "nothing will be measured: no pictures are held out; name a labelled folder that is not "
        "trained on by --set evaluate.path=FOLDER",
    )


def held_out_of(
    shop: Workshop, part: EvaluatePart, *, max_unreadable: float = MAX_UNREADABLE
) -> HeldOut | None:
    """The pictures that ``part`` measures a run on; see :func:`heldout_of`."""
    recipe = shop.recipe
    return heldout_of(
        part,
        recipe.data,
        shop.source.preprocess,
        cache=cache_dir() / "data",
        seed=recipe.run.seed,
        max_unreadable=max_unreadable,
    )
