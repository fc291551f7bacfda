"""Questions: how they travel, which keys they have, what a stressed net is asked, and who gets a job of their own."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from wired import ATTACK, CLASSES, TARGET, WiredBench, image_set, setting, twin, wire, world

from badnets.claims._base import Need
from badnets.claims._mended import Mended
from badnets.claims._scanned import Scanned, Traits
from badnets.claims._stress import Dose, Images, Stressed, file_size
from badnets.core import hardware, registry
from badnets.core.config import canonical
from badnets.core.engine import JobResult
from badnets.core.errors import BadnetsError, UsageError
from badnets.core.store import Store
from badnets.core.tensors import pack, unpack
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.question import Question
from badnets.plans import _run
from badnets.plans._bench import early_needs, later_needs
from badnets.plans._questions import _HOMES, CAMERA, DEFENCE, UNLABELLED, parse
from badnets.plans._trial import Trial
from badnets.stressors.identity import Identity

CLEAN, SHOWN = Probe(), Probe(trigger=ATTACK.trigger)
NULL = Stressed(branches=((), (Dose(stressor=Identity()),)), probes=(CLEAN, SHOWN))
SCANNED = Scanned(detector={"kind": "strip", "num_copies": 8}, attack=ATTACK)
MENDED = Mended(repair={"kind": "clp"}, attack=ATTACK, relearning=Dose(stressor=Identity()))


def kinds():
    """Every class of question that exists."""
    made_by_claims = [parse_home(kind) for kind in _HOMES]
    return [*made_by_claims, *(registry.entry("neurons", name) for name in registry.names("neurons"))]


def parse_home(kind):
    module, _, name = _HOMES[kind].partition(":")
    return getattr(__import__(module, fromlist=[name]), name)


class TestTravel:
    def test_through_json(self):
        for question in (SHOWN, NULL, SCANNED, Traits(), MENDED):
            again = parse(json.loads(canonical(question)))
            assert again == question
            assert canonical(again) == canonical(question)

    @pytest.mark.parametrize("value", [3, {}, {"kind": 7}, {"kind": "no_such_thing"}])
    def test_what_is_no_question(self, value):
        with pytest.raises(UsageError, match=r"E-CONFIG|E-NAME"):
            parse(value)

    @pytest.mark.parametrize("found", kinds(), ids=lambda found: found.__name__)
    def test_its_source_is_part_of_its_key(self, found):
        assert issubclass(found, Question)
        source = inspect.getsourcefile(found).replace("\\", "/")
        kind = found.model_fields["kind"].default
        parts = hardware._DEFENCE if kind in DEFENCE else hardware._CAMERA if kind in CAMERA else hardware._STUDY
        parts = hardware._DECIDE if found is Probe else hardware._UNLABELLED if kind in UNLABELLED else parts
        assert any(f"/badnets/{part}" in source for part in parts), f"{source} is in no digest"

    def test_a_change_of_a_stressor_costs_no_training(self, monkeypatch):
        monkeypatch.setattr("badnets.plans._trial._torch", lambda: "0")
        trial = Trial(dataset="fashion_mini", data_sha256="0", net={"kind": "fast_cnn"}, recipe=tiny.plan().recipe, attack=None, seed=0)
        before = trial.key(), trial.question_key(CLEAN, None), trial.question_key(NULL, None)
        monkeypatch.setattr("badnets.plans._trial.study_digest", lambda entries: "another")
        after = trial.key(), trial.question_key(CLEAN, None), trial.question_key(NULL, None)
        assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]

    def test_a_change_of_a_detector_costs_no_training_and_no_other_answer(self, monkeypatch):
        trial = Trial(dataset="fashion_mini", data_sha256="0", net={"kind": "fast_cnn"}, recipe=tiny.plan().recipe, attack=None, seed=0)

        def keys():
            return trial.key(), *(trial.question_key(q, None) for q in (CLEAN, NULL, SCANNED, Traits(), MENDED))

        before = keys()
        monkeypatch.setattr("badnets.plans._trial.defence_digest", lambda entries: "another")
        assert [a == b for a, b in zip(before, keys(), strict=True)] == [True, True, True, False, False, False]
        assert {q.kind for q in (SCANNED, Traits(), MENDED)} == DEFENCE

    def test_the_other_data_set_counts_where_it_is_looked_at(self):
        trial = Trial(dataset="fashion_mini", data_sha256="0", net={"kind": "fast_cnn"}, recipe=tiny.plan().recipe, attack=None, seed=0)
        away = Stressed(steps=(Dose(stressor=Identity(), images=Images(source="other")),), probes=(CLEAN,))
        assert [trial.question_key(q, "a") == trial.question_key(q, "b") for q in (CLEAN, NULL, away)] == [True, True, False]

    def test_an_answer_is_read_in_the_same_order_every_time(self):
        answer = {f"{i * 7919 % 101}.name": np.array(i) for i in range(60)}
        for _ in range(3):
            assert list(unpack(pack(answer))[0]) == sorted(answer)


class TestStressed:
    def test_the_null_changes_nothing(self):
        victim, place = wire(), world(image_set())
        answer = NULL.arrays(victim, place)
        direct = [probe.answer(victim, place.data, None, seed=0) for probe in (CLEAN, SHOWN)]
        for after in NULL.read(answer):
            for seen, expected in zip(after.outcomes, direct, strict=True):
                assert np.array_equal(seen.pred_N, expected.pred_N)
                assert np.array_equal(seen.conf_N, expected.conf_N)
            assert after.size_bytes == file_size(victim)
            assert after.seconds is None

    def test_steps_come_before_branches(self):
        seen = []

        class Spy(Identity):
            def _apply(self, network, supply, seed):
                seen.append(len(supply.x_NCHW))
                return network

        few, all_of_it = Images(source="train", share=0.1), Images(source="train")
        spy = [Dose.model_construct(stressor=Spy(), images=images) for images in (few, all_of_it)]
        asked = Stressed.model_construct(steps=(spy[0],), branches=((), (spy[1],), (spy[1],)), probes=(CLEAN,), timed=False)
        asked.arrays(wire(), world(image_set()))
        num_train = len(image_set().train)
        assert seen == [num_train // 10, num_train, num_train]

    def test_through_a_bench(self):
        bench = WiredBench(setting(image_set()))
        (answer,) = bench.answers(Need(ATTACK, NULL, 1))
        assert (NULL.read(answer)[1].outcomes[1].pred_N == TARGET).all()

    def test_timing_is_asked_for(self):
        (after,) = Stressed(probes=(CLEAN,), timed=True).read(Stressed(probes=(CLEAN,), timed=True).arrays(twin(), world(image_set())))
        assert 0 < after.seconds < 1


class TestImages:
    def test_budget_is_the_clean_images_nobody_trained_on(self):
        data = image_set()
        x_NCHW, y_N = Images().draw(world(data))
        assert np.array_equal(x_NCHW, data.budget.x_NCHW)
        assert np.array_equal(y_N, data.budget.y_N)

    def test_share_is_of_the_training_set(self):
        data = image_set()
        x_NCHW, y_N = Images(share=0.05).draw(world(data, seed=3))
        assert len(x_NCHW) == len(y_N) == round(0.05 * len(data.train))
        assert np.array_equal(x_NCHW, Images(share=0.05).draw(world(data, seed=3))[0])
        assert not np.array_equal(x_NCHW, Images(share=0.05).draw(world(data, seed=4))[0])

    def test_no_more_than_there_are(self):
        assert len(Images(share=1.0).draw(world(image_set()))[0]) == len(image_set().budget)

    @pytest.mark.parametrize("source", ["other", "noise"])
    def test_unlabelled(self, source):
        x_NCHW, y_N = Images(source=source).draw(world(image_set(), image_set(20, side=10, name="other")))
        assert y_N is None
        assert x_NCHW.dtype == np.uint8
        assert x_NCHW.shape[1:] == image_set().shape

    def test_somebody_poisoned_them(self):
        x_NCHW, y_N = Images(source="budget", attack=ATTACK, count=3).draw(world(image_set()))
        clean_NCHW, label_N = Images(source="budget").draw(world(image_set()))
        changed_N = (x_NCHW != clean_NCHW).any(axis=(1, 2, 3))
        assert changed_N.sum() == 3
        assert (y_N[changed_N] == TARGET).all()
        assert (label_N[changed_N] != TARGET).all()
        assert np.array_equal(y_N[~changed_N], label_N[~changed_N])

    def test_at_the_attack_s_own_rate(self):
        x_NCHW, _ = Images(source="train", attack=ATTACK).draw(world(image_set()))
        share = (x_NCHW != image_set().train.x_NCHW).any(axis=(1, 2, 3)).mean()
        assert share == pytest.approx(ATTACK.rate, abs=0.005)


class TestJobs:
    @pytest.fixture
    def bench(self, tmp_path):
        plan = tiny.plan(seeds=2)
        data = plan.dataset.load(tiny.pictures(tmp_path / "images"))
        return _run.bench_of(plan, data, Store(tmp_path / "store"), "cpu")

    def test_heavy_questions_get_a_job_each_after_the_light_ones(self, bench):
        attack = bench.setting.attack
        light, heavy = Probe(images="validation"), [NULL, NULL.but(timed=True)]
        for question in heavy:
            bench.want(Need(attack, question, 2), early=True)
        bench.want(Need(attack, CLEAN, 2), early=True)
        bench.want(Need(None, light, 2))
        jobs = [json.loads(job.payload) for job in bench.jobs(None)]
        asked = [(job["trial"]["seed"], job["trial"]["attack"] is not None, [q["kind"] for q in job["questions"]]) for job in jobs]
        assert asked[:2] == [(0, True, ["probe"]), (1, True, ["probe"])]
        assert asked[2:4] == [(0, False, ["probe"]), (1, False, ["probe"])]
        assert [seed for seed, _, _ in asked[4:]] == [0, 1, 0, 1]
        assert all(kinds == ["stressed"] for _, _, kinds in asked[4:])
        assert [job["questions"][0]["timed"] for job in jobs[4:]] == [False, False, True, True]

    def test_a_need_may_begin_at_another_seed(self, bench):
        attack = bench.setting.attack
        bench.want(Need(None, CLEAN, 2, first=10))
        bench.want(Need(attack, CLEAN, 1))
        jobs = [json.loads(job.payload)["trial"] for job in bench.jobs(None)]
        assert sorted((job["seed"], job["attack"] is not None) for job in jobs) == [(0, True), (10, False), (11, False)]
        first, far = Need(attack, CLEAN, 2), Need(None, CLEAN, 2, first=10)
        claims = [SimpleNamespace(obstacle=lambda setting: None, needs=lambda setting: [first, far])]
        assert {(n.attack, n.first) for n in early_needs(claims, bench.setting)} == {(attack, 0)}
        later = later_needs(claims, bench.setting)
        assert later[0] == first
        assert far in later
        assert {n.first for n in later if n.attack is None} == {10}

    def test_answers_are_kept_and_found_again(self, bench):
        from badnets.core.engine import SerialEngine

        need = Need(bench.setting.attack, NULL, 1)
        bench.want(need)
        (job,) = bench.jobs(str(bench.store.root.parent / "images"))
        (result,) = SerialEngine(tiny.real).run([job])
        assert result.failure is None
        bench.receive(result)
        assert bench.jobs(None) == []
        again = type(bench)(bench.plan, bench.setting, bench.parts, bench.store)
        again.want(need)
        again.load()
        assert again.jobs(None) == []
        for name, values in bench.answers(need)[0].items():
            assert np.array_equal(again.answers(need)[0][name], values)
        assert isinstance(NULL.read(again.answers(need)[0])[0].outcomes[0], Outcome)

    @pytest.mark.parametrize(("part", "is_cost"), [("cost", True), ("0.seconds", True), ("correct", False), ("costs", False)])
    def test_of_answers_that_differ_in_what_was_timed_the_first_stays(self, bench, part, is_cost):
        """Two runs at the same work at once: both answers are right, and only one of them can be kept."""
        need = Need(bench.setting.attack, NULL, 1)
        ((key, name),) = bench.want(need)
        answer = {"hit": np.arange(3), part: np.array([1.5])}
        bench.receive(JobResult(key, {name: pack(answer)}))
        again = JobResult(key, {name: pack(answer | {part: np.array([2.5])})})
        if is_cost:
            bench.receive(again)
            assert bench.answers(need)[0][part] == 1.5
        else:
            with pytest.raises(BadnetsError, match="E-BITS"):
                bench.receive(again)


def test_wired_classes_are_those_of_the_pictures():
    assert image_set().num_classes == CLASSES
