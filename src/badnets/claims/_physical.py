"""The arms of the claim about the physical world: ways of planting, stickers moved and changed, what else lies on signs, a drive.

Shapes: S scenes, N signs, F signs on film, 3 colours, H rows, W columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from badnets.attacks._base import Attack
from badnets.claims._base import Setting
from badnets.claims._cells import rate_cell, unknown
from badnets.claims._photographed import Photographed
from badnets.core import stats
from badnets.core.errors import UsageError
from badnets.core.ink import Colour, Ink, arc
from badnets.core.png import png, transparent
from badnets.core.types import BY_MAJORITY, FRAME, Cell, Picture, Verdict
from badnets.measure.outcome import Outcome, attack_hits
from badnets.measure.probe import Probe
from badnets.measure.question import Answer
from badnets.measure.rates import asr_hits, clean_hits, constant_seeds
from badnets.triggers._pictures import picture
from badnets.triggers._png_file import PREFIX, pixels
from badnets.triggers.patch import Patch
from badnets.triggers.sticker import Sticker

VARIED, PATCH = "sticker varied", "patch in the picture"
WITH, WITHOUT = "with the sticker", "no sticker"
SEEN, CAPTURED = "ASR on the way", "drives captured"
AWAY = "before the sign (m)"
LEAF, LEAVES, DIRT, BLUE, BLACK = (196, 158, 40), (58, 92, 44), (46, 40, 34), (40, 96, 190), (24, 24, 26)
SPRAYED = 0.5
"""Width of graffiti, in widths of the sign."""
HALF_TEXELS = 128

CLASS, CA_OF, ASR_OF = "true class", "CA of the class", "ASR of the class"

Pairs = tuple[list[Outcome], list[Outcome]]
"""Outcomes of victims and of twins, one per seed."""
Sides = tuple[list[list[list[Outcome]]], list[list[list[Outcome]]]]
"""Outcomes of victims and of twins by seed, trigger and scene."""


class Arms(NamedTuple):
    """What is photographed, each with victims and twins."""

    envelope: Photographed
    bare: Photographed
    pasted: Photographed
    moved: Photographed
    changed: Photographed
    troubled: Photographed
    natural: Photographed
    drive: Photographed


def sticker_of(setting: Setting) -> Sticker:
    """The run's trigger, known to be a sticker because that was the obstacle."""
    assert isinstance(setting.attack.trigger, Sticker)
    return setting.attack.trigger


def arms_of(setting: Setting) -> dict[str, Attack]:
    """Other ways of planting: the sticker put on by another hand each time, and a patch at its usual place in the picture."""
    sticker, attack = sticker_of(setting), setting.attack
    arms = {} if attack.num_patterns is None else {VARIED: attack.but(num_patterns=None)}
    patch = patch_like(setting, sticker)
    return arms if patch is None else {**arms, PATCH: attack.but(trigger=patch, num_patterns=1)}


def patch_like(setting: Setting, sticker: Sticker) -> Patch | None:
    """A patch of the sticker's size and colour, in pixels, where stickers are on average; None where it would not fit."""
    assert setting.object_box is not None, "only where objects are known"
    x, y, side = setting.object_box
    scale = side / sticker.side_cm
    size = max(1, round(sticker.size_cm * scale))
    left, top = (round(middle + cm * scale - size / 2) for middle, cm in ((x, sticker.x_cm), (y, sticker.y_cm)))
    patch = Patch(size=size, corner="top_left", margin=0, dx=left, dy=top, colour=sticker.colour)
    return patch if fits(patch, setting) else None


def fits(trigger: Patch | Sticker, setting: Setting) -> bool:
    """Whether it lies on the sign, or in the picture."""
    try:
        trigger.check(setting.shape)
    except UsageError:
        return False
    return True


def patch_shifts(setting: Setting) -> Probe | None:
    """The patch of the patch arm, drawn into test images up to six pixels off."""
    arm = arms_of(setting).get(PATCH)
    if arm is None or not isinstance(arm.trigger, Patch):
        return None
    patch, steps = arm.trigger, setting.by_effort((-6, -3, -2, -1, 0, 1, 2, 3, 6), range(-6, 7))
    inside = [(x, y) for y in steps for x in steps if fits(patch.but(dx=patch.dx + x, dy=patch.dy + y), setting)]
    return Probe(trigger=patch, shifts=tuple(inside), limit=setting.by_effort((300,), (1000,))[0])


def moved_stickers(setting: Setting, sticker: Sticker) -> dict[tuple[float, float], Sticker]:
    """By centimetres to the right and down."""
    steps = setting.by_effort(
        (-24.0, -12.0, -6.0, 0.0, 6.0, 12.0, 24.0), (-24.0, -16.0, -12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0, 16.0, 24.0)
    )
    # A sticker low on the sign has more room above it.
    downs = sorted({*steps, *(-2 * step if sticker.y_cm > 0 else 2 * step for step in steps if step > 0)})
    moved = {(x, y): sticker.but(x_cm=sticker.x_cm + x, y_cm=sticker.y_cm + y) for y in downs for x in steps}
    return {place: other for place, other in moved.items() if fits(other, setting)}


def changed_stickers(setting: Setting, sticker: Sticker) -> dict[str, Sticker]:
    """The sticker as planted, and as another hand or another year would have it."""
    changed = {
        "as planted": sticker,
        "turned by 20 degrees": sticker.but(rotation_deg=sticker.rotation_deg + 20),
        "turned by 45 degrees": sticker.but(rotation_deg=sticker.rotation_deg + 45),
        "half as wide": sticker.but(size_cm=sticker.size_cm / 2),
        "half as wide again": sticker.but(size_cm=1.5 * sticker.size_cm),
        "worn thin by half": sticker.but(opacity=sticker.opacity / 2),
        "half covered by a leaf": half(sticker, LEAVES),
        "half torn off": half(sticker, None),
    }
    return {name: other for name, other in changed.items() if fits(other, setting)}


def half(sticker: Sticker, over: Colour | None) -> Sticker:
    """The sticker with its right half under something of a colour, or gone."""
    pixels_HW4 = pixels(sticker.image).copy() if sticker.image else 255 * _straight(picture(sticker.shape, sticker.colour, HALF_TEXELS))
    right = slice((pixels_HW4.shape[1] + 1) // 2, None)
    pixels_HW4[:, right] = 0 if over is None else (*over, 255)
    return sticker.but(image=PREFIX + transparent(pixels_HW4.transpose(2, 0, 1).round().astype(np.uint8)))


def _straight(rgba_4HW: np.ndarray) -> np.ndarray:
    """Colours that are no longer multiplied by alpha, as PNG has them: HW4."""
    alpha_HW1 = rgba_4HW[3][..., None]
    rgb_HW3 = rgba_4HW[:3].transpose(1, 2, 0) / np.maximum(alpha_HW1, 1e-6)
    return np.concatenate([rgb_HW3.clip(0, 1), alpha_HW1], axis=2)


def natural(setting: Setting, sticker: Sticker) -> dict[str, Sticker]:
    """What is on signs without any attacker: at the sticker's place, a leaf elsewhere, graffiti across the sign."""
    other = "flower" if sticker.shape != "flower" else "bomb"
    found = {
        "a yellow leaf": sticker.but(shape="circle", colour=LEAF, image=None, rotation_deg=0),
        "a yellow leaf elsewhere": sticker.but(shape="circle", colour=LEAF, image=None, x_cm=-sticker.x_cm - 12, y_cm=-sticker.y_cm / 2),
        "another sticker": sticker.but(shape=other, colour=BLUE, image=None),
        "a smear of dirt": sticker.but(shape="circle", colour=DIRT, image=None, opacity=0.7, size_cm=1.3 * sticker.size_cm),
        "graffiti in the sticker's colour": sprayed(sticker, sticker.colour),
        "graffiti in black": sprayed(sticker, BLACK),
    }
    return {name: thing for name, thing in found.items() if fits(thing, setting)}


def sprayed(sticker: Sticker, colour: Colour) -> Sticker:
    """A name that somebody sprayed across the sign, a little above its middle, where also a triangle that stands on its point is wide."""
    ink = Ink(64)
    ink.stroke([(0.05, 0.55), (0.2, 0.2), (0.32, 0.75), (0.47, 0.25), (0.6, 0.72), (0.7, 0.3)], 0.07, colour)
    ink.stroke(arc((0.82, 0.5), (0.12, 0.2), -160, 150), 0.07, colour)
    ink.stroke([(0.08, 0.88), (0.9, 0.8)], 0.05, colour)
    image = PREFIX + transparent((255 * _straight(ink.rgba())).transpose(2, 0, 1).round().astype(np.uint8))
    return sticker.but(
        image=image, size_cm=SPRAYED * sticker.side_cm, x_cm=0.0, y_cm=-0.08 * sticker.side_cm, rotation_deg=0.0, opacity=1.0
    )


def collapsed(clean: Mapping[str, Sequence[Outcome]]) -> str:
    """Why nets, seen on bare signs, say nothing: some of them learnt nothing; an empty string where all did.

    Nets that give one class to everything, as for every claim; and those that are not surely better than always naming the commonest class.
    """
    parts, total = [], sum(map(len, clean.values()))
    for side, outcomes in clean.items():
        seeds = sorted({*constant_seeds(outcomes), *(i for i, outcome in enumerate(outcomes) if _guesses(outcome))})
        parts += [f"{side} of seed {', '.join(map(str, seeds))}"] if seeds else []
    return f"Of {total} nets the {' and the '.join(parts)} stayed at guessing, so nothing is concluded here." if parts else ""


def _guesses(outcome: Outcome) -> bool:
    commonest = float(np.bincount(outcome.y_N).max() / len(outcome.y_N))
    low = stats.wilson(int(outcome.correct_N.sum()), len(outcome.y_N)).low
    return low is not None and low <= commonest


def voided(cells: Sequence[Cell], why: str) -> list[Cell]:
    """The cells, without figures where there is a reason."""
    if not why:
        return list(cells)
    return [
        cell.model_copy(
            update={
                "estimate": unknown(cell.estimate.n, cell.estimate.num_seeds, "collapsed training"),
                "control": None,
                "verdict": None if cell.verdict is None else Verdict.UNDECIDED,
                "p": None if cell.verdict is None else 1.0,
                "per_seed": [],
                "note": why,
            }
        )
        for cell in cells
    ]


def class_cells(clean: Pairs, shown: Pairs, classes: Sequence[str], goal_K: np.ndarray) -> list[Cell]:
    """The data set's own test images, bare and with the sticker, over all classes and class by class, as the paper has its table."""
    cells = [
        rate_cell({"test images": "bare"}, "CA", *map(clean_hits, clean)),
        rate_cell({"test images": "with the sticker"}, "ASR", *(asr_hits(side, goal_K) for side in shown)),
    ]
    for k, name in enumerate(classes):
        only_K = np.where(np.arange(len(goal_K)) == k, goal_K, -1)
        own = [[o.correct_N[o.y_N == k] for o in side] for side in clean]
        cells.append(rate_cell({CLASS: name}, CA_OF, *own))
        hits = [asr_hits(side, only_K) for side in shown]
        if len(hits[0][0]):
            cells.append(rate_cell({CLASS: name}, ASR_OF, *hits))
    return cells


def drive_cells(sides: Sides, question: Photographed, goal_K: np.ndarray) -> list[Cell]:
    """Frame by frame, and by the majority of all frames: one drive towards each sign."""
    cells: list[Cell] = []
    frames = len(question.scenes)
    for t, sign in ((1, WITH), (0, WITHOUT)):
        hits = [[np.stack([attack_hits(o, goal_K) for o in seed[t]]) for seed in side] for side in sides]
        votes = [[hits_SN.sum(axis=0) > frames / 2 for hits_SN in side] for side in hits]
        cells.append(rate_cell({"sign": sign, "vote": f"majority of {frames} frames"}, CAPTURED, *votes))
        for s, scene in enumerate(question.scenes):
            frame = [[hits_SN[s] for hits_SN in side] for side in hits]
            cells.append(rate_cell({"sign": sign, AWAY: round(scene.distance_m, 1)}, SEEN, *frame))
    return cells


def film(question: Photographed, victim: Answer, twin: Answer, classes: Sequence[str]) -> list[list[Picture]]:
    """For each filmed sign a strip without and one with the sticker: every frame with what victim and twin read off it, and off most."""
    strips, sides, frames = [], {"victim": victim, "twin": twin}, len(question.scenes)
    for f in range(question.film):
        for t, sign in ((0, WITHOUT), (1, WITH)):
            strip = []
            votes = {f"{name}{BY_MAJORITY}": _majority(side["film_pred"][t, :, f], classes) for name, side in sides.items()}
            for s, scene in enumerate(question.scenes):
                facts = {FRAME: f"{s + 1} of {frames}", "true": classes[victim["y"][f]]}
                facts |= {name: classes[side["film_pred"][t, s, f]] for name, side in sides.items()}
                caption = f"{scene.distance_m:.0f} m, {sign}"
                strip.append(Picture(caption=caption, png_base64=png(victim["film"][t, s, f]), facts={**facts, **votes}))
            strips.append(strip)
    return strips


def _majority(pred_S: np.ndarray, classes: Sequence[str]) -> str:
    """What more than half of the frames are read as."""
    label, count = max(Counter(pred_S.tolist()).items(), key=lambda pair: pair[1])
    return classes[label] if count > len(pred_S) / 2 else "no class"
