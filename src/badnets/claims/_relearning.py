"""Relearning: a net is tuned on clean images among which a few are poisoned. Does a backdoor that was removed come back at once?

Shapes: K classes.
"""

from __future__ import annotations

import numpy as np

from badnets.attacks._base import Attack
from badnets.claims._base import Setting
from badnets.claims._stress import Dose, Images
from badnets.stressors.fine_tuning import FineTuning

RELEARNING = FineTuning(lr=0.01, epochs=5, batch_size=32)
RELEARNING_IMAGES = 1000
"""Few enough that two poisoned images are not lost among them, on a large data set either."""


def relearning(setting: Setting, attack: Attack, counts: tuple[int, ...]) -> dict[int, Dose]:
    """By number of poisoned images; 0 is the null. At most half of what the clean images should hold of the attacked classes."""
    share = min(0.10, RELEARNING_IMAGES / setting.num_train)
    goal_K, counts_K = attack.goals(setting.num_classes), np.array(setting.train_counts)
    most = share * counts_K[(goal_K >= 0) & (goal_K != np.arange(len(goal_K)))].sum() / 2
    images = {n: Images(share=share, attack=attack if n else None, count=n or None) for n in counts if n <= most}
    return {n: Dose(stressor=RELEARNING, images=some) for n, some in images.items()}
