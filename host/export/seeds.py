"""How much of a model's figures is chance: the same export from several seeds, mean and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

MEAN, WORST = ".mean", ".worst"
WORSE_IF_HIGHER = ("false_reject_rate", "integer_loss")
NOT_MEASURED = ("train_pictures", "held_out_pictures", "test_good", "test_defective")


def combine_figures(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The first run's figures, which is the one shipped; of several, each whole figure's mean and worst too."""
    figures = dict(runs[0])
    if len(runs) == 1:
        return figures
    figures["seeds"] = len(runs)
    for name in runs[0]:
        if name in NOT_MEASURED or ":" in name:
            continue
        values = [run[name] for run in runs]
        figures[name + MEAN] = float(np.mean(values))
        figures[name + WORST] = max(values) if name in WORSE_IF_HIGHER else min(values)
    return figures
