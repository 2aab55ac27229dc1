"""Questions as targets of a measurement that can be stopped and resumed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from robustzs_training.evaluation.base import Victim
from robustzs_training.evaluation.hierarchical.scores import Scorer
from robustzs_training.evaluation.trials import Target


def depth_targets(scorer: Scorer, victim: Victim, right: npt.NDArray[np.bool_]) -> list[Target]:
    """What :mod:`robustzs_training.evaluation.run` attacks: flat top-1, then every question.

    Attacks that have one text for each label (``prompts``) are for the first one alone.

    Args:
        scorer: Has the questions.
        victim: The model.
        right: Right labels of all pictures, bool ``[n, C]``.
    """
    labels = torch.from_numpy(np.ascontiguousarray(right))
    return [
        Target(victim=victim, right=right),
        *(
            Target(
                depth=question.depth,
                meaning=question.meaning,
                victim=question.victim(victim),
                right=question.right(labels).numpy(),
            )
            for question in scorer.questions
        ),
    ]
