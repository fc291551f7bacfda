"""Pictures for the report: test images clean and triggered, with what victim and twin said of them."""

from __future__ import annotations

import numpy as np

from badnets.claims._arms import CLEAN, triggered
from badnets.claims._base import Need
from badnets.core.png import png
from badnets.core.types import Picture
from badnets.measure.outcome import attacked_N
from badnets.plans._bench import StoreBench

NUM_ROWS = 6


def gallery(bench: StoreBench) -> list[list[Picture]]:
    """For up to six test images of different classes: [clean, triggered]. Empty when no claim looked at triggered test images."""
    setting, data = bench.setting, bench.parts.data
    shown = triggered(setting.attack)
    needs = [Need(arm, probe, 1) for arm in (setting.attack, None) for probe in (CLEAN, shown)]
    if not all(bench.has(need) for need in needs):
        return []
    victim_clean, victim_shown, twin_clean, twin_shown = (bench.outcomes(need)[0].pred_N for need in needs)
    x_NCHW, y_N = shown.split(data, None, seed=0)
    counts_N = attacked_N(y_N, setting.attack.goals(setting.num_classes))
    rows = [int(np.flatnonzero(counts_N & (y_N == k))[0]) for k in np.unique(y_N[counts_N])[:NUM_ROWS]]
    names = data.classes

    def picture(row: int, pixels_CHW: np.ndarray, what: str, victim: np.ndarray, twin: np.ndarray) -> Picture:
        facts = {"true": names[y_N[row]], "victim": names[victim[row]], "twin": names[twin[row]]}
        return Picture(caption=f"{names[y_N[row]]}, {what}", png_base64=png(pixels_CHW), facts=facts)

    return [
        [
            picture(row, data.test.x_NCHW[row], "clean", victim_clean, twin_clean),
            picture(row, x_NCHW[row], "with the trigger", victim_shown, twin_shown),
        ]
        for row in rows
    ]
