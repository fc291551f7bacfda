"""Survival under fine-tuning and under training once more: verdicts on wired victims, and how a destroyed net is told from a cured one."""

import re

import numpy as np
import pytest
from wired import ATTACK, CLASSES, TARGET, FunctionBench, WiredBench, image_set, outcome, setting, twin, wire, wire_constant, wired

from badnets.claims._cells import describe
from badnets.claims._further import Further
from badnets.claims._stages import Stage, asr_cell, kept_cell, loss_cell
from badnets.claims._stress import Stressed
from badnets.claims.persists_under_training import AGAIN, NEVER, PURIFYING, RELEARNED, REMEMBERED, STARTS, PersistsUnderTraining
from badnets.claims.survives_fine_tuning import TYPICAL, SurvivesFineTuning
from badnets.core.types import Cell, Estimate, Verdict

HOLDS, FAILS, CONDITIONAL, UNDECIDED = Verdict.HOLDS, Verdict.FAILS, Verdict.CONDITIONAL, Verdict.UNDECIDED
GOAL_K = ATTACK.goals(CLASSES)
CLAIMS = (SurvivesFineTuning, PersistsUnderTraining)
DATA = image_set(50)
Y_N = np.tile(np.arange(CLASSES), 50)


def decide(claim, net=wired, *, data=DATA, **changes):
    counts = np.bincount(data.train.y_N)
    return claim().decide(WiredBench(setting(data, train_counts=tuple(counts.tolist()), **changes), net, data))


def unplanted(attack, seed):
    del attack, seed
    return twin()


def of(evidence, quantity, **condition):
    return [c for c in evidence.cells if c.quantity == quantity and condition.items() <= c.condition.items()]


class Scripted(FunctionBench):
    """ASR of victims as `asr(question, branch)` says, clean answers right; twins never fire."""

    def __init__(self, some, asr):
        super().__init__(some, None)
        self.asr = asr

    def _branches(self, attack, question, seed):
        answer = {}
        for b in range(len(question.branches)):
            share = self.asr(question, b) if attack else 0.0
            fired_N = np.random.default_rng([seed, b]).random(len(Y_N)) < share
            for p, pred_N in enumerate((Y_N, np.where(fired_N, TARGET, Y_N))):
                answer |= {f"{b}.{p}.{name}": values for name, values in outcome(Y_N, pred_N).arrays().items()}
            answer[f"{b}.size"] = np.array(1)
        return answer


def rate_of(question, branch):
    """The learning rate of a branch of the fine-tuning claim; 0 for the net as it is."""
    return question.branches[branch][0].stressor.lr if question.branches[branch] else 0.0


class TestVerdicts:
    @pytest.mark.parametrize("claim", CLAIMS)
    def test_holds_where_tuning_leaves_the_trigger_unit_alone(self, claim):
        """Clean images never fire it, and so never teach it."""
        found = decide(claim)
        assert found.verdict is HOLDS
        assert {c.estimate.value for c in of(found, "ASR")} == {1.0}
        assert {c.control.value for c in of(found, "ASR")} == {0.0}
        assert found.cells[found.headline].verdict is HOLDS

    @pytest.mark.parametrize("claim", CLAIMS)
    def test_fails_where_there_was_no_backdoor(self, claim):
        found = decide(claim, unplanted)
        assert found.verdict is FAILS
        assert {c.estimate.value for c in of(found, "ASR")} == {0.0}

    @pytest.mark.parametrize("claim", CLAIMS)
    def test_is_undecided_at_tiny_n(self, claim):
        found = claim().decide(Scripted(setting(DATA, arms_seeds=2), lambda question, branch: 0.5))
        assert found.verdict is UNDECIDED
        assert found.reason.startswith("Open for")

    def test_fine_tuning_is_conditional_where_a_high_rate_removes_it(self):
        found = SurvivesFineTuning().decide(Scripted(setting(DATA), lambda q, b: 0.02 if rate_of(q, b) == 0.1 else 0.97))
        assert found.verdict is CONDITIONAL
        holds, fails = re.fullmatch(r"Holds for (.*)\. Fails for (.*)\.", found.reason).groups()
        assert fails == (
            "learning rate 0.1, clean share 1 % or 10 %, layers all, epochs 5; learning rate 0.1, clean share 10 %, layers head, epochs 5"
        )
        assert holds.startswith("learning rate 0.01 or 0.03, clean share")

    def test_training_is_conditional_where_augmentation_removes_it(self):
        found = PersistsUnderTraining().decide(Scripted(setting(DATA), lambda q, b: 0.03 if getattr(q, "shift", 0) else 0.97))
        assert found.verdict is CONDITIONAL
        assert found.reason == f"Holds for training: same data again, new data. Fails for training: {PURIFYING}."


def stage(pred_N, shown_N=None, seeds=3):
    return Stage([outcome(Y_N, pred_N)] * seeds, [outcome(Y_N, pred_N if shown_N is None else shown_N)] * seeds)


GOOD, TARGETED = stage(Y_N, np.full_like(Y_N, TARGET)), np.full_like(Y_N, TARGET)
CLEAN, DEAD = stage(Y_N), stage(np.full_like(Y_N, 2))


def kept(before, after):
    return kept_cell({}, GOAL_K, (before, after), CLEAN, margin=0.5, treatment="fine-tuning")


class TestStages:
    def test_survival_and_removal(self):
        assert (kept(GOOD, GOOD).verdict, kept(GOOD, CLEAN).verdict) == (HOLDS, FAILS)
        assert (kept(GOOD, GOOD).note, kept(GOOD, CLEAN).note) == ("", "")

    def test_a_destroyed_net_is_neither(self):
        cell = kept(GOOD, DEAD)
        assert (cell.verdict, cell.p, cell.estimate.value) == (None, None, None)
        assert cell.note.startswith("3 of 3 nets were destroyed by the fine-tuning itself")
        one = Stage([*GOOD.clean[:2], DEAD.clean[0]], GOOD.shown)
        assert kept(GOOD, one).note.startswith("1 of 3 nets")

    def test_a_net_that_was_constant_before_leaves_it_open(self):
        cell = kept(stage(TARGETED), GOOD)
        assert (cell.verdict, cell.estimate.value) == (UNDECIDED, None)
        assert "one class to nearly every clean image" in cell.note
        assert asr_cell({}, GOAL_K, stage(TARGETED), GOOD, CLEAN).estimate.value is None

    def test_the_price_is_named(self):
        dull = np.where(np.arange(len(Y_N)) % 10 == 0, (Y_N + 1) % CLASSES, Y_N)
        cell = kept(GOOD, stage(dull))
        assert (cell.verdict, cell.note) == (FAILS, "Clean accuracy fell by 10.0 points.")
        lost = loss_cell({}, GOOD, stage(dull), (CLEAN, CLEAN))
        assert (lost.estimate.value, lost.control.value, lost.verdict) == (pytest.approx(0.1), 0.0, None)


class TestFineTuningGrid:
    @pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
    def test_every_map_has_its_cells_and_every_cell_its_map(self, effort):
        found = SurvivesFineTuning().decide(Scripted(setting(DATA, effort=effort), lambda q, b: 0.97))
        for quantity in ("ASR", "CA loss"):
            cells = [c for c in of(found, quantity) if "layers" in c.condition]
            maps = [chart for chart in found.charts if chart.quantities == [quantity]]
            drawn = [c for chart in maps for c in cells if chart.where.items() <= c.condition.items()]
            assert len(drawn) == len(cells) == len({tuple(c.condition.values()) for c in cells})
        assert {c.condition["layers"] for c in of(found, "ASR") if "layers" in c.condition} == {"all", "head"}
        assert TYPICAL.items() <= found.cells[0].condition.items()

    def test_one_question_per_map_with_the_untouched_net_first(self):
        some = setting(DATA)
        needs = SurvivesFineTuning().needs(some)
        assert len({(need.attack, need.question) for need in needs}) == 2 * len(SurvivesFineTuning()._panels(some))
        assert all(need.question.branches[0] == () and need.seeds == some.arms_seeds for need in needs)

    def test_the_null_is_there(self):
        (null,) = of(decide(SurvivesFineTuning), "ASR", **{"fine-tuning": "none"})
        assert (null.estimate.value, null.verdict) == (1.0, None)


WEAK = wire(strength=8.5)
"""The trigger unit is there, but the content speaks a little louder: removed, not forgotten."""


class TestRelearning:
    def test_what_was_only_hidden_comes_back_and_the_twin_does_not_learn_it(self):
        found = decide(PersistsUnderTraining, lambda attack, seed: WEAK if attack else twin(), effort="standard")
        again = {c.condition["poisoned images"]: c.estimate.value for c in of(found, RELEARNED, start=STARTS[AGAIN])}
        assert again.keys() >= {0, 2, 8}
        assert again[0] < 0.1
        assert again[8] > 0.9
        assert {c.estimate.value for c in of(found, RELEARNED, start=NEVER)} == {0.0}
        assert all(c.verdict is None for c in found.cells if c.quantity in (RELEARNED, REMEMBERED))

    def test_the_gap_is_between_the_purified_and_their_twins(self):
        found = decide(PersistsUnderTraining)
        gaps, purified = of(found, REMEMBERED), of(found, RELEARNED, start=STARTS[PURIFYING])
        for gap, cell_ in zip(gaps, purified, strict=True):
            assert gap.condition["poisoned images"] == cell_.condition["poisoned images"]
            assert gap.estimate.value == pytest.approx(cell_.estimate.value - cell_.control.value)

    def test_counts_that_the_images_do_not_have_are_left_out(self):
        few = setting(DATA, train_counts=(50,) * CLASSES)
        assert list(PersistsUnderTraining()._relearning(few)) == [0, 2, 8]
        assert list(PersistsUnderTraining()._relearning(setting(DATA, effort="standard"))) == [0, 2, 4, 8, 16, 32]

    def test_large_data_sets_relearn_from_a_thousand_images_too(self):
        many = setting(DATA, train_counts=(10_000,) * CLASSES)
        ((dose,), *_) = PersistsUnderTraining()._relearning(many).values()
        assert dose.images.share * many.num_train == pytest.approx(1000)

    def test_a_constant_victim_has_no_figure(self):
        constant = wire_constant(TARGET)
        found = decide(PersistsUnderTraining, lambda attack, seed: constant if attack else twin())
        assert found.verdict is UNDECIDED
        assert {c.estimate.value for c in of(found, "ASR")} == {None}

    @pytest.mark.parametrize(("effort", "trainings"), [("quick", 3), ("standard", 6)])
    def test_three_trainings_at_quick_and_each_part_alone_at_standard(self, effort, trainings):
        asked = PersistsUnderTraining()._trainings(setting(DATA, effort=effort))
        assert len(asked) == trainings
        assert all(isinstance(q, Further) for q in asked.values())
        assert {name for name, q in asked.items() if len(q.branches) > 1} == ({PURIFYING} if effort == "quick" else {AGAIN, PURIFYING})
        victims = [n.question for n in PersistsUnderTraining().needs(setting(DATA)) if n.attack and isinstance(n.question, Stressed)]
        assert [q.branches for q in victims] == [((),)]


def cell(**condition):
    some = Estimate(value=0.5, low=0.4, high=0.6, n=10, num_seeds=3, method="made up")
    return Cell(condition=condition, quantity="ASR", unit="rate", estimate=some)


class TestDescribe:
    def test_a_full_grid_is_one_block(self):
        cells = [cell(**{"learning rate": r, "clean share": s, "layers": "all"}) for s in (0.1, 0.01) for r in (0.03, 0.01, 0.1)]
        assert describe(cells) == "learning rate 0.01, 0.03 or 0.1, clean share 1 % or 10 %, layers all"

    def test_two_keys_stay_pairs(self):
        assert describe([cell(dx=-1, dy=0), cell(dx=0, dy=0)]) == "dx, dy: -1 0, 0 0"

    def test_blocks_hold_each_condition_once(self):
        """Read back, the text names exactly the cells it was made of."""
        draw = np.random.default_rng(0)
        chosen = {(f"{a}", f"{b}", f"{c}") for a, b, c in draw.integers(0, 2, (5, 3)).tolist()}
        text = describe([cell(a=a, b=b, c=c) for a, b, c in sorted(chosen)])
        named = []
        for block in text.split("; "):
            sides = [re.split(r", | or ", part) for part in re.fullmatch(r"a (.*), b (.*), c (.*)", block).groups()]
            named += [(a, b, c) for a in sides[0] for b in sides[1] for c in sides[2]]
        assert sorted(named) == sorted(chosen)

    def test_sixty_scattered_cells_stay_short(self):
        cells = [cell(rate=i / 100, share=j / 10, layers="all") for i in range(10) for j in range(8) if (i * j) % 7]
        assert len(describe(cells)) < 600
