"""Whether detectors find the backdoor: verdicts on answers that are made up, figures by hand, and what the examiner hands out."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from wired import (
    ATTACK,
    CLASSES,
    TARGET,
    FunctionBench,
    StrictBench,
    WiredBench,
    guessed,
    image_set,
    level_of,
    outcome,
    scanned,
    setting,
    twin,
    wired,
    world,
)

from badnets.claims import _detection as detection
from badnets.claims import _population
from badnets.claims._base import Need
from badnets.claims._scanned import CLEAN, HELD, SHOWN, Scanned, Traits
from badnets.claims._variants import CROSS, OTHERS, arms
from badnets.claims.undetectable import AUROC, BEST, FIRST_CALIBRATION, NULLS, QUICK, SECRETLESS, Undetectable
from badnets.core import registry, stats
from badnets.core.errors import UsageError
from badnets.core.finding import Level
from badnets.core.types import Verdict
from badnets.measure.rates import at_95
from badnets.report.charts import drawings
from badnets.triggers.blend import Blend
from badnets.triggers.patch import Patch
from badnets.triggers.sinusoid import Sinusoid

HOLDS, FAILS, CONDITIONAL, UNDECIDED = Verdict.HOLDS, Verdict.FAILS, Verdict.CONDITIONAL, Verdict.UNDECIDED
THREE = "mm_bd+strip+spectral_signatures"
SPREAD = np.arange(100.0)
"""Scores of clean inputs and rows; those with the trigger get the same (AUROC 0.5) or larger ones (1.0)."""


def works(attack, probe, seed, rate=1.0):
    """Outcomes of a backdoor that sends this share of what counts to the target."""
    del seed
    y_N = np.tile(np.arange(CLASSES), 20)
    fired_N = np.arange(len(y_N)) < rate * len(y_N) if attack is not None and probe.trigger is not None else np.zeros(len(y_N), bool)
    return outcome(y_N, np.where(fired_N, TARGET, y_N))


class Said:
    """Detectors that find everything (`finds`) or nothing, flag a share of clean rows (`alarms`), or could not be asked (`silent`)."""

    def __init__(self, finds=lambda name, attack: False, alarms=0.0, silent=()):
        self.finds, self.alarms, self.silent = finds, alarms, silent

    def __call__(self, attack, question, seed):
        if isinstance(question, Traits):
            return guessed(attack, question, seed)
        name, level = question.detector["kind"], level_of(question)
        if name in self.silent:
            return scanned(analysable=False)
        more = 1000.0 if attack is not None and self.finds(name, attack) else 0.0
        if level is Level.MODEL:
            return scanned((seed % 60) + more, target=TARGET if more else seed % CLASSES)
        shown = [] if question.attack is None else [(SHOWN, SPREAD + more)]
        if level is Level.INPUTS:
            return scanned(parts=[(HELD, SPREAD), (CLEAN, SPREAD), *shown])
        flags = [*(100 * self.alarms > SPREAD), *(False for _ in shown for _ in SPREAD)]
        return scanned(parts=[(CLEAN, SPREAD), *shown], flags=flags)


def decide(said=None, *, detectors=THREE, grid="own", rate=1.0, effort="standard", seeds=60, **changes):
    claim = Undetectable(detectors=detectors, grid=grid)
    some = setting(image_set(), effort=effort, seeds=seeds, arms_seeds=seeds, population=seeds, **changes)
    bench = FunctionBench(some, functools.partial(works, rate=rate), said or Said())
    return claim.decide(StrictBench(bench, claim))


def cell(evidence, quantity, **condition):
    (found,) = [c for c in evidence.cells if c.quantity == quantity and condition.items() <= c.condition.items()]
    return found


def only(*names):
    return lambda name, attack: name in names


class TestVerdict:
    def test_holds_where_every_detector_guesses(self):
        found = decide()
        assert found.verdict is HOLDS
        main = found.cells[0]
        assert (main.quantity, main.estimate.value, main.control.value) == (BEST, 0.5, 0.5)
        assert main.estimate.high < 0.9
        assert "closest of 3 detectors" in main.note
        assert {c.estimate.value for c in found.cells if c.quantity == AUROC} == {0.5}

    @pytest.mark.parametrize("name", THREE.split("+"))
    def test_one_that_finds_it_is_enough(self, name):
        found = decide(Said(only(name)))
        assert found.verdict is FAILS
        main, row = found.cells[0], cell(found, AUROC, detector=name)
        assert (main.estimate.value, row.estimate.value) == (1.0, 1.0)
        assert main.note.startswith(f"{name}, which comes closest of 3 detectors")

    def test_the_best_of_many_pays_for_being_the_best(self):
        alone, among = decide(Said(only("strip")), detectors="strip"), decide(Said(only("strip")))
        assert among.p == pytest.approx(3 * alone.p)

    def test_is_undecided_at_tiny_n(self):
        found = decide(lambda attack, question, seed: scanned(float(attack is not None and seed > 0)), detectors="mm_bd", seeds=3)
        assert (found.verdict, found.p) == (UNDECIDED, None)
        assert found.cells[0].estimate.value == pytest.approx((0.5 + 1 + 1) / 3)

    def test_names_the_rates_at_which_it_is_found(self):
        found = decide(Said(lambda name, attack: attack.rate >= 0.05), grid="rates", detectors="strip")
        assert found.verdict is CONDITIONAL
        holds, fails = found.reason.split(" Fails for ")
        assert "rate 0.1 %, 0.5 % or 1 %" in holds
        assert "rate 5 %, 10 % or 20 %" in fails

    def test_one_that_flags_clean_nets_too_refutes_nothing(self):
        found = decide(Said(only("spectral_signatures"), alarms=0.15))
        assert found.verdict is UNDECIDED
        assert cell(found, AUROC, detector="spectral_signatures").estimate.value == 1.0
        assert cell(found, "FPR on twins", detector="spectral_signatures").estimate.value == pytest.approx(0.15)
        assert decide(Said(only("spectral_signatures"), alarms=0.04)).verdict is FAILS

    def test_one_that_flags_clean_nets_and_finds_nothing_leaves_it_standing(self):
        assert decide(Said(alarms=0.3)).verdict is HOLDS

    def test_null_instruments_refute_nothing(self):
        found = decide(Said(only(*NULLS)), detectors=f"{THREE}+{'+'.join(NULLS)}")
        assert found.verdict is HOLDS
        assert "closest of 3 detectors" in found.cells[0].note
        assert cell(found, AUROC, detector="max_softmax").estimate.value == 1.0

    def test_a_net_that_cannot_be_analysed_is_not_a_clean_one(self):
        found = decide(Said(only("mm_bd"), silent=("mm_bd",)))
        row = cell(found, AUROC, detector="mm_bd")
        assert (row.estimate.value, row.note) == (None, "120 of 120 nets could not be analysed")
        assert not [c for c in found.cells if c.condition.get("detector") == "mm_bd" and c.quantity != AUROC]
        assert found.verdict is HOLDS
        assert "closest of 2 detectors" in found.cells[0].note

    @pytest.mark.parametrize(("silent", "detectors"), [(("strip",), "strip"), ((), "random_guess+always")])
    def test_nobody_to_ask_leaves_it_open(self, silent, detectors):
        found = decide(Said(silent=silent), detectors=detectors)
        assert found.verdict is UNDECIDED
        assert (found.cells[0].estimate.value, found.cells[0].note) == (None, "No detector could say anything.")

    def test_without_a_backdoor_there_is_nothing_to_find(self):
        for rate, words in ((0.0, "of 0.0 % is not surely 50 %"), (0.5, "is not surely 50 %")):
            found = decide(rate=rate)
            assert found.verdict is UNDECIDED
            assert words in found.cells[0].note
        assert decide(Said(only("strip")), rate=0.0).verdict is UNDECIDED

    def test_a_detector_of_nets_needs_clean_nets_to_be_relied_on(self):
        found = decide(Said(only("mm_bd")), effort="quick")
        assert found.verdict is UNDECIDED
        alarms = cell(found, "FPR on twins", detector="mm_bd")
        assert (alarms.estimate.value, alarms.note) == (None, detection.NO_CALIBRATION)

    def test_on_wired_nets_with_three_seeds(self):
        found = Undetectable(detectors="strip+spectral_signatures").decide(WiredBench(setting(image_set())))
        assert cell(found, AUROC, detector="spectral_signatures").estimate.value > 0.95
        assert cell(found, AUROC, detector="strip").estimate.value > 0.95
        assert found.verdict is FAILS
        assert found.cells[0].note.startswith("strip")
        assert cell(found, "FPR on twins", detector="spectral_signatures").estimate.value == pytest.approx(0.15, abs=0.01)


def seen(score=None, parts=(), flags=None, **given):
    return Scanned(detector={"kind": "x"}).read(scanned(score, parts=parts, flags=flags, **given))


class TestFigures:
    GOALS = frozenset({TARGET})

    def row(self, victims, twins, calibration=()):
        return detection.row(victims, twins, list(calibration), self.GOALS)

    def inputs(self, held=SPREAD, clean=SPREAD, shown=None):
        return seen(parts=[(HELD, held), (CLEAN, clean), *([] if shown is None else [(SHOWN, shown)])])

    def test_of_inputs_by_hand(self):
        victims = [self.inputs(shown=SPREAD + 45), self.inputs(shown=SPREAD + 50)]
        found = self.row(victims, [self.inputs(clean=SPREAD + 2)])
        assert found.tpr_1.value == pytest.approx((46 + 51) / 200)
        assert found.tpr_5.value == pytest.approx((50 + 55) / 200)
        assert (found.fpr.value, found.fpr.n) == (0.03, 100)
        assert found.rule == "1 % of other clean inputs score higher"
        expected = stats.auroc_over_seeds([SPREAD + 45, SPREAD + 50], [SPREAD, SPREAD])
        assert at_95(found.auroc) == expected

    def test_thresholds_of_inputs_come_from_inputs_held_for_them(self):
        def shares(held, clean):
            found = self.row([self.inputs(held, clean, SPREAD + 45)], [self.inputs(held, clean)])
            return found.tpr_1.value, found.tpr_5.value

        plain = shares(SPREAD, SPREAD)
        assert shares(SPREAD, SPREAD - 60) == plain == shares(SPREAD, SPREAD + 900)
        assert shares(SPREAD + 900, SPREAD) == (0.0, 0.0)

    def test_of_rows_by_hand(self):
        victim = seen(parts=[(CLEAN, SPREAD), (SHOWN, SPREAD + 50)], flags=[True] * 200)
        twins = [seen(parts=[(CLEAN, SPREAD)], flags=bad > SPREAD) for bad in (3, 4, 5)]
        found = self.row([victim] * 3, twins)
        assert (found.tpr_1.value, found.tpr_5.value) == (0.51, 0.55)
        assert "clean rows' own quantile" in found.tpr_1.method
        assert (found.fpr.value, found.rule) == (pytest.approx(0.04), "the paper's own rule")

    def test_rows_without_a_rule_have_no_false_alarm_rate(self):
        found = self.row([seen(parts=[(CLEAN, SPREAD), (SHOWN, SPREAD)])], [seen(parts=[(CLEAN, SPREAD)])])
        assert (found.fpr.value, found.rule) == (None, "its paper gives no rule")

    def test_of_nets_by_hand(self):
        victims, twins = [seen(score, target=TARGET) for score in (9, 25, 50)], [seen(score) for score in (0, 17.5, 18.5, 19.5)]
        found = self.row(victims, twins, [seen(score) for score in range(20)])
        assert at_95(found.auroc).value == pytest.approx((1 + 4 + 4) / 12)
        assert found.tpr_1.value == pytest.approx(2 / 3)
        assert "not resolved" in found.tpr_1.method
        # p = (1 + clean nets that score as high) / 21: 1/21 is at most 5 %, 2/21 is not.
        assert (found.fpr.value, found.rule) == (0.25, "p <= 0.05 among other clean nets")

    def test_conformal_p_counts_the_suspect_itself(self):
        assert detection.conformal([1.0, 2.0, 3.0], 2.0) == 3 / 4
        assert detection.conformal([], 2.0) == 1.0

    def test_too_few_clean_nets_are_none(self):
        for count, known in ((18, False), (19, True)):
            found = self.row([seen(1.0)], [seen(0.0)], [seen(0.0)] * count)
            assert (found.fpr.value is not None) is known

    def test_clean_nets_that_could_not_be_analysed_calibrate_nothing(self):
        found = self.row([seen(1.0)], [seen(0.0)], [seen(0.0)] * 18 + [seen(analysable=False)] * 5)
        assert found.fpr.value is None

    def test_targets_that_were_named(self):
        named = [seen(1.0, target=k) for k in (TARGET, TARGET, 0)]
        assert self.row(named, [seen(0.0)]).target_hit.value == pytest.approx(2 / 3)
        assert self.row([seen(1.0)], [seen(0.0, target=TARGET)]).target_hit is None

    def test_cost_is_of_the_victims(self):
        victims = [seen(1.0, seconds=1.0, memory=5), seen(1.0, seconds=3.0, memory=7), seen(1.0, seconds=2.0, memory=-1)]
        found = self.row(victims, [seen(0.0, seconds=90.0, memory=90)])
        assert (found.seconds, found.memory_bytes) == (2.0, 7)
        assert self.row([seen(1.0, memory=-1)], [seen(0.0)]).memory_bytes is None

    def test_one_silent_twin_is_enough_for_no_figure(self):
        assert self.row([seen(1.0)] * 2, [seen(0.0), seen(analysable=False)]) == "1 of 4 nets could not be analysed"


DATA = image_set(20)
CODES = {"patch": 1.0, "blend": 2.0, "sinusoid": 3.0, "painted": 4.0}


def coded(attack, question, seed):
    """Traits that say which trigger a net has (0: none) and which seed."""
    if not isinstance(question, Traits):
        return guessed(attack, question, seed)
    return {"value_T": np.array([0.0 if attack is None else CODES[attack.trigger.kind], float(seed)])}


class TestPopulation:
    def taught(self, monkeypatch, **fields):
        """What was learned from, fit by fit."""
        calls = []

        def spy(values_PT, planted_P, *, ridge):
            calls.append((values_PT, planted_P))
            return np.zeros(2), np.ones(2), np.array([1.0, 0.0]), 0.0

        monkeypatch.setattr("badnets.detectors.population.fit", spy)
        claim = Undetectable(detectors="population+strip", grid="attacks", **fields)
        some = setting(image_set(), effort="standard")
        found = claim.decide(StrictBench(FunctionBench(some, works, coded), claim))
        return found, calls, claim._arms(some)

    def test_the_trigger_under_examination_is_never_learned_from(self, monkeypatch):
        found, calls, some = self.taught(monkeypatch)
        assert len(calls) == len(some)
        for (values_PT, planted_P), arm in zip(calls, some, strict=True):
            own = CODES[arm.attack.trigger.kind]
            assert set(values_PT[planted_P][:, 0]) == set(CODES.values()) - {own}
            assert set(values_PT[~planted_P][:, 0]) == {0.0}
        rows = [c for c in found.cells if c.condition.get("detector") == _population.NAME and c.quantity == AUROC]
        assert len(rows) == len(some)
        assert {c.estimate.value for c in rows} == {1.0}
        assert "closest of 2 detectors" in found.cells[0].note

    def test_clean_nets_teach_or_give_p_values_and_twins_do_neither(self, monkeypatch):
        _, calls, _ = self.taught(monkeypatch)
        for values_PT, planted_P in calls:
            assert sorted(values_PT[~planted_P][:, 1]) == list(range(FIRST_CALIBRATION, FIRST_CALIBRATION + 60, 2))

    def test_nothing_is_learned_without_another_trigger_or_clean_nets(self):
        some = setting(image_set(), effort="standard")
        assert Undetectable(grid="rates")._clean_nets(some) is None
        assert Undetectable(grid="attacks")._clean_nets(some.but(effort="quick")) is None
        assert Undetectable(grid="attacks", detectors="strip")._clean_nets(some) is None
        assert Undetectable(grid="attacks")._clean_nets(some) == Need(None, Traits(), 60, FIRST_CALIBRATION)

    def test_traits_of_a_net_are_numbers(self):
        first, second = (Traits().arrays(net, world(DATA))["value_T"] for net in (wired(ATTACK), twin()))
        assert first.shape == second.shape
        assert np.isfinite(first).all()
        assert not np.array_equal(first, second)


def judges(name):
    return registry.entry("detectors", name)().level


class TestNeeds:
    def test_all_detectors_of_the_catalogue_take_part(self):
        asked = Undetectable()._detectors(setting(image_set(), effort="standard"))
        assert sorted(asked) == sorted(set(registry.names("detectors")) - {"population"})
        assert {name for name in asked if registry.entry("detectors", name).null} == set(NULLS)
        assert all(QUICK[name].keys() <= registry.entry("detectors", name).model_fields.keys() for name in QUICK)

    def test_everything_that_is_asked_for_was_announced(self):
        claim, some = Undetectable(grid="own"), setting(image_set(), effort="standard")
        found = claim.decide(StrictBench(FunctionBench(some, works), claim))
        assert len([c for c in found.cells if c.quantity == AUROC]) == len(claim._detectors(some))

    def test_clean_nets_for_calibration_are_nobody_elses(self):
        needs = Undetectable().needs(setting(image_set(), effort="standard", population=20))
        apart = [need for need in needs if need.first]
        assert {(need.attack, need.seeds, need.first) for need in apart} == {(None, 60, FIRST_CALIBRATION)}
        assert max(need.first + need.seeds for need in needs if not need.first) < FIRST_CALIBRATION
        assert {level_of(need.question) for need in apart if isinstance(need.question, Scanned)} == {Level.MODEL}
        assert not [need for need in Undetectable().needs(setting(image_set())) if need.first]

    def test_detectors_that_look_at_the_net_alone_are_told_no_attack(self):
        for need in Undetectable().needs(setting(image_set(), effort="standard")):
            if isinstance(need.question, Scanned):
                expected = None if level_of(need.question) is Level.MODEL else need.attack
                assert need.question.attack == expected
        assert set(SECRETLESS) == {name for name in registry.names("detectors") if judges(name) is Level.MODEL} - {"population"}

    def test_a_detector_that_is_not_there_is_refused_at_once(self):
        with pytest.raises(UsageError, match=r"E-NAME .*Did you mean 'strip'"):
            registry.parse("claims", "undetectable:detectors=strp+scan")

    def test_map_or_line_of_what_is_visible(self):
        def charts(**changes):
            return Undetectable().charts(setting(image_set(), **{"effort": "thorough", **changes}))

        visible, *_, table = charts()
        assert (visible.kind, visible.y, visible.x_line, table.kind) == ("map", "size", 1 / CLASSES, "table")
        assert visible.where == {"trigger": "patch", "mapping": "all_to_one"}
        line, *_ = charts(attack=ATTACK.but(trigger=Blend()))
        assert (line.kind, line.y, line.log_x, line.x_line) == ("band", None, True, None)
        assert [chart.kind for chart in charts(effort="quick")] == ["table"]

    def test_one_map_of_detectors_for_each_trigger_and_label_map(self):
        """Each field has a detector and an attack to itself; where one class is the target, half poison is marked."""
        some = setting(image_set(), effort="thorough")
        claim = Undetectable(detectors=THREE)
        _, *matrix, _ = claim.charts(some)
        assert [(chart.where["trigger"], chart.where["mapping"]) for chart in matrix] == [
            (trigger, mapping) for trigger in CODES for mapping in ("all_to_one", "all_to_all")
        ]
        assert [chart.x_line for chart in matrix] == [1 / CLASSES, None] * 4
        found = claim.decide(StrictBench(FunctionBench(some, works), claim))
        maps = [drawing for drawing in drawings(found) if drawing.title == matrix[0].title]
        assert len(maps) == len(matrix)
        for chart in matrix:
            mine = [c for c in found.cells if c.quantity == AUROC and chart.where.items() <= c.condition.items()]
            places = {(c.condition["rate"], c.condition["detector"]) for c in mine}
            own = (chart.where["trigger"], chart.where["mapping"]) == ("patch", "all_to_one")
            assert len(places) == len(mine) == 3 * (6 if own else 2)


class TestArms:
    def test_own_first_and_each_once(self):
        some = setting(image_set(), seeds=7, arms_seeds=3)
        found = arms(some, ("rates", "attacks", "map"))
        assert (found[0].attack, found[0].seeds) == (ATTACK, 7)
        assert {arm.seeds for arm in found[1:]} == {3}
        assert len({arm.attack for arm in found}) == len(found) == len({tuple(arm.condition.items()) for arm in found})
        assert {arm.attack.trigger.kind for arm in found} == set(CODES)
        assert {arm.condition.get("size") for arm in found} == {1, 2, 3, 5, None}

    def test_an_attack_that_was_named_is_not_varied(self):
        assert [arm.attack for arm in arms(setting(image_set(), only_attack=True), ("rates", "attacks"))] == [ATTACK]

    def test_a_map_of_labels_is_kept(self):
        attack = ATTACK.but(mapping={1: 2}, rate=0.05)
        found = arms(setting(image_set(), attack=attack), ("attacks",))
        assert {arm.condition["mapping"] for arm in found} == {"a map of labels"}
        assert len(found) > 1

    def test_rates_that_the_training_set_cannot_give_are_left_out(self):
        few = setting(image_set(), train_counts=(50,) * CLASSES)
        assert [arm.attack.rate for arm in arms(few, ("rates",))] == [0.1, 0.005, 0.01, 0.05, 0.2]

    def test_the_cross_is_white_with_black_between_its_arms(self):
        cross = OTHERS[-1]
        stamped = cross.stamp(np.full((1, 1, 28, 28), 100, dtype=np.uint8))[0, 0, -6:-1, -6:-1]
        white, black = (stamped == 255), (stamped == 0)
        assert np.diag(white).all()
        assert np.diag(white[::-1]).all()
        assert (white.sum(), black.sum(), (stamped == 100).sum()) == (9, 4, 12)
        assert cross.png == CROSS
        assert isinstance(OTHERS[0], Blend)
        assert isinstance(OTHERS[1], Sinusoid)
        assert not any(isinstance(other, Patch) for other in OTHERS)
