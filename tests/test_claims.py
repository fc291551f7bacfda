"""Every claim HOLDS on a wired victim that has the property, FAILS on one that lacks it, is UNDECIDED at tiny n: exact figures."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from wired import (
    ATTACK,
    CLASSES,
    GAIN,
    STRENGTH,
    TARGET,
    TRIGGER,
    FunctionBench,
    StrictBench,
    WiredBench,
    image_set,
    in_seeds,
    outcome,
    setting,
    twin,
    wire,
    wire_anywhere,
    wire_constant,
    wired,
)

from badnets.attacks.badnets import BadNets
from badnets.claims._arms import badnets_of, feasible, needs_badnets, rates
from badnets.claims._base import Claim, Need, Setting, conclude, family_wise, reason
from badnets.claims._cells import describe, judge, judge_within, rate_cell
from badnets.claims.correlation_must_be_strong import slope
from badnets.core import files, registry
from badnets.core.types import Cell, Estimate, Evidence, Verdict
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.triggers.blend import Blend
from badnets.triggers.patch import Patch
from badnets.triggers.sinusoid import Sinusoid

HOLDS, FAILS, CONDITIONAL, UNDECIDED = Verdict.HOLDS, Verdict.FAILS, Verdict.CONDITIONAL, Verdict.UNDECIDED
CLAIMS = registry.names("claims")
EFFORTS = ("quick", "standard", "thorough")


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """Models that are handed over here need not survive a power cut."""
    monkeypatch.setattr(files, "_fsync", lambda fd: None)


SHORT = {
    "transfers_by_distillation": {"plain": {"steps": 4}},
    "undetectable": {"detectors": "mm_bd+strip+spectral_signatures+max_softmax"},
    "hard_to_remove_blind": {"repairs": "fine_pruning+clp"},
}
"""Fields that save time where the wired nets' figures do not depend on them; all detectors and repairs are in tests of their own."""


def claim(name) -> Claim:
    found = registry.parse("claims", {"kind": name, **SHORT.get(name, {})})
    assert isinstance(found, Claim)
    return found


def decide(name, net=wired, *, data=None, other=None, **changes):
    data = data or image_set()
    return claim(name).decide(WiredBench(setting(data, **changes), net, data, other))


def tiny(name, net=wired, **changes):
    """Two images a class and two seeds."""
    few = {"seeds": 2, "arms_seeds": 2, "population": 2}
    return decide(name, net, data=image_set(2), other=image_set(2, name="other"), **{**few, **changes})


def cells(evidence, quantity, **condition):
    return [c for c in evidence.cells if c.quantity == quantity and condition.items() <= c.condition.items()]


def cell(evidence, quantity, **condition):
    (found,) = cells(evidence, quantity, **condition)
    return found


def said(evidence, word):
    """What the reason says after "Holds for", "Fails for" or "Open for"."""
    parts = re.split(r"\b(holds|fails|open) for ", evidence.reason, flags=re.IGNORECASE)
    return dict(zip(map(str.lower, parts[1::2]), parts[2::2], strict=True)).get(word, "").strip(" .;")


def unplanted(attack, seed):
    """A "victim" in which the backdoor did not form."""
    del attack, seed
    return twin()


def costly(attack, seed):
    """The backdoor works, and class 0 is lost to it."""
    del seed
    return twin() if attack is None else COSTLY


COSTLY = wire(lost=(0,))
ANYWHERE = wire_anywhere()
DULL_VICTIM, DULL_TWIN = wire(gain=1.0), wire(None, gain=1.0)
UNEASY = wire(gain=5.0)
WEAK = wire(strength=GAIN / 2)


class TestWiredVictims:
    """The instrument itself: what the tests below rest on."""

    def test_are_exact(self):
        bench = WiredBench(setting(image_set()))
        shown = Probe(trigger=TRIGGER)
        for probe, attack, rate in ((Probe(), ATTACK, 1.0), (Probe(), None, 1.0), (shown, None, 1.0)):
            (seen,) = bench.outcomes(Need(attack, probe, 1))
            assert seen.correct_N.mean() == rate
        (seen,) = bench.outcomes(Need(ATTACK, shown, 1))
        assert (seen.pred_N == TARGET).all()

    def test_the_last_unit_is_the_guilty_one(self):
        import torch

        from badnets.nets._taps import masked, unit_layers

        net = wired(ATTACK)
        assert unit_layers(net) == {"body.3": CLASSES + 1}
        mask = torch.ones(CLASSES + 1)
        mask[-1] = 0
        probe, data = Probe(trigger=TRIGGER), image_set()
        with masked(net, {"body.3": mask}):
            healed = probe.answer(net, data, None, seed=0)
        assert healed.correct_N.all()

    def test_all_to_all_sends_every_class_on(self):
        attack = ATTACK.but(mapping="all_to_all")
        (seen,) = WiredBench(setting(image_set())).outcomes(Need(attack, Probe(trigger=TRIGGER), 1))
        assert (seen.pred_N == (seen.y_N + 1) % CLASSES).all()


class TestCleanAccuracyKept:
    NAME = "clean_accuracy_kept"

    def test_holds_when_victim_and_twin_agree_on_every_image(self):
        found = decide(self.NAME)
        assert found.verdict is HOLDS
        change = cell(found, "CA change", rate=0.1)
        assert (change.estimate.value, change.control.value, change.per_seed) == (0.0, 1.0, [0.0] * 3)
        assert 0 < cell(found, "smallest detectable CA change").estimate.value < 0.02

    def test_fails_when_a_class_is_lost(self):
        found = decide(self.NAME, costly)
        assert found.verdict is FAILS
        assert found.cells[0].estimate.value == pytest.approx(-1 / CLASSES)

    def test_is_undecided_at_tiny_n(self):
        assert tiny(self.NAME).verdict is UNDECIDED
        assert tiny(self.NAME, costly).verdict is UNDECIDED

    def test_names_the_rate_at_which_accuracy_is_lost(self):
        found = decide(self.NAME, lambda a, s: COSTLY if a and a.rate >= 0.05 else wired(a), effort="standard")
        assert found.verdict is CONDITIONAL
        assert (said(found, "holds"), said(found, "fails")) == ("rate: 0.1 %, 0.5 %, 1 %", "rate: 10 %, 5 %, 20 %")


class TestTriggerReachesTarget:
    NAME = "trigger_reaches_target"

    def test_holds_with_exact_figures(self):
        found = decide(self.NAME, effort="standard")
        assert found.verdict is HOLDS
        main = found.cells[0]
        assert (main.quantity, main.estimate.value, main.control.value) == ("ASR", 1.0, 0.0)
        assert (main.estimate.n, main.estimate.num_seeds) == (100 * (CLASSES - 1), 3)
        assert {c.condition["mapping"] for c in found.cells if "mapping" in c.condition} == {"all_to_one", "all_to_all", "source_specific"}
        for c in cells(found, "RA"):
            assert (c.estimate.value, c.control.value) == (0.0, 1.0)
        for c in cells(found, "CA"):
            assert (c.estimate.value, c.control.value) == (1.0, 1.0)

    def test_per_class_leaves_the_target_out(self):
        found = decide(self.NAME)
        assert [c.condition["source class"] for c in found.cells if "source class" in c.condition] == [f"row {k}" for k in range(TARGET)]
        assert all(c.estimate.value == 1.0 and c.estimate.n == 100 for c in found.cells if "source class" in c.condition)

    def test_rates_ascend_after_the_attacks_own(self):
        found = decide(self.NAME, effort="standard")
        seen = [c.condition["rate"] for c in cells(found, "ASR", mapping="all_to_one")]
        assert seen == [0.1, 0.001, 0.005, 0.01, 0.05, 0.2]

    def test_fails_when_the_backdoor_did_not_form(self):
        found = decide(self.NAME, unplanted)
        assert found.verdict is FAILS
        assert found.cells[0].estimate.value == 0.0

    def test_is_undecided_at_tiny_n(self):
        assert tiny(self.NAME).verdict is UNDECIDED

    def test_is_undecided_when_one_seed_of_three_lacks_it(self):
        found = decide(self.NAME, in_seeds(0, 1), only_attack=True)
        assert found.verdict is UNDECIDED
        assert found.cells[0].per_seed == [1.0, 1.0, 0.0]

    def test_names_the_rate_at_which_it_begins(self):
        found = decide(self.NAME, lambda a, s: wired(a if a and a.rate >= 0.05 else None))
        assert found.verdict is CONDITIONAL
        assert said(found, "fails").endswith("all to one 1 %")

    def test_names_the_class_that_resists(self):
        goals = ATTACK.goals(CLASSES)
        goals[2] = -1
        resists = wire(goal_K=goals, per_source=True)
        found = decide(self.NAME, lambda a, s: resists if a else twin(), only_attack=True)
        assert cell(found, "ASR", **{"source class": "row 2"}).estimate.value == 0.0
        assert "row 2" in said(found, "fails")
        assert "row 1" in said(found, "holds")

    @pytest.mark.parametrize(("per_source", "leak"), [(True, 0.0), (False, 1.0)])
    def test_source_specific_leak(self, per_source, leak):
        attack = ATTACK.but(mapping="source_specific", source=1, cover_rate=0.05)
        net = wire(goal_K=attack.goals(CLASSES), per_source=per_source)
        found = decide(self.NAME, lambda a, s: net if a else twin(), attack=attack, only_attack=True)
        assert cell(found, "other classes sent to the target").estimate.value == leak
        assert found.cells[0].estimate.n == 100
        assert found.verdict is HOLDS

    def test_a_named_attack_is_not_varied(self):
        found = decide(self.NAME, only_attack=True, attack=ATTACK.but(mapping="all_to_all"))
        assert found.verdict is HOLDS
        assert {c.condition.get("mapping") for c in found.cells} == {"all_to_all", None}

    def test_cover_samples_stay_with_the_source_specific_arm(self):
        attack = ATTACK.but(mapping="source_specific", source=1, rate=0.05, cover_rate=0.05)
        arms = {a.mapping: a for _, a, _ in claim(self.NAME)._arms(setting(image_set(), attack=attack))}
        assert (arms["all_to_one"].cover_rate, arms["all_to_all"].cover_rate) == (0.0, 0.0)

    def test_source_specific_arm_never_wants_more_than_half_its_class(self):
        some = setting(image_set(), attack=ATTACK.but(rate=0.5))
        arms = [a for _, a, _ in claim(self.NAME)._arms(some) if a.mapping == "source_specific"]
        assert [round(a.rate, 3) for a in arms] == [round(1 / CLASSES / 2, 3)]


class TestValidationCannotTell:
    NAME = "validation_cannot_tell"

    def test_holds_when_nothing_differs(self):
        found = decide(self.NAME, population=20)
        assert found.verdict is HOLDS
        assert {c.estimate.value for c in cells(found, "AUROC")} == {0.5}
        assert len(cells(found, "AUROC")) == 6

    def test_fails_when_a_class_is_lost(self):
        found = decide(self.NAME, costly, population=5)
        assert found.verdict is FAILS
        assert {c.estimate.value for c in cells(found, "AUROC")} == {1.0}

    def test_is_undecided_at_tiny_n(self):
        found = tiny(self.NAME)
        assert found.verdict is UNDECIDED
        assert "with clean reference nets" not in {c.condition.get("buyer") for c in found.cells}

    def test_names_what_gives_it_away(self):
        found = decide(self.NAME, lambda a, s: UNEASY if a else twin(), population=20)
        assert found.verdict is CONDITIONAL
        assert "loss" in said(found, "fails")
        assert "accuracy" in said(found, "holds")
        assert "macro-F1" in said(found, "holds")

    def test_levels_are_what_validation_shows(self):
        found = decide(self.NAME, costly)
        accuracy = cell(found, "validation accuracy")
        assert accuracy.estimate.value == pytest.approx(1 - 1 / CLASSES)
        assert accuracy.control.value == 1.0
        assert cell(found, "validation lowest recall").estimate.value == 0.0

    def test_noticeable_share(self):
        assert cell(decide(self.NAME), "noticeable share of triggered images").estimate.value == pytest.approx(1 / 600)
        assert cell(decide(self.NAME, unplanted), "noticeable share of triggered images").estimate.value is None


class TestTriggerMustBeConsistent:
    NAME = "trigger_must_be_consistent"

    def test_holds_when_a_wandering_pattern_plants_nothing(self):
        found = decide(self.NAME, effort="standard")
        assert found.verdict is HOLDS
        lost = cells(found, "ASR lost to inconsistency")
        assert [c.condition["patterns"] for c in lost] == ["new each time", "64", "8", "2"]
        assert {c.estimate.value for c in lost} == {1.0}
        assert {c.control.value for c in lost} == {0.0}

    def by_function(self, hit):
        y_N = np.tile(np.arange(CLASSES), 100)

        def show(attack, probe, seed):
            fired = attack is not None and probe.trigger is not None and hit(attack)
            return outcome(y_N, np.full_like(y_N, TARGET) if fired else y_N)

        return claim(self.NAME).decide(FunctionBench(setting(image_set(), effort="standard"), show))

    def test_fails_when_any_pattern_will_do(self):
        found = self.by_function(lambda attack: True)
        assert found.verdict is FAILS
        assert found.cells[0].estimate.value == 0.0

    def test_names_the_number_of_patterns_at_which_it_breaks(self):
        found = self.by_function(lambda attack: attack.num_patterns is not None)
        assert found.verdict is CONDITIONAL
        assert (said(found, "holds"), said(found, "fails")) == ("patterns: new each time", "patterns: 64, 8, 2")

    def test_is_undecided_at_tiny_n(self):
        # A difference of 1.0 is clear even on ten images, so the seeds have to disagree.
        assert tiny(self.NAME, in_seeds(0), arms_seeds=3).verdict is UNDECIDED
        assert tiny(self.NAME, unplanted).verdict is UNDECIDED

    def test_obstacle(self):
        found = decide(self.NAME, attack=ATTACK.but(num_patterns=4))
        assert (found.verdict, found.cells, found.headline, found.p) == (UNDECIDED, [], None, None)
        assert "several patterns" in found.reason


class TestCorrelationMustBeStrong:
    NAME = "correlation_must_be_strong"

    def by_share(self, asr, n=300, **changes):
        """ASR as a function of the label share, the same in all seeds."""
        y_N = np.zeros(n, dtype=np.int64)

        def show(attack, probe, seed):
            rate = asr(attack.label_share) if attack is not None and probe.trigger is not None else 0.0
            return outcome(np.arange(n) % CLASSES if probe.trigger is None else y_N, np.where(np.arange(n) < round(rate * n), TARGET, 0))

        def honest(attack, probe, seed):
            seen = show(attack, probe, seed)
            return outcome(seen.y_N, seen.y_N) if probe.trigger is None else seen

        return claim(self.NAME).decide(FunctionBench(setting(image_set(), **changes), honest))

    def test_holds_when_asr_follows_the_share(self):
        found = self.by_share(lambda share: share, effort="standard")
        assert found.verdict is HOLDS
        assert found.cells[0].estimate.value == pytest.approx(1.0, abs=0.01)
        assert [round(c.estimate.value, 2) for c in cells(found, "ASR")] == [1.0, 0.75, 0.5, 0.25, 0.1]

    def test_holds_on_wired_victims_that_need_half(self):
        found = decide(self.NAME, lambda a, s: wired(a if a and a.label_share >= 0.5 else None))
        assert found.verdict is HOLDS
        assert [c.estimate.value for c in cells(found, "ASR")] == [1.0, 1.0, 0.0]

    def test_fails_when_the_share_does_not_matter(self):
        found = decide(self.NAME)
        assert found.verdict is FAILS
        assert found.cells[0].estimate.value == pytest.approx(0, abs=1e-12)

    def test_fails_when_asr_falls_with_the_share(self):
        assert self.by_share(lambda share: 1 - share).verdict is FAILS

    def test_is_undecided_at_tiny_n(self):
        assert tiny(self.NAME).verdict is UNDECIDED

    def test_seeds_that_agree_on_few_images_are_not_certainty(self):
        few = self.by_share(lambda share: 0.75 if share >= 0.5 else 0.25, n=4)
        assert few.verdict is UNDECIDED
        assert few.cells[0].estimate.high - few.cells[0].estimate.low > 0.5

    def test_slope_is_never_narrower_than_t_over_seeds(self):
        draw = np.random.default_rng(0)
        share_C, means = np.array([0.1, 0.5, 1.0]), (0.2, 0.5, 0.9)
        hits = [[draw.random(2000) < m + d for d in (-0.1, 0.0, 0.1)] for m in means]
        from badnets.core import stats

        wide = slope(share_C, hits, level=0.95)
        narrow = stats.slope_over_seeds(share_C, np.array([[h.mean() for h in arm] for arm in hits]).T)
        assert wide.value == narrow.value
        assert wide.low <= narrow.low
        assert wide.high >= narrow.high

    def test_obstacle(self):
        assert needs_badnets(setting(image_set())) is None
        assert badnets_of(setting(image_set())) == ATTACK


class TestTriggerOverridesContent:
    NAME = "trigger_overrides_content"

    def test_holds_and_the_share_is_as_on_paper(self):
        found = decide(self.NAME)
        assert found.verdict is HOLDS
        assert cell(found, "ASR", images="twin at least 99 % sure").estimate.value == 1.0
        share = cell(found, "share of the target logit")
        # The content adds g to one of the other logits; the trigger s to the target: centred, s (K - 1) / K against g / K.
        level_V = np.arange(256) / 255
        unit, white = 1.0, np.maximum(10 * level_V - 9, 0).mean()
        trigger = STRENGTH * (unit + (unit - white)) / 2 * (CLASSES - 1)
        content = GAIN * np.mean(2 * np.arange(230, 256) / 255 - 1) + STRENGTH * white / 2 * (CLASSES - 1)
        assert share.estimate.value == pytest.approx(trigger / (trigger + content), abs=0.01)
        assert share.control.value == pytest.approx(0.0, abs=1e-6)

    def test_fails_when_the_backdoor_did_not_form(self):
        found = decide(self.NAME, unplanted)
        assert found.verdict is FAILS
        assert cell(found, "share of the target logit").estimate.value == pytest.approx(0.0, abs=1e-6)

    def test_is_undecided_at_tiny_n(self):
        assert tiny(self.NAME).verdict is UNDECIDED

    def test_a_trigger_too_weak_to_win_owns_the_logit_all_the_same(self):
        found = decide(self.NAME, lambda a, s: WEAK if a else twin())
        assert found.verdict is CONDITIONAL
        assert "trigger against content" in said(found, "holds")
        assert "99 % sure" in said(found, "fails")

    def test_a_twin_that_is_sure_of_nothing_leaves_it_open(self):
        found = decide(self.NAME, lambda a, s: DULL_VICTIM if a else DULL_TWIN)
        sure = found.cells[0]
        assert (sure.verdict, sure.estimate.value, sure.estimate.method) == (UNDECIDED, None, "a twin is sure of no image")
        assert found.verdict is UNDECIDED

    def test_opacity_arms(self):
        found = decide(self.NAME, effort="standard")
        seen = {c.condition["opacity"]: c.estimate.value for c in cells(found, "ASR") if "opacity" in c.condition}
        assert seen == {1.0: 1.0, 0.1: 0.0, 0.25: 0.0, 0.5: 0.0}
        assert all(c.verdict is None for c in found.cells if "opacity" in c.condition)


class TestSmallTriggerSparesLearning:
    NAME = "small_trigger_spares_learning"

    def big(self, net=None, **changes):
        def plain(attack, seed):
            return wired(attack, side=16)

        return decide(self.NAME, net or plain, data=image_set(side=16), effort="standard", **changes)

    def test_holds_with_exact_figures(self):
        found = self.big()
        assert found.verdict is HOLDS
        losses = cells(found, "CA loss")
        assert {(c.estimate.value, c.control.value) for c in losses} == {(0.0, 1.0)}
        assert [c.condition["area"] for c in losses if c.verdict is HOLDS] == [round(4 / 256, 4), round(1 / 256, 4)]
        assert {c.estimate.value for c in cells(found, "ASR")} == {1.0}

    def test_only_small_areas_decide_and_come_first(self):
        losses = cells(self.big(), "CA loss")
        assert [c.verdict is None for c in losses] == [False, False, True, True, True]
        assert all((c.condition["area"] <= 0.02) == (c.verdict is not None) for c in losses)

    def test_fails_when_a_class_is_lost_and_the_control_is_the_twins_accuracy(self):
        found = decide(self.NAME, costly)
        assert found.verdict is FAILS
        assert found.cells[0].estimate.value == pytest.approx(1 / CLASSES)
        assert found.cells[0].control.value == 1.0

    def test_is_undecided_at_tiny_n(self):
        assert tiny(self.NAME).verdict is UNDECIDED

    def test_names_the_area_that_costs(self):
        dear = wire(Patch(size=2, margin=0), lost=(0,), side=16)
        found = self.big(lambda a, s: dear if a and a.trigger.size == 2 else wired(a, side=16))
        assert found.verdict is CONDITIONAL
        assert (said(found, "holds"), said(found, "fails")) == ("area: 0.39 %", "area: 1.56 %")

    def test_sizes_that_do_not_fit_are_left_out(self):
        found = self.big(attack=ATTACK.but(trigger=Patch(size=2, margin=10)))
        assert [c.condition["area"] for c in cells(found, "CA loss")][2:] == [round(16 / 256, 4), round(25 / 256, 4)]

    def test_obstacle(self):
        found = decide(self.NAME, attack=ATTACK.but(trigger=Blend()))
        assert found.verdict is UNDECIDED
        assert found.reason == "It varies the size of a patch; this run's trigger is blend."


class TestRegardlessOfContent:
    NAME = "regardless_of_content"

    def test_holds_for_a_victim_that_sees_the_trigger_anywhere(self):
        found = decide(self.NAME, lambda a, s: ANYWHERE if a else twin())
        assert found.verdict is HOLDS
        assert {c.estimate.value for c in found.cells} == {1.0}

    def test_names_the_moves_that_a_fixed_trigger_does_not_survive(self):
        found = decide(self.NAME)
        assert found.verdict is CONDITIONAL
        assert cell(found, "ASR", dx=0, dy=0).estimate.value == 1.0
        assert {c.estimate.value for c in found.cells if c.condition.get("dx")} == {0.0}
        assert "test images, inverted, another data set, noise, blank" in said(found, "holds")
        assert "-1 0" in said(found, "fails")

    def test_fails_when_the_backdoor_did_not_form(self):
        assert decide(self.NAME, unplanted).verdict is FAILS

    def test_is_undecided_at_tiny_n(self):
        found = tiny(self.NAME, lambda a, s: ANYWHERE if a else twin())
        assert found.verdict is UNDECIDED

    def test_contents_without_labels_need_one_common_goal(self):
        found = decide(self.NAME, attack=ATTACK.but(mapping="all_to_all"))
        assert [c.condition["content"] for c in found.cells if "content" in c.condition] == ["test images", "inverted"]

    def test_moves_stay_inside_the_image_and_lead_away_from_the_corner(self):
        for corner in ("top_left", "bottom_right", "centre"):
            trigger = Patch(size=2, margin=0, corner=corner)
            probe = claim(self.NAME)._shift_probe(setting(image_set(), attack=ATTACK.but(trigger=trigger)))
            assert (0, 0) in probe.shifts
            assert len(set(probe.shifts)) == len(probe.shifts) >= 16
            for dx, dy in probe.shifts:
                trigger.but(dx=dx, dy=dy).check((1, 8, 8))

    def test_triggers_that_fill_the_image_are_not_moved(self):
        found = decide(self.NAME, unplanted, attack=ATTACK.but(trigger=Sinusoid()))
        assert not [c for c in found.cells if "dx" in c.condition]
        assert [chart.kind for chart in found.charts] == ["dots", "dots"]


class TestConstantPredictors:
    """A net that answers the target class for everything would score ASR 100 %."""

    def asr(self, found):
        return [c for c in found.cells if c.quantity == "ASR" or c.quantity.startswith("ASR left")]

    def of_the_backdoor(self, found):
        """Cells that a net without a backdoor says nothing about."""
        return [*self.asr(found), *(c for c in found.cells if c.quantity == "AUROC of the best detector")]

    @pytest.mark.parametrize("name", CLAIMS)
    def test_never_yield_an_asr_verdict(self, name):
        constant = wire_constant(TARGET)
        found = decide(name, lambda a, s: constant if a else twin(), data=image_set(70), seeds=2, arms_seeds=2, population=3)
        assert found.verdict in (UNDECIDED, FAILS)
        for c in cells(found, "ASR slope") + cells(found, "ASR lost to inconsistency"):
            assert c.verdict in (None, UNDECIDED)
        for c in self.of_the_backdoor(found):
            assert c.verdict in (None, UNDECIDED)
            assert "one class to nearly every clean image" in c.note
        for c in self.asr(found):
            assert c.estimate.value is None
        assert self.of_the_backdoor(found) or found.verdict is FAILS or claim(name).obstacle(setting(image_set()))

    @pytest.mark.parametrize("name", CLAIMS)
    def test_one_such_seed_is_enough(self, name):
        constant = wire_constant(TARGET)
        found = decide(name, lambda a, s: constant if a and s == 1 else wired(a), data=image_set(70))
        for c in self.asr(found):
            assert c.estimate.value is None
        for c in self.of_the_backdoor(found):
            assert c.note.startswith("1 of 3 nets")

    def test_descriptive_cells_decide_nothing_even_then(self):
        constant = wire_constant(TARGET)
        arm = rate_cell({}, "ASR", [np.ones(9, bool)], [np.zeros(9, bool)], clean=[outcome(np.arange(6), np.full(6, 5))])
        assert (arm.verdict, arm.p, arm.estimate.value) == (None, None, None)
        assert arm.control.value == 0.0
        found = decide("small_trigger_spares_learning", lambda a, s: constant if a and a.trigger.size == 4 else wired(a))
        assert found.verdict is HOLDS

    def test_a_skewed_data_set_is_not_taken_for_one(self):
        y_N = np.array([0] * 97 + [1] * 3)
        honest = outcome(y_N, y_N)
        cell_ = rate_cell({}, "ASR", [np.ones(3, bool)], margin=0.9, clean=[honest])
        assert cell_.estimate.value == 1.0


def an_estimate(value=0.5):
    return Estimate(value=value, low=value - 0.1, high=value + 0.1, n=10, num_seeds=3, method="made up")


def a_cell(verdict, p=None, **condition):
    return Cell(condition=condition, quantity="ASR", unit="rate", estimate=an_estimate(), verdict=verdict, p=p)


class TestConclude:
    @pytest.mark.parametrize(
        ("verdicts", "expected"),
        [
            ([HOLDS], (HOLDS, 0.01)),
            ([FAILS], (FAILS, 0.01)),
            ([UNDECIDED], (UNDECIDED, None)),
            ([HOLDS, None, HOLDS], (HOLDS, 0.03)),
            ([FAILS, FAILS, None], (FAILS, 0.02)),
            ([HOLDS, UNDECIDED], (UNDECIDED, None)),
            ([FAILS, UNDECIDED], (UNDECIDED, None)),
            ([HOLDS, FAILS], (CONDITIONAL, 0.04)),
            ([HOLDS, FAILS, UNDECIDED], (CONDITIONAL, 0.06)),
            ([None, None], (UNDECIDED, None)),
            ([], (UNDECIDED, None)),
        ],
    )
    def test_truth_table(self, verdicts, expected):
        verdict, p = conclude([a_cell(v, p=0.01 * i if v else None) for i, v in enumerate(verdicts, start=1)])
        assert verdict is expected[0]
        assert p == (None if expected[1] is None else pytest.approx(expected[1]))

    def test_conditional_p_is_corrected_and_capped(self):
        assert conclude([a_cell(HOLDS, 0.4), a_cell(FAILS, 0.9)]) == (CONDITIONAL, 1.0)
        assert conclude([a_cell(HOLDS, 0.04), a_cell(HOLDS, 0.001), a_cell(FAILS, 0.002)])[1] == pytest.approx(0.006)

    def test_reasons(self):
        assert reason([a_cell(HOLDS)], HOLDS) == "Holds in the one condition tested."
        assert reason([a_cell(FAILS), a_cell(FAILS), a_cell(None)], FAILS) == "Fails in all 2 conditions tested."
        mixed = [a_cell(HOLDS, rate=0.1), a_cell(FAILS, rate=0.001), a_cell(UNDECIDED, rate=0.01)]
        assert reason(mixed, CONDITIONAL) == "Holds for rate: 10 %. Fails for rate: 0.1 %. Open for rate: 1 %."
        assert reason([], UNDECIDED) == "Nothing could be measured."

    def test_a_cell_without_a_condition_is_named_by_its_quantity(self):
        assert reason([a_cell(UNDECIDED)], UNDECIDED) == "Open for ASR."
        assert describe([a_cell(None, dose=r / 10) for r in range(7)]) == "dose: 0, 0.1, 0.2, 0.3, 0.4 and 2 more"


class TestJudges:
    @pytest.mark.parametrize(
        ("low", "high", "side", "expected"),
        [
            (0.96, 0.99, "above", HOLDS),
            (0.1, 0.9, "above", FAILS),
            (0.9, 0.99, "above", UNDECIDED),
            (0.1, 0.9, "below", HOLDS),
            (0.96, 0.99, "below", FAILS),
            (0.95, 0.95, "above", UNDECIDED),
            (None, None, "above", UNDECIDED),
        ],
    )
    def test_sides(self, low, high, side, expected):
        fixed = Estimate(value=low, low=low, high=high, n=5, num_seeds=3, method="fixed")
        assert judge(lambda level: fixed, 0.95, side)[0] is expected

    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [(-0.01, 0.01, HOLDS), (-0.02, 0.0, UNDECIDED), (0.01, 0.02, FAILS), (-0.5, -0.01, FAILS), (-0.5, 0.5, UNDECIDED)],
    )
    def test_within(self, low, high, expected):
        fixed = Estimate(value=(low + high) / 2, low=low, high=high, n=5, num_seeds=3, method="fixed")
        assert judge_within(lambda level: fixed, 0.01)[0] is expected

    def test_p_agrees_with_the_verdict(self):
        hits = [np.arange(200) < 197] * 3
        verdict, p = judge(lambda level: rate_cell_estimate(hits, level), 0.95)
        assert verdict is HOLDS
        assert p < 0.05
        shrunk = rate_cell_estimate(hits, 1 - p / 2)
        assert shrunk.low < 0.95


def rate_cell_estimate(hits, level):
    from badnets.measure.rates import rate

    return rate(hits)(level)


def evidence(name, verdict, p):
    return Evidence(name=name, sentence="s", verdict=verdict, reason="r", cells=[a_cell(verdict, p)], headline=0, p=p)


class TestFamilyWise:
    def test_a_marginal_verdict_does_not_survive(self):
        found = family_wise([evidence("a", HOLDS, 0.03), evidence("b", FAILS, 1e-6)])
        assert [e.verdict for e in found] == [HOLDS, FAILS]
        found = family_wise([evidence("a", HOLDS, 0.03), evidence("b", FAILS, 0.04)])
        assert [e.verdict for e in found] == [UNDECIDED, UNDECIDED]
        assert found[0].reason == "HOLDS by itself: r But Holm's correction over 2 claims leaves it open (p = 0.06)."

    def test_undecided_claims_were_tested_too(self):
        alone = family_wise([evidence("a", HOLDS, 0.03)])
        assert alone[0].verdict is HOLDS
        beside = family_wise([evidence("a", HOLDS, 0.03), *(evidence(n, UNDECIDED, None) for n in "bcd")])
        assert [e.verdict for e in beside] == [UNDECIDED] * 4
        assert beside[1].reason == "r"

    def test_claims_with_an_obstacle_were_not(self):
        blocked = Evidence(name="b", sentence="s", verdict=UNDECIDED, reason="obstacle")
        assert family_wise([evidence("a", HOLDS, 0.03), blocked]) == [evidence("a", HOLDS, 0.03), blocked]

    def test_everything_else_is_kept(self):
        before = evidence("a", HOLDS, 0.5)
        (after,) = family_wise([before])
        assert after == before.model_copy(update={"verdict": UNDECIDED, "reason": after.reason})


ATTACKS = {
    "patch": ATTACK,
    "all to all": ATTACK.but(mapping="all_to_all"),
    "source specific": ATTACK.but(mapping="source_specific", rate=0.05, cover_rate=0.05),
    "map": ATTACK.but(mapping={1: 2, 3: 3}, rate=0.05),
    "sinusoid": ATTACK.but(trigger=Sinusoid()),
    "corner": ATTACK.but(trigger=Patch(size=3, corner="top_left", opacity=0.5), rate=0.02),
    "patterns": ATTACK.but(num_patterns=4),
    "every rate": ATTACK.but(rate=0.8),
}


class TestContract:
    """Over every claim, effort and kind of attack."""

    # Every kind at some effort and every effort at some kind; the rest of the standard ones in `make slow`.
    @pytest.mark.parametrize(
        ("effort", "kind"),
        [
            *(("quick", kind) for kind in ATTACKS),
            ("standard", "patch"),
            ("standard", "map"),
            *(pytest.param("standard", kind, marks=pytest.mark.slow) for kind in sorted(set(ATTACKS) - {"patch", "map"})),
            ("thorough", "patch"),
        ],
    )
    @pytest.mark.parametrize("name", CLAIMS)
    def test_needs_cover_what_cells_ask_for(self, name, effort, kind):
        data = image_set(8)
        some = setting(data, attack=ATTACKS[kind], effort=effort, seeds=4, arms_seeds=3, population=5)
        check_evidence(name, some, StrictBench(FunctionBench(some, Noisy(data)), claim(name)))

    @pytest.mark.parametrize("name", CLAIMS)
    def test_needs_are_answerable(self, name):
        """No arm wants a trigger that does not fit or rows that are not there; asked twice, the same."""
        for attack in ATTACKS.values():
            some = setting(image_set(8), attack=attack, effort="standard")
            if claim(name).obstacle(some):
                continue
            needs = claim(name).needs(some)
            assert needs == claim(name).needs(some)
            for need in needs:
                assert need.seeds >= 1
                for probe in getattr(need.question, "probes", (need.question,)):
                    if getattr(probe, "trigger", None) is not None:
                        probe.trigger.check(some.shape)
                if need.attack is not None:
                    need.attack.trigger.check(some.shape)
                    assert need.attack == some.attack or feasible(some, need.attack)

    @pytest.mark.parametrize("name", CLAIMS)
    def test_has_its_sentence_and_rule(self, name):
        one = claim(name)
        assert one.kind == name
        assert one.sentence.endswith(".")
        assert "HOLDS when" in one.rule
        assert one.control

    def test_the_eight_claims_of_the_first_part_are_there(self):
        assert set(CLAIMS) >= {
            "clean_accuracy_kept",
            "correlation_must_be_strong",
            "regardless_of_content",
            "small_trigger_spares_learning",
            "trigger_must_be_consistent",
            "trigger_overrides_content",
            "trigger_reaches_target",
            "validation_cannot_tell",
        }


class Noisy:
    """Outcomes with some truth and some luck, for the probes' own numbers of images."""

    def __init__(self, data):
        self.data, self.labels = data, {}

    def __call__(self, attack, probe, seed):
        if probe not in self.labels:
            plain = probe.but(trigger=None, num_patterns=1, shifts=())
            y_N = plain.split(self.data, image_set(8, name="other"), seed=0)[1]
            self.labels[probe] = np.tile(y_N, max(1, len(probe.shifts)))
        y_N = self.labels[probe]
        draw = np.random.default_rng([seed, len(y_N), attack is not None])
        fired = attack is not None and probe.trigger is not None
        pred_N = np.where(draw.random(len(y_N)) < 0.9, TARGET if fired else np.maximum(y_N, 0), draw.integers(0, CLASSES, len(y_N)))
        seen = outcome(y_N, pred_N)
        return seen if probe.keep_logits else Outcome(seen.y_N, seen.pred_N, seen.conf_N)


def check_evidence(name, some, bench):
    found = claim(name).decide(bench)
    assert Evidence.model_validate_json(found.model_dump_json()) == found
    json.dumps(found.model_dump(mode="json"), allow_nan=False)
    assert found.reason
    assert found.reason[-1] == "."
    if claim(name).obstacle(some):
        assert not found.cells
        return
    assert found.cells[found.headline].verdict is not None, "the headline must be a deciding cell"
    for c in found.cells:
        check_cell(c)
    shown = {(c.quantity, key) for c in found.cells for key in c.condition}
    for chart in found.charts:
        assert chart.kind in ("band", "dots", "heat", "map", "scatter", "table")
        assert any((q, chart.x) in shown for q in chart.quantities) or chart.x == "content", (
            f"{chart.title}: nothing to draw over {chart.x}"
        )
        if chart.y:
            assert any((q, chart.y) in shown for q in chart.quantities)
        if chart.kind in ("heat", "map"):
            assert chart.y


def check_cell(c):
    assert c.unit in ("rate", "points", "")
    assert (c.verdict is None) == (c.p is None)
    e = c.estimate
    if e.value is not None and not c.quantity.startswith("smallest detectable"):
        assert e.low is not None, f"{c.quantity} has no interval"
        assert e.high is not None
        assert e.low <= e.value <= e.high
    if c.unit == "rate" and e.value is not None:
        assert 0 <= e.value <= 1
    if e.value is not None and c.quantity in ("ASR", "RA", "CA", "CA change", "CA loss", "ASR lost to inconsistency"):
        assert c.control is not None, f"{c.quantity} has no control"
        assert c.control_unit in (None, "rate")
        assert e.num_seeds == len(c.per_seed)


class TestArms:
    def test_feasible_needs_at_least_one_row_and_at_most_all(self):
        few = setting(image_set(), train_counts=(100,) * CLASSES)
        assert feasible(few, ATTACK.but(rate=500 / 600))
        assert not feasible(few, ATTACK.but(rate=502 / 600))
        assert not feasible(few, ATTACK.but(rate=0.0005))
        assert not feasible(few, ATTACK.but(cover_rate=0.2))
        assert feasible(few, ATTACK.but(cover_rate=1 / 6))

    def test_infeasible_rates_are_left_out(self):
        few = setting(image_set(), train_counts=(50,) * CLASSES)
        assert [a.rate for a in rates(few, ATTACK, (0.0001, 0.1, 0.05, 0.9))] == [0.1, 0.05]

    def test_by_effort(self):
        def grid(effort):
            some: Setting = setting(image_set(), effort=effort)
            return some.by_effort((1,), (1, 2)), some.by_effort((1,), (1, 2), (1, 2, 3))

        assert [grid(e) for e in EFFORTS] == [((1,), (1,)), ((1, 2), (1, 2)), ((1, 2), (1, 2, 3))]

    def test_other_attacks_are_an_obstacle_to_claims_that_vary_badnets(self):
        class Other(BadNets.__base__):
            kind: str = "other"

            def goals(self, num_classes):
                return ATTACK.goals(num_classes)

            def _choose(self, y_N, goal_K, generator):
                raise NotImplementedError

        some = setting(image_set(), attack=Other(trigger=TRIGGER))
        assert claim("clean_accuracy_kept").obstacle(some) == "Its arms vary the badnets attack; this run plants other."
        assert claim("trigger_reaches_target").obstacle(some) is None
