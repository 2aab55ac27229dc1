"""The deployed model, not only its parent: ONNX graphs in every precision, and 8-bit pictures.

::

    clean = deployed_clean(bundle, images, templates, parent=victim)
    rows = evaluate_deployed(bundle, images, victim, [threat], templates=templates)
    attacks, results, sentences = card_rows(rows, images.name)
"""

from robustzs_training.evaluation.deployed.attack import DeployedAttack
from robustzs_training.evaluation.deployed.evaluate import (
    DeployedRow,
    DeployedSettings,
    card_rows,
    deployed_attack,
    evaluate_deployed,
)
from robustzs_training.evaluation.deployed.grid import (
    EightBitAttack,
    GridReport,
    from_grid,
    search_grid,
    to_grid,
)
from robustzs_training.evaluation.deployed.variants import (
    DeployedVariant,
    Twin,
    Variant,
    deployed_clean,
    twin_of,
    variants_of,
)

__all__ = [
    "DeployedAttack",
    "DeployedRow",
    "DeployedSettings",
    "DeployedVariant",
    "EightBitAttack",
    "GridReport",
    "Twin",
    "Variant",
    "card_rows",
    "deployed_attack",
    "deployed_clean",
    "evaluate_deployed",
    "from_grid",
    "search_grid",
    "to_grid",
    "twin_of",
    "variants_of",
]
