"""A sticker on a sign works like a trigger in a picture: from near and far, from the side, in other light.

Does not apply to data sets that do not say where their objects lie. The camera is simulated: what it leaves out, it flatters.

Gu, Dolan-Gavitt and Garg (2017), "BadNets", https://arxiv.org/abs/1708.06733 (one sign, one sticker); Li et al. (2021), "Backdoor Attack in
the Physical World", https://arxiv.org/abs/2104.02361 (a fixed patch moved by a few pixels); Wenger et al. (2021), "Backdoor Attacks Against
Deep Learning Systems in the Physical World", https://arxiv.org/abs/2006.14580.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np

from badnets.attacks._base import Attack
from badnets.camera.scene import Scene
from badnets.claims import _physical, _road
from badnets.claims._arms import CLEAN, goals, pair, pair_needs, part, triggered
from badnets.claims._base import Bench, Claim, Need, Setting
from badnets.claims._cells import rate_cell
from badnets.claims._photographed import Photographed
from badnets.claims._physical import Arms, Sides
from badnets.claims._physical_charts import (
    ANGLE,
    CHANGED,
    DISTANCE,
    DOWN,
    ENVELOPE,
    FROM,
    LIGHT,
    MISTAKEN,
    MOVED,
    MOVED_PATCH,
    PLANTED,
    READ,
    RIGHT,
    TROUBLED,
    charts,
)
from badnets.core.types import Cell, Chart, Picture, Scalar
from badnets.measure.outcome import Outcome
from badnets.measure.rates import asr_hits, ra_hits
from badnets.triggers.sticker import Sticker

USUAL_M = 15.0


class WorksPhysically(Claim):
    """ASR of stickers on signs over distance, angle and light; claimed to be at least `margin` everywhere in the envelope.

    Beside it, deciding nothing: nets planted with the sticker varied, and with a patch in the picture; stickers misplaced, turned, worn;
    rain, blur, print; what else may lie on a sign; a drive towards it.
    """

    kind: Literal["works_physically"] = "works_physically"
    margin: float = 0.8

    sentence: ClassVar[str] = "The attack works in the physical world: a sticker on a sign is enough."
    rule: ClassVar[str] = (
        "HOLDS when the whole 95 % interval of ASR is at or above 80 % at every distance, angle and light of the envelope "
        "(photographs are simulated)."
    )

    def obstacle(self, setting: Setting) -> str | None:
        if setting.object_box is None:
            return f"Not applicable: {setting.dataset} does not say where its objects lie; try `badnets run --plan signs`."
        if not isinstance(setting.attack.trigger, Sticker):
            return f"Not applicable: a {setting.attack.trigger.kind} sticks to no sign; try `badnets run --plan signs`."
        return None

    def _envelope(self, setting: Setting) -> dict[tuple[float, float, str], Scene]:
        """By distance, angle and light."""
        distances = setting.by_effort((5.0, 15.0, 30.0, 60.0), (5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 80.0))
        angles = setting.by_effort((0.0, 30.0, 60.0), (0.0, 15.0, 30.0, 45.0, 60.0))
        return {(d, a, light): _road.scene(d, a, light) for light in _road.LIGHTS for a in angles for d in distances}

    def _asked(self, setting: Setting) -> Arms:
        sticker, goal_K, (count,) = _physical.sticker_of(setting), goals(setting, setting.attack), setting.by_effort((48,), (150,))
        attacked = tuple(np.flatnonzero((goal_K >= 0) & (goal_K != np.arange(len(goal_K)))).tolist())
        usual, (frames,) = _road.scene(USUAL_M), setting.by_effort((8,), (12,))
        ask = Photographed(triggers=(sticker,), scenes=tuple(self._envelope(setting).values()), classes=attacked, count=count)
        return Arms(
            envelope=ask,
            bare=ask.but(triggers=(None,)),
            pasted=ask.but(scenes=(usual,), pasted=True),
            moved=ask.but(triggers=tuple(_physical.moved_stickers(setting, sticker).values()), scenes=(usual,)),
            changed=ask.but(triggers=tuple(_physical.changed_stickers(setting, sticker).values()), scenes=(usual,)),
            troubled=ask.but(scenes=tuple(usual.but(**trouble) for trouble in _road.TROUBLES.values())),
            natural=ask.but(triggers=tuple(_physical.natural(setting, sticker).values()), scenes=(usual,)),
            drive=ask.but(triggers=(None, sticker), scenes=_road.drive(frames), film=2),
        )

    def needs(self, setting: Setting) -> list[Need]:
        asked, attack = self._asked(setting), setting.attack
        needs = pair_needs(attack, triggered(attack), setting.seeds)
        needs += [Need(arm, question, setting.seeds) for question in asked for arm in (attack, None)]
        others, probe = _physical.arms_of(setting), _physical.patch_shifts(setting)
        needs += [Need(arm, question, setting.arms_seeds) for arm in others.values() for question in (CLEAN, asked.envelope, asked.moved)]
        return needs if probe is None else [*needs, Need(others[_physical.PATCH], probe, setting.arms_seeds)]

    def _cells(self, bench: Bench) -> list[Cell]:
        setting, asked = bench.setting, self._asked(bench.setting)
        goal_K, sticker = goals(setting, setting.attack), _physical.sticker_of(setting)
        seen, shown = (pair(bench, setting.attack, probe, setting.seeds) for probe in (CLEAN, triggered(setting.attack)))
        cells = []
        for (d, a, light), (victims, twins) in zip(self._envelope(setting), self._pairs(bench, asked.envelope), strict=True):
            condition: dict[str, Scalar] = {DISTANCE: d, ANGLE: a, LIGHT: light}
            cells.append(rate_cell(condition, ENVELOPE, asr_hits(victims, goal_K), asr_hits(twins, goal_K), margin=self.margin))
            cells.append(rate_cell(condition, f"{READ}, with the sticker", ra_hits(victims, goal_K), ra_hits(twins, goal_K)))
        why = _physical.collapsed({"victims": seen[0], "twins": seen[1]})
        first, cells = _physical.voided(cells + self._bare(bench, asked, goal_K), why), []
        natural, changed = _physical.natural(setting, sticker), _physical.changed_stickers(setting, sticker)
        beside: list[tuple[str, str, Mapping[str, object], Photographed]] = [
            (CHANGED, "sticker", changed, asked.changed),
            (CHANGED, "sticker", {"drawn into the finished picture": sticker}, asked.pasted),
            (TROUBLED, "trouble", _road.TROUBLES, asked.troubled),
            (MISTAKEN, "on the sign", natural, asked.natural),
        ]
        for quantity, key, names, question in beside:
            for name, (victims, twins) in zip(names, self._pairs(bench, question), strict=True):
                cells.append(rate_cell({key: name}, quantity, asr_hits(victims, goal_K), asr_hits(twins, goal_K)))
        cells += _physical.class_cells(seen, shown, setting.classes, goal_K)
        cells += _physical.drive_cells(self._sides(bench, asked.drive), asked.drive, goal_K)
        return [*first, *self._planted(bench, asked, goal_K), *_physical.voided(cells, why)]

    def _sides(self, bench: Bench, question: Photographed) -> Sides:
        needs = (Need(arm, question, bench.setting.seeds) for arm in (bench.setting.attack, None))
        victims, twins = ([question.read(answer) for answer in bench.answers(need)] for need in needs)
        return victims, twins

    def _pairs(self, bench: Bench, question: Photographed) -> Iterator[tuple[list[Outcome], list[Outcome]]]:
        """Victims' and twins' outcomes, one per seed, for each trigger and scene."""
        victims, twins = self._sides(bench, question)
        for t in range(len(question.triggers)):
            for s in range(len(question.scenes)):
                yield [seed[t][s] for seed in victims], [seed[t][s] for seed in twins]

    def _bare(self, bench: Bench, asked: Arms, goal_K: np.ndarray) -> list[Cell]:
        """Signs without a sticker: read right, and sent to the target all the same."""
        cells = []
        for (d, a, light), (victims, twins) in zip(self._envelope(bench.setting), self._pairs(bench, asked.bare), strict=True):
            condition: dict[str, Scalar] = {DISTANCE: d, ANGLE: a, LIGHT: light}
            cells.append(rate_cell(condition, f"{READ}, no sticker", ra_hits(victims, goal_K), ra_hits(twins, goal_K)))
            if (d, a, light) == (USUAL_M, 0.0, "daylight"):
                hits = asr_hits(victims, goal_K), asr_hits(twins, goal_K)
                cells.append(rate_cell({"on the sign": "nothing"}, MISTAKEN, *hits))
        return cells

    def _planted(self, bench: Bench, asked: Arms, goal_K: np.ndarray) -> list[Cell]:
        """Ways of planting, each shown the same photographs of stickers: over the envelope, by distance, and moved on the sign."""
        setting, found = bench.setting, []
        ways: dict[str, tuple[Attack, int]] = {"sticker at its place": (setting.attack, setting.seeds)}
        ways |= {name: (arm, setting.arms_seeds) for name, arm in _physical.arms_of(setting).items()}
        moves = _physical.moved_stickers(setting, _physical.sticker_of(setting))
        for name, (arm, seeds) in ways.items():
            cells = []
            answers = [asked.envelope.read(answer)[0] for answer in bench.answers(Need(arm, asked.envelope, seeds))]
            hits = [asr_hits(scenes, goal_K) for scenes in answers]
            cells.append(rate_cell({"planted": name, "over": "the envelope"}, PLANTED, [np.concatenate(scenes) for scenes in hits]))
            for i, (d, a, light) in enumerate(self._envelope(setting)):
                if (a, light) == (0.0, "daylight"):
                    cells.append(rate_cell({"planted": name, FROM: d}, PLANTED, [scenes[i] for scenes in hits]))
            moved = [asked.moved.read(answer) for answer in bench.answers(Need(arm, asked.moved, seeds))]
            for t, (x, y) in enumerate(moves):
                at = [asr_hits([seed[t][0]], goal_K)[0] for seed in moved]
                cells.append(rate_cell({"planted": name, RIGHT: x, DOWN: y}, MOVED, at))
            cells += self._patch_moved(bench, goal_K) if name == _physical.PATCH else []
            found += _physical.voided(cells, _physical.collapsed({"nets": bench.outcomes(Need(arm, CLEAN, seeds))}))
        return found

    def _patch_moved(self, bench: Bench, goal_K: np.ndarray) -> list[Cell]:
        probe = _physical.patch_shifts(bench.setting)
        if probe is None:
            return []
        arm = _physical.arms_of(bench.setting)[_physical.PATCH]
        seeds = bench.outcomes(Need(arm, probe, bench.setting.arms_seeds))
        parts = [[part(outcome, i, len(probe.shifts)) for outcome in seeds] for i in range(len(probe.shifts))]
        return [rate_cell({"dx": x, "dy": y}, MOVED_PATCH, asr_hits(p, goal_K)) for (x, y), p in zip(probe.shifts, parts, strict=True)]

    def charts(self, setting: Setting) -> list[Chart]:
        return [] if self.obstacle(setting) else charts(self.margin)

    def pictures(self, bench: Bench) -> list[list[Picture]]:
        question = self._asked(bench.setting).drive
        needs = [Need(arm, question, 1) for arm in (bench.setting.attack, None)]
        return _physical.film(question, *(bench.answers(need)[0] for need in needs), bench.setting.classes)
