"""What a request would cost, and what it would reveal, before anything is done for it."""

from __future__ import annotations

from collections.abc import Mapping

from robustzs.errors import LabelError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.templates import get_templates
from robustzs_serving.errors import ScoresWithheldError
from robustzs_serving.ingest.calls import ClassifyCall
from robustzs_serving.ingest.strict_json import Json
from robustzs_serving.settings import Limits, ScorePolicy

# Leaves and nodes of what is built in.
_LEAVES = {"wordnet": 1_000, "flat": 1_000, "wordnet-nouns": 25_193}
_NODES = {"wordnet": 1_375, "flat": 1_001, "wordnet-nouns": 32_592}


def count_prompts(call: ClassifyCall, *, n_default_templates: int = 1) -> int:
    """How many prompts must be encoded to answer a call, about.

    What is stored under an id counts as nothing: resolve the call first.

    Args:
        call: with its labels and trees.
        n_default_templates: of the model, where the call names none.
    """
    by_nodes = call.options.strategy in ("topdown", "level")
    texts = 0
    for tree in call.hierarchy or (("flat",) if call.labels is not None else ("wordnet",)):
        if isinstance(tree, Hierarchy):
            texts = _joined(texts, len(tree), len(tree.leaf_ids), by_nodes)
        elif call.labels is not None:
            # What grows from WordNet over labels has about as many inner nodes as leaves.
            nodes = 2 * len(call.labels) if tree == "wordnet" else len(call.labels) + 1
            texts = _joined(texts, nodes, len(call.labels), by_nodes)
        elif not (call.label_set_id or call.hierarchy_id):
            texts = _joined(texts, _NODES[tree], _LEAVES[tree], by_nodes)
    if call.options.strategy == "hyponyms":
        texts *= 1 + call.options.n_hyponyms
    n_templates = (
        n_default_templates if call.templates is None else len(get_templates(call.templates))
    )
    return texts * n_templates


def check_prompts(call: ClassifyCall, limits: Limits, *, n_default_templates: int = 1) -> None:
    """Refuse a call that would encode more prompts than allowed.

    Built-in trees with the model's own templates are the deployer's, and not counted.

    Raises:
        LabelError: too many.
    """
    own = call.labels is not None or call.templates is not None
    sent = any(isinstance(tree, Hierarchy) for tree in call.hierarchy or ())
    if not own and not sent and call.options.strategy != "hyponyms":
        return
    count = count_prompts(call, n_default_templates=n_default_templates)
    if count > limits.max_prompts:
        error = LabelError(
            f"labels times templates are {count} prompts, the limit is {limits.max_prompts}",
            hint="send fewer labels or templates; the deployer sets ROBUSTZS_MAX_PROMPTS",
        )
        error.__dict__["param"] = "templates" if call.templates is not None else "labels"
        raise error


def check_scores(fields: Mapping[str, Json], policy: ScorePolicy) -> None:
    """Refuse options by which rounded or withheld scores could be had all the same.

    Whether an answer stops at a node tells whether its probability is above ``theta``: by halving,
    twenty requests give a probability to six digits. ``reject`` does so for the similarity, and a
    ``temperature`` blows small differences up before they are rounded.

    Args:
        fields: options as the client gave them.
        policy: of the service.

    Raises:
        ScoresWithheldError: an option is not allowed with this policy.
    """
    if policy.kind == "full":
        return
    if "temperature" in fields:
        raise ScoresWithheldError(
            f"scores are {policy}, so no temperature is taken", param="temperature"
        )
    for name in ("theta", "reject"):
        value = fields.get(name)
        if value is None or isinstance(value, bool):
            continue
        if policy.kind == "withheld":
            raise ScoresWithheldError(
                f"scores are withheld, so no {name} is taken",
                hint="leave it out, or give a target_accuracy",
                param=name,
            )
        if isinstance(value, (int, float)) and round(float(value), policy.decimals) != value:
            raise ScoresWithheldError(
                f"scores are {policy}, so {name} may have {policy.decimals} decimals", param=name
            )


def _joined(texts: int, nodes: int, leaves: int, by_nodes: bool) -> int:
    """Trees of a forest share their leaves; each has its own inner nodes."""
    return texts + nodes if by_nodes else max(texts, leaves)
