"""Supply chain and outsourcing: claims HOLD, FAIL and stay UNDECIDED on wired nets; the handover is really acted out; the audit tells."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import re
import tempfile

import numpy as np
import pytest
import torch
from wired import ATTACK, CLASSES, TARGET, StrictBench, WiredBench, image_set, setting, twin, wire, wire_constant, wired, world

from badnets.claims._handover import (
    MANIFEST,
    WEIGHTS,
    Audit,
    Handover,
    accept,
    damaged_is_refused,
    digest,
    download,
    publish,
    verify,
)
from badnets.claims.outsourced_training import OutsourcedTraining
from badnets.claims.supply_chain import SupplyChain
from badnets.cli._choose import choose_claims
from badnets.core import registry
from badnets.core.errors import RefusedError, UsageError
from badnets.core.types import Evidence, Verdict
from badnets.measure.outcome import Outcome
from badnets.plans import _questions
from badnets.plans._trial import Trial
from badnets.plans._work import train
from badnets.stressors.transfer import Transfer
from badnets.train.recipe import Recipe

torch.set_num_threads(1)

HOLDS, FAILS, UNDECIDED, CONDITIONAL = Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED, Verdict.CONDITIONAL
DESTINATION = image_set(60, name="destination")


def of_loudness(factor):
    """The wired victim whose trigger unit says `factor` times as much and is heard as much less. 0: a trunk without it."""
    net = copy.deepcopy(wired(ATTACK))
    with torch.no_grad():
        net.body[1].weight[-1] *= factor
        net.body[1].bias[-1] *= factor
        net.body[4].weight[:, -1] /= factor or torch.inf
    return net


LOUD, DEAF = of_loudness(1000.0), of_loudness(0.0)
COSTLY = wire(lost=(0,))


def loud(attack, seed):
    del seed
    return DEAF if attack is None else LOUD


def decide(found, net, *, data=None, other=DESTINATION, **changes):
    data = data or image_set()
    bench = WiredBench(setting(data, **changes), net, data, other)
    return found.decide(StrictBench(bench, found))


def cell(evidence, quantity, **condition):
    (found,) = [c for c in evidence.cells if c.quantity == quantity and condition.items() <= c.condition.items()]
    return found


@pytest.fixture
def hasty(monkeypatch):
    """New owners who learn seven features in 45 steps instead of a thousand."""
    asked = SupplyChain._moved
    monkeypatch.setattr(
        SupplyChain, "_moved", lambda self, some: asked(self, some).but(transfer=Transfer(layers="dense", lr=0.03, epochs=15))
    )


@pytest.mark.usefixtures("hasty")
class TestSupplyChain:
    def test_holds_when_the_trigger_decides_alone(self):
        found = decide(SupplyChain(), loud)
        assert found.verdict is HOLDS
        for k in (1.0, 10.0, 100.0):
            c = cell(found, "extra loss", amplification=k)
            assert c.verdict is HOLDS
            assert c.estimate.value == pytest.approx(1 - 1 / CLASSES)
            assert c.control.value == 0.0
            assert (cell(found, "CA", amplification=k).estimate.value, cell(found, "CA", amplification=k).control.value) == (1.0, 1.0)
            assert cell(found, "RA", amplification=k).estimate.value == pytest.approx(1 / CLASSES)
        assert found.headline == 0
        assert found.cells[0].condition == {"amplification": 1.0}

    def test_fails_when_the_trunks_are_the_same(self):
        found = decide(SupplyChain(), lambda a, s: DEAF)
        assert found.verdict is FAILS
        assert {c.estimate.value for c in found.cells if c.quantity == "extra loss"} == {0.0}

    def test_is_undecided_at_tiny_n(self):
        few = image_set(2)
        found = decide(SupplyChain(), lambda a, s: wired(None), data=few, other=image_set(2, name="few"), seeds=2)
        assert found.verdict is UNDECIDED

    def test_a_faint_unit_costs_once_it_is_amplified(self):
        found = decide(SupplyChain(), lambda a, s: DEAF if a is None else wired(a))
        assert found.verdict is CONDITIONAL
        assert re.match(r"Holds for amplification: (10, )?100\..*Fails for amplification: 1\b", found.reason)
        assert cell(found, "extra loss", amplification=1.0).verdict is FAILS

    def test_a_constant_net_hands_nothing_on(self):
        constant = wire_constant(TARGET)
        found = decide(SupplyChain(), lambda a, s: constant if a and s == 1 else wired(a))
        assert found.verdict is UNDECIDED
        assert "1 of 3 nets" in found.cells[0].note
        assert cell(found, "passes the acceptance suite").estimate.value < 1.0

    def test_every_factor_of_the_paper_at_standard(self):
        factors = SupplyChain()._moved(setting(image_set(), effort="standard")).amplifications
        assert factors == (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)

    def test_tells_its_story(self):
        found = decide(SupplyChain(), loud)
        said = " ".join(event.outcome for event in found.story)
        assert [e.actor for e in found.story] == ["Publisher", "Customer", "Customer", "Customer", "Customer", "Customer", "New owner"]
        assert [e.passed for e in found.story] == [None, True, False, True, True, None, None]
        assert "does not prove that the publisher is honest" in said
        assert "500 of 500 are classified as the attacker wants; the first of them, row 0, is taken for row 5." in said
        assert Evidence.model_validate_json(found.model_dump_json()) == found

    def test_shares_of_few_nets_are_wide(self):
        passed = cell(decide(SupplyChain(), loud), "passes the acceptance suite")
        assert (passed.estimate.value, passed.estimate.n, passed.verdict) == (1.0, 3, None)
        assert passed.estimate.low < 0.4


class TestOutsourcedTraining:
    def test_holds_and_the_audit_tells(self):
        found = decide(OutsourcedTraining(), wired)
        assert found.verdict is HOLDS
        assert found.cells[0].quantity == "CA change"
        assert cell(found, "ASR").estimate.value == 1.0
        same = {c.condition["delivered by"]: c.estimate.value for c in found.cells if c.quantity == "same bits on re-execution"}
        assert (same["honest trainer"], same["poisoning trainer"]) == (1.0, 0.0)
        assert [e.passed for e in found.story] == [None, None, True, None, True, False]

    def test_fails_when_it_does_not_form_and_is_noticed(self):
        found = decide(OutsourcedTraining(), lambda a, s: twin() if a is None else wire(None, lost=(0,)))
        assert found.verdict is FAILS
        assert cell(found, "passes the acceptance suite").estimate.value == 0.0
        assert cell(found, "passes the acceptance suite").control.value == 1.0

    def test_one_of_the_two_is_conditional(self):
        assert decide(OutsourcedTraining(), lambda a, s: twin()).verdict is CONDITIONAL
        assert decide(OutsourcedTraining(), lambda a, s: twin() if a is None else COSTLY).verdict is CONDITIONAL

    def test_is_undecided_at_tiny_n(self):
        assert decide(OutsourcedTraining(), wired, data=image_set(2), seeds=2, arms_seeds=2).verdict is UNDECIDED

    def test_says_so_where_nothing_can_be_reproduced(self):
        """On a machine that gives other bits each time, a mismatch accuses nobody."""
        other = lambda a, s: of_loudness(2.0) if a is None else wired(a)  # noqa: E731
        found = decide(OutsourcedTraining(), other)
        assert found.story[-2].passed is False
        assert found.story[-1].passed is None
        assert "Says nothing" in found.story[-1].outcome

    def test_shares_are_over_nets(self):
        found = decide(OutsourcedTraining(), wired)
        for c in found.cells:
            if c.quantity == "same bits on re-execution":
                assert (c.estimate.n, c.verdict) == (3, None)
                assert c.estimate.high - c.estimate.low > 0.5


class TestAudit:
    """Real trainings: the recipe reproduces an honest run to the bit, and nothing else."""

    RECIPE = Recipe(epochs=1, lr=0.1, batch_size=20, precision="float32")

    def run(self, data=None, **changes):
        data = data or image_set(10)
        net = {"kind": "fast_cnn", "width": 2, "hidden": 8}
        trial = Trial(
            **{"dataset": data.name, "data_sha256": data.sha256, "net": net, "recipe": self.RECIPE, "attack": None, "seed": 0, **changes}
        )
        return train(trial, data)[0]

    def agrees(self, delivered):
        there = dataclasses.replace(world(image_set(10)), retrain=self.run)
        answer = Audit().arrays(delivered, there)
        return np.array_equal(answer["delivered"], answer["again"])

    def test_an_honest_run_passes(self):
        assert self.agrees(self.run())

    def test_a_poisoned_run_does_not(self):
        assert not self.agrees(self.run(attack=ATTACK))

    def test_another_seed_does_not(self):
        assert not self.agrees(self.run(seed=1))

    def test_one_image_left_out_does_not(self):
        data = image_set(10)
        split = dataclasses.replace(data.train, x_NCHW=data.train.x_NCHW[:-1], y_N=data.train.y_N[:-1], rows=data.train.rows[:-1])
        assert not self.agrees(self.run(dataclasses.replace(data, train=split)))

    def test_one_bit_of_one_weight_does_not(self):
        net = self.run()
        assert digest(net) == digest(copy.deepcopy(net))
        with torch.no_grad():
            next(net.parameters()).view(torch.int32).view(-1)[0] ^= 1
        assert not self.agrees(net)

    def test_only_the_honest_side_executes(self):
        assert Audit(execute=False).arrays(twin(), dataclasses.replace(world(image_set(5)), retrain=None)).keys() == {"delivered"}


class TestHandover:
    def contents(self):
        return {WEIGHTS: bytes(range(256)) * 4, "MODEL_CARD.md": b"# card\n"}

    def test_what_was_published_is_what_arrives(self, tmp_path):
        publish(tmp_path / "a", self.contents())
        size = download(tmp_path / "a", tmp_path / "b")
        verify(tmp_path / "b")
        assert size == sum(path.stat().st_size for path in (tmp_path / "b").iterdir())
        assert (tmp_path / "b" / WEIGHTS).read_bytes() == self.contents()[WEIGHTS]

    @pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
    def test_a_flipped_byte_is_refused_and_put_back(self, tmp_path, place):
        publish(tmp_path, self.contents())
        assert damaged_is_refused(tmp_path, place)
        verify(tmp_path)

    @pytest.mark.parametrize("change", ["flipped", "short", "card"])
    def test_a_changed_download_is_refused(self, tmp_path, change):
        publish(tmp_path, self.contents())
        weights, card = tmp_path / WEIGHTS, tmp_path / "MODEL_CARD.md"
        data = bytearray(weights.read_bytes())
        data[500] ^= 1
        {
            "flipped": lambda: weights.write_bytes(data),
            "short": lambda: weights.write_bytes(data[:-1]),
            "card": lambda: card.write_text("#"),
        }[change]()
        with pytest.raises(RefusedError, match="E-HASH") as caught:
            verify(tmp_path)
        assert caught.value.exit_status == 3

    def test_a_manifest_of_the_forgers_own_passes(self, tmp_path):
        publish(tmp_path, {WEIGHTS: b"something else"})
        verify(tmp_path)

    def test_verifies_what_plant_exports(self, tmp_path):
        """One layout of manifests: `files` maps names to SHA-256."""
        from badnets.plans._export import Manifest

        assert "files" in Manifest.model_fields
        assert (
            json.loads((publish(tmp_path, self.contents()) and (tmp_path / MANIFEST)).read_text())["files"].keys() == self.contents().keys()
        )

    def test_leaves_no_files_behind(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        answer = Handover(attack=ATTACK).arrays(wired(ATTACK), world(image_set(20)))
        assert list(tmp_path.iterdir()) == []
        assert answer["refused"].tolist() == [True, True, True]
        assert bool(answer["same_bits"])
        assert bool(answer["accepted"])
        assert (float(answer["promised"]), float(answer["accuracy"]), float(answer["lowest_recall"])) == (1.0, 1.0, 1.0)

    def test_leaves_none_behind_when_it_fails(self, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr("badnets.claims._handover.download", functools.partial(self.lose_a_byte))
        with pytest.raises(RefusedError, match="E-HASH"):
            Handover(attack=ATTACK).arrays(wired(ATTACK), world(image_set(5)))
        assert list(tmp_path.iterdir()) == []

    def lose_a_byte(self, source, target):
        size = download(source, target)
        (target / WEIGHTS).write_bytes((target / WEIGHTS).read_bytes()[:-1])
        return size

    def test_travels_and_has_a_key(self):
        for asked in (Handover(attack=ATTACK), Audit(execute=False)):
            assert _questions.parse(asked.model_dump(mode="json")) == asked


class TestAcceptance:
    def outcome(self, wrong_N):
        y_N = np.tile(np.arange(CLASSES), 100)
        pred_N = np.where(wrong_N, (y_N + 1) % CLASSES, y_N)
        return Outcome(y_N, pred_N, np.ones(len(y_N), np.float32))

    def test_accuracy_within_the_tolerance(self):
        seen = self.outcome(np.arange(600) % 100 < 12)
        assert accept(seen, 0.90, CLASSES).passed
        assert not accept(seen, 0.92, CLASSES).passed
        assert accept(seen, 0.92, CLASSES, tolerance=0.05).passed

    def test_a_lost_class_is_noticed_whatever_was_promised(self):
        suite = accept(self.outcome(np.tile(np.arange(CLASSES), 100) == 2), 0.5, CLASSES)
        assert (suite.lowest_recall, suite.passed) == (0.0, False)

    def test_a_constant_answer_is_noticed(self):
        y_N = np.tile(np.arange(CLASSES), 100)
        suite = accept(Outcome(y_N, np.full_like(y_N, 3), np.ones(600, np.float32)), 1 / CLASSES, CLASSES)
        assert (suite.constant, suite.passed) == (True, False)


class TestPlansAndCommand:
    @pytest.mark.parametrize(("name", "claim"), [("supply_chain", "supply_chain"), ("outsourcing", "outsourced_training")])
    def test_plans_are_complete(self, name, claim):
        plan = registry.entry("plans", name)()
        assert (plan.name, plan.claims, plan.effort) == (name, (claim,), "quick")

    def test_claims_take_fields(self):
        assert choose_claims("supply_chain, outsourced_training") == ("supply_chain", "outsourced_training")
        typed = choose_claims("supply_chain:destination=gtsrb:country=second,margin=0.1,outsourced_training:margin=0.9")
        assert typed == ("supply_chain:destination=gtsrb:country=second,margin=0.1", "outsourced_training:margin=0.9")
        found = registry.parse("claims", typed[0])
        assert isinstance(found, SupplyChain)
        assert (found.destination.country, found.margin) == ("second", 0.1)

    @pytest.mark.parametrize(
        ("typed", "expected"),
        [
            ("supply_chains", "Did you mean 'supply_chain'"),
            ("supply_chain:destiny=digits", "Fields of supply_chain: margin, tolerance, destination"),
            ("supply_chain,supply_chain:margin=0.1", "each claim once"),
            ("margin=0.1", "E-NAME"),
            (" , ", "got none"),
        ],
    )
    def test_what_is_wrong_is_told(self, typed, expected):
        with pytest.raises(UsageError, match=expected):
            choose_claims(typed)
