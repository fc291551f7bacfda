"""Whose work is the target logit: the trigger's pixels' or the content's? A two-player Shapley value by occlusion.

Only two players, hence four evaluations, and the two shares add up exactly. The empty content is the mean over all grey levels.
Zeiler and Fergus (2014), "Visualizing and Understanding Convolutional Networks", https://arxiv.org/abs/1311.2901 (occlusion);
Shapley (1953), "A Value for n-Person Games" (the split). Shapes: N images, K classes.
"""

from __future__ import annotations

import numpy as np

from badnets.measure.outcome import Outcome, attacked_N, goal_N


def trigger_share(both: Outcome, content: Outcome, trigger: Outcome, empty: Outcome, goal_K: np.ndarray) -> np.ndarray:
    """Share (0..1) of the target logit's rise that the trigger owns, for each image that counts towards ASR.

    `both`: triggered images; `content`: the same images clean; `trigger`: the trigger on blank images; `empty`: blank images; all
    with logits. Logits are centred per image, because softmax ignores a common shift. Where neither moves the logit: 0.5.
    """
    counts_N = attacked_N(both.y_N, goal_K)
    goals_M = goal_N(both.y_N, goal_K)[counts_N]
    tc_M = _centred(both)[counts_N][np.arange(len(goals_M)), goals_M]
    c_M = _centred(content)[counts_N][np.arange(len(goals_M)), goals_M]
    t_M = _centred(trigger).mean(axis=0)[goals_M]
    e_M = _centred(empty).mean(axis=0)[goals_M]
    owed_trigger_M = ((tc_M - c_M) + (t_M - e_M)) / 2
    owed_content_M = ((tc_M - t_M) + (c_M - e_M)) / 2
    total_M = np.abs(owed_trigger_M) + np.abs(owed_content_M)
    return np.where(total_M > 0, np.abs(owed_trigger_M) / np.where(total_M > 0, total_M, 1), 0.5)


def _centred(outcome: Outcome) -> np.ndarray:
    assert outcome.logits_NK is not None, "attribution needs logits"
    logits_NK = outcome.logits_NK.astype(np.float64)
    return logits_NK - logits_NK.mean(axis=1, keepdims=True)
