"""Whether the backdoor can be removed blind: verdicts on bills by hand and on wired nets; and what "none of them works" means."""

from __future__ import annotations

import numpy as np
import pytest
from wired import (
    ATTACK,
    CLASSES,
    TARGET,
    FunctionBench,
    StrictBench,
    WiredBench,
    image_set,
    mended,
    outcome,
    setting,
    twin,
    wire,
    wire_constant,
    wired,
    world,
)

from badnets.claims._mended import Mended
from badnets.claims._relearning import RELEARNING, RELEARNING_IMAGES, relearning
from badnets.claims._rivals import Condition, Rival, none_works
from badnets.claims.hard_to_remove_blind import AGAIN, BEST, LEFT, LOSS, MORE, QUICK, SOME, HardToRemoveBlind
from badnets.claims.persists_under_training import PersistsUnderTraining
from badnets.core import registry, stats
from badnets.core.errors import UsageError
from badnets.core.tensors import pack, unpack
from badnets.core.types import Estimate, Verdict
from badnets.measure.probe import Probe
from badnets.measure.rates import rate
from badnets.nets._weights import to_bytes
from badnets.repairs.fine_tuning import FineTuning
from badnets.repairs.oracle import Oracle

HOLDS, FAILS, CONDITIONAL, UNDECIDED = Verdict.HOLDS, Verdict.FAILS, Verdict.CONDITIONAL, Verdict.UNDECIDED
Y_N = np.repeat(np.arange(CLASSES), 100)
PLACE_N = np.tile(np.arange(100), CLASSES) / 100
"""Of an image within its class: "a share of the images" is the first so many of each class."""
WEAK = wire(strength=8.5)
"""The trigger unit is there, but the content speaks a little louder: removed, not forgotten."""


def bill(left=1.0, loss=0.0, again=0.0, **cost):
    """Of a net that sends the share `left` of triggered images to the target, has lost `loss` of its accuracy, relearns `again`."""
    clean = outcome(Y_N, np.where(loss > PLACE_N, (Y_N + 1) % CLASSES, Y_N))
    shown, relearned = (outcome(Y_N, np.where(share > PLACE_N, TARGET, Y_N)) for share in (left, again))
    return mended(clean, shown, relearned, **cost)


CONSTANT = mended(*[outcome(Y_N, np.full_like(Y_N, 2))] * 3)


class Bills(FunctionBench):
    """What repairs leave of victims: `found(name, share)`; identity and whatever is not told of leave all. Twins have nothing to lose."""

    def __init__(self, some, found, before=1.0):
        super().__init__(some, None)
        self.found, self.before = found, before

    def _branches(self, attack, question, seed):
        name = question.repair["kind"]
        if attack is None:
            return bill(left=0.01 if name == "clp" else 0.0, loss=0.03 if name == "clp" else 0.0)
        return (self.found(name, question.share) if name != "identity" else None) or bill(left=self.before)


def decide(found=lambda name, share: None, *, before=1.0, repairs="clp+unlearning", effort="quick", **changes):
    claim = HardToRemoveBlind(repairs=repairs)
    return claim.decide(StrictBench(Bills(setting(image_set(), effort=effort, **changes), found, before), claim))


def on_nets(net=wired, *, repairs="clp", **changes):
    return HardToRemoveBlind(repairs=repairs).decide(WiredBench(setting(image_set(), **changes), net))


def cell(evidence, quantity, **condition):
    (found,) = [c for c in evidence.cells if c.quantity == quantity and condition.items() <= c.condition.items()]
    return found


def where(wanted, found):
    return lambda name, share: found if name == wanted else None


class TestVerdict:
    def test_holds_where_no_repair_touches_it(self):
        found = decide()
        assert found.verdict is HOLDS
        main = found.cells[0]
        assert (main.quantity, main.estimate.value, main.control.value) == (BEST, 1.0, 0.0)
        assert main.note.endswith("which comes closest of 3 blind repairs; it costs 0.0 points of clean accuracy.")

    @pytest.mark.parametrize("name", ["clp", "unlearning", "fine_tuning"])
    def test_one_remedy_is_enough(self, name):
        found = decide(where(name, bill(left=0.05, loss=0.01)))
        assert found.verdict is FAILS
        assert found.cells[0].note.startswith(f"{name}, which comes closest")
        assert found.cells[0].estimate.value == pytest.approx(0.05)

    def test_the_best_of_many_pays_for_being_the_best(self):
        remedy = bill(left=0.14, loss=0.0)
        alone = decide(where("fine_tuning", remedy), repairs="fine_tuning")
        among = decide(where("fine_tuning", remedy), repairs="clp+fst+unlearning")
        assert alone.verdict is among.verdict is FAILS
        assert among.p == pytest.approx(4 * alone.p)

    def test_a_remedy_that_spoils_the_net_is_none(self):
        found = decide(where("clp", bill(left=0.0, loss=0.2)))
        assert found.verdict is HOLDS
        assert (cell(found, LEFT, repair="clp").estimate.value, cell(found, LOSS, repair="clp").estimate.value) == (0.0, pytest.approx(0.2))

    def test_is_open_at_the_margin(self):
        for remedy in (bill(left=0.2), bill(left=0.0, loss=0.05)):
            found = decide(where("clp", remedy))
            assert (found.verdict, found.p) == (UNDECIDED, None)

    def test_names_the_share_of_clean_images_that_it_takes(self):
        found = decide(lambda name, share: bill(left=0.02) if name == "clp" and share == 0.1 else None, effort="standard")
        assert found.verdict is CONDITIONAL
        assert found.reason == "Holds for clean share: 1 %, 5 %. Fails for clean share: 10 %."

    def test_the_one_that_is_told_and_the_null_do_not_count(self):
        found = decide(where("oracle", bill(left=0.0)))
        assert found.verdict is HOLDS
        assert cell(found, LEFT, repair="oracle").estimate.value == 0.0
        assert cell(found, LEFT, repair="identity").estimate.value == 1.0

    @pytest.mark.parametrize("before", [0.0, 0.3, 0.5])
    def test_without_a_backdoor_there_is_nothing_to_remove(self, before):
        found = decide(lambda name, share: bill(left=0.0), before=before)
        assert found.verdict is UNDECIDED
        assert found.cells[0].note.startswith("There may be no backdoor here")

    def test_a_net_repaired_to_a_constant_is_spoiled_and_not_cured(self):
        found = decide(where("clp", CONSTANT))
        assert found.verdict is HOLDS
        left = cell(found, LEFT, repair="clp")
        assert (left.estimate.value, left.verdict) == (None, None)
        assert "one class to nearly every clean image" in left.note

    def test_a_net_that_could_not_be_repaired_was_not_repaired(self):
        found = decide(where("clp", bill(left=0.0, analysable=False)))
        left = cell(found, LEFT, repair="clp")
        assert (left.estimate.value, left.note) == (None, "3 of 3 nets could not be repaired")
        assert not [c for c in found.cells if c.condition.get("repair") == "clp" and c.quantity != LEFT]
        assert found.verdict is UNDECIDED
        assert decide(where("clp", bill(left=1.0, analysable=False))).verdict is HOLDS


class TestBill:
    def test_what_is_left_costs_and_comes_back(self):
        found = decide(where("clp", bill(left=0.3, loss=0.1, again=0.9, images=1234, clean_images=30)))
        left, loss, again = (cell(found, quantity, repair="clp") for quantity in (LEFT, LOSS, AGAIN))
        assert [c.estimate.value for c in (left, loss, again)] == pytest.approx([0.3, 0.1, 0.9])
        assert (left.seconds, left.note) == (0.5, "30 clean images; 1,234 images sent through the net.")
        assert {c.verdict for c in (left, loss, again)} == {None}

    def test_the_control_is_the_twin_repaired_alike(self):
        found = decide()
        left, loss = cell(found, LEFT, repair="clp"), cell(found, LOSS, repair="clp")
        assert left.control.value == pytest.approx(0.01)
        assert (loss.control.value, loss.control_unit) == (pytest.approx(0.03), None)
        assert cell(found, LEFT, repair="unlearning").control.value == 0.0

    def test_every_repair_has_its_row_for_every_share(self):
        found = decide(repairs="", effort="standard")
        names = {"identity", "fine_tuning", "oracle", *SOME, *MORE}
        rows = {(c.condition["repair"], c.condition["clean share"]) for c in found.cells if c.quantity == LOSS}
        assert rows == {(name, share) for name in names for share in (0.01, 0.05, 0.1)}
        assert names == set(registry.names("repairs"))
        assert "closest of 12 blind repairs" in found.cells[0].note
        assert all(QUICK[name].keys() <= registry.entry("repairs", name).model_fields.keys() for name in QUICK)

    def test_one_share_of_clean_images_can_be_asked_for(self):
        claim = HardToRemoveBlind(repairs="clp", share=0.01)
        found = claim.decide(StrictBench(Bills(setting(image_set(), effort="standard"), lambda name, share: None), claim))
        assert {c.condition["clean share"] for c in found.cells} == {0.01}
        with pytest.raises(UsageError, match="share"):
            registry.parse("claims", "hard_to_remove_blind:share=0.5")

    def test_other_attacks_are_told_apart(self):
        claim = HardToRemoveBlind(repairs="clp", grid="attacks")
        found = claim.decide(StrictBench(Bills(setting(image_set()), lambda name, share: None), claim))
        assert {c.condition["trigger"] for c in found.cells} == {"patch", "blend", "sinusoid", "painted"}

    def test_a_repair_that_is_not_there_is_refused_at_once(self):
        with pytest.raises(UsageError, match=r"E-NAME .*Did you mean 'nad'"):
            registry.parse("claims", "hard_to_remove_blind:repairs=clp+nadd")


class TestOnWiredNets:
    def test_holds_where_tuning_leaves_the_trigger_unit_alone(self):
        found = on_nets()
        assert found.verdict is HOLDS
        for name in ("identity", "fine_tuning", "clp"):
            left, loss = cell(found, LEFT, repair=name), cell(found, LOSS, repair=name)
            assert (left.estimate.value, left.control.value, loss.estimate.value) == (1.0, 0.0, 0.0)
        assert cell(found, LEFT, repair="oracle").estimate.value == 0.0

    def test_fails_where_a_sleeping_unit_can_be_cut_out(self):
        found = on_nets(repairs="fine_pruning")
        assert found.verdict is FAILS
        left, loss = cell(found, LEFT, repair="fine_pruning"), cell(found, LOSS, repair="fine_pruning")
        assert (left.estimate.value, loss.estimate.value) == (0.0, 0.0)

    def test_nets_without_a_backdoor_and_constant_ones_leave_it_open(self):
        for net in (twin(), wire_constant(TARGET)):
            found = on_nets(lambda attack, seed, net=net: net if attack else twin(), repairs="fine_pruning")
            assert found.verdict is UNDECIDED


def question(name="identity", attack=ATTACK, share=0.05, **fields):
    dose = relearning(setting(image_set(), effort="standard"), attack, (32,))[32]
    return Mended(repair={"kind": name, **fields}, attack=attack, share=share, relearning=dose)


class TestMended:
    def test_the_null_leaves_every_answer_as_it_was(self):
        asked, net, place = question(), wired(ATTACK), world(image_set())
        before = to_bytes(net)
        found = asked.read(unpack(pack(asked.arrays(net, place)))[0])
        assert to_bytes(net) == before
        for seen, probe in ((found.clean, Probe(limit=2000)), (found.shown, Probe(trigger=ATTACK.trigger, limit=2000))):
            direct = probe.answer(net, place.data, None, seed=0)
            assert np.array_equal(seen.pred_N, direct.pred_N)
            assert np.array_equal(seen.conf_N, direct.conf_N)
        assert (found.analysable, found.images, found.clean_images) == (True, 0, 30)

    def test_the_repair_gets_clean_images_and_no_secret(self, monkeypatch):
        views = []

        def spy(self, view, seed):
            views.append(view)
            return view.network, ""

        monkeypatch.setattr(FineTuning, "_repair", spy)
        data = image_set()
        question("fine_tuning", share=0.05).arrays(wired(ATTACK), world(data))
        (view,) = views
        assert (view.training, view.inputs) == (None, None)
        budget = {row.tobytes() for row in data.budget.x_NCHW}
        assert len(view.clean[1]) == round(0.05 * len(data.train))
        assert {row.tobytes() for row in view.clean[0].numpy()} <= budget

    def test_only_the_oracle_is_told_the_trigger(self, monkeypatch):
        stamps, real = [], Oracle._told
        monkeypatch.setattr(Oracle, "_told", lambda self, view, seed, stamp: stamps.append(stamp) or real(self, view, seed, stamp))
        question("oracle").arrays(wired(ATTACK), world(image_set()))
        assert stamps == [ATTACK.trigger.stamp]
        assert [name for name in registry.names("repairs") if registry.entry("repairs", name).told] == ["oracle"]

    def test_a_twin_is_shown_the_trigger_too(self):
        found = question().read(question().arrays(twin(), world(image_set())))
        assert (found.shown.pred_N == found.shown.y_N).all()

    def test_where_there_is_no_repaired_net_the_answers_are_the_old_ones(self, monkeypatch):
        from badnets.repairs._base import Repair, Repaired

        monkeypatch.setattr(Repair, "apply", lambda *_, **__: Repaired(None, images=7, why_not="no"))
        found = question("clp").read(question("clp").arrays(wired(ATTACK), world(image_set())))
        assert (found.analysable, found.images) == (False, 7)
        assert (found.shown.pred_N == TARGET).all()

    def test_removed_is_not_forgotten(self):
        """A trigger unit that is only too faint comes back from a few poisoned images; the twin does not learn it from as few."""

        def rates(net):
            found = question().read(question().arrays(net, world(image_set())))
            attacked_N = found.shown.y_N != TARGET
            return [(seen.pred_N == TARGET)[attacked_N].mean() for seen in (found.shown, found.relearned)]

        weak, clean = rates(WEAK), rates(twin())
        assert weak[0] < 0.1
        assert weak[1] > 0.9
        assert clean == [0.0, 0.0]

    def test_it_is_the_repaired_net_that_relearns(self):
        """A unit that was cut out stays away, while the net as it was would still have it."""
        found = question("fine_pruning").read(question("fine_pruning").arrays(wired(ATTACK), world(image_set())))
        attacked_N = found.shown.y_N != TARGET
        assert [(seen.pred_N == TARGET)[attacked_N].mean() for seen in (found.shown, found.relearned)] == [0.0, 0.0]

    def test_the_same_answer_twice_and_another_for_another_seed(self):
        def answer(seed):
            return question("fst").arrays(wired(ATTACK), world(image_set(), seed=seed))

        first, again, other = answer(0), answer(0), answer(1)
        assert all(np.array_equal(first[key], again[key]) for key in first if key != "cost")
        assert not np.array_equal(first["clean.conf"], other["clean.conf"])


class TestRelearning:
    @pytest.mark.parametrize("effort", ["quick", "standard"])
    def test_the_dose_is_that_of_further_training(self, effort):
        some = setting(image_set(), effort=effort)
        (arm,) = HardToRemoveBlind()._arms(some)
        dose = HardToRemoveBlind()._question(some, "clp", 0.05, arm).relearning
        assert (dose,) == PersistsUnderTraining()._relearning(some)[32]
        assert (dose.stressor, dose.images.count, dose.images.share) == (RELEARNING, 32, 0.1)

    def test_small_data_sets_relearn_from_as_many_as_they_have(self):
        few = setting(image_set(), train_counts=(50,) * CLASSES)
        (arm,) = HardToRemoveBlind()._arms(few)
        assert HardToRemoveBlind()._question(few, "clp", 0.05, arm).relearning.images.count == 8
        assert list(relearning(few, ATTACK, (0, 2, 8, 32))) == [0, 2, 8]

    def test_large_ones_from_a_thousand_images(self):
        many = setting(image_set(), train_counts=(10_000,) * CLASSES)
        dose = relearning(many, ATTACK, (2,))[2]
        assert dose.images.share * many.num_train == pytest.approx(RELEARNING_IMAGES)

    def test_the_null_has_no_attack(self):
        null = relearning(setting(image_set()), ATTACK, (0,))[0]
        assert (null.images.attack, null.images.count) == (None, None)


def share(hits, of=100):
    """The estimator of a rate."""
    return rate([np.arange(of) < hits])


def rival(name, *hits, barred=False, margin=0.5):
    """Works where every one of its rates is above the margin."""
    return Rival(name, tuple(Condition(share(h), margin) for h in hits), barred)


def unknown(level):
    del level
    return Estimate(value=None, low=None, high=None, n=0, num_seeds=0, method="none")


class TestNoneWorks:
    def test_one_that_works_refutes(self):
        found = none_works([rival("a", 20), rival("b", 80)])
        assert (found.verdict, found.best.name) == (FAILS, "b")
        assert found.p == pytest.approx(2 * stats.p_above(share(80), 0.5))

    def test_being_the_best_of_many_is_corrected_for(self):
        assert stats.p_above(share(62), 0.5) < 0.05
        assert none_works([rival("a", 62)]).verdict is FAILS
        among = none_works([rival("a", 62), *(rival(str(i), 20) for i in range(9))])
        assert (among.verdict, among.p) == (UNDECIDED, 1.0)

    def test_all_must_fail_for_it_to_hold(self):
        found = none_works([rival("a", 20), rival("b", 35)])
        assert (found.verdict, found.best.name) == (HOLDS, "b")
        assert found.p == pytest.approx(stats.p_below(share(35), 0.5))
        assert none_works([rival("a", 20), rival("b", 50)]).verdict is UNDECIDED

    def test_a_rival_needs_all_of_its_conditions(self):
        assert none_works([rival("a", 90, 90)]).verdict is FAILS
        assert none_works([rival("a", 90, 50)]).verdict is UNDECIDED
        found = none_works([rival("a", 90, 35)])
        assert found.verdict is HOLDS
        assert found.p == pytest.approx(2 * stats.p_below(share(35), 0.5))
        assert stats.p_below(share(39), 0.5) < 0.05 < 2 * stats.p_below(share(39), 0.5)
        assert none_works([rival("a", 90, 39)]).verdict is UNDECIDED

    def test_below_is_the_other_side(self):
        low = Rival("a", (Condition(share(10), 0.2, below=True),))
        assert none_works([low]).verdict is FAILS
        assert none_works([low._replace(conditions=(Condition(share(10), 0.05, below=True),))]).verdict is not FAILS
        assert none_works([low._replace(conditions=(Condition(share(60), 0.2, below=True),))]).verdict is HOLDS

    def test_one_that_is_barred_neither_refutes_nor_confirms(self):
        found = none_works([rival("a", 99, barred=True), rival("b", 20)])
        assert (found.verdict, found.best.name) == (UNDECIDED, "b")
        assert none_works([rival("a", 20, barred=True), rival("b", 20)]).verdict is HOLDS
        assert none_works([rival("a", 99, barred=True)]).best.name == "a"
        counted = none_works([rival("a", 80), rival("b", 99, barred=True)])
        assert counted.p == pytest.approx(2 * stats.p_above(share(80), 0.5))

    def test_what_is_unknown_works_for_nobody(self):
        nothing = Rival("a", (Condition(unknown, 0.5),))
        assert none_works([nothing]).verdict is UNDECIDED
        assert none_works([nothing, rival("b", 20)]).verdict is UNDECIDED
        assert none_works([nothing, rival("b", 90)]).verdict is FAILS

    def test_the_best_of_those_that_surely_fail_is_the_least_sure(self):
        assert none_works([rival("a", 10), rival("b", 35), rival("c", 20)]).best.name == "b"
