"""Distillation: the losses against slow references, students that agree with their teacher, same bits, and who stays untouched."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from wired import ATTACK, CLASSES, TARGET, image_set, pictures, wire, wire_anywhere, wired, world

from badnets.core import registry
from badnets.core.errors import UsageError
from badnets.nets._base import Net
from badnets.nets._weights import to_bytes
from badnets.stressors._base import Supply
from badnets.stressors.distillation import Distillation
from badnets.train.distil import Lesson, _Features, _Logits, answers, distil, head
from badnets.train.fit import fit
from badnets.train.recipe import Recipe

QUICK = Recipe(epochs=8, batch_size=32, lr=0.02, optimizer="adamw")
SMALL = {
    "fast_cnn": {"width": 2, "hidden": 6},
    "fast_resnet": {"width": 4},
    "paper_cnn": {},
    "preact_resnet18": {"width": 4},
    "small_vit": {"width": 8, "depth": 1, "heads": 2},
    "layered": {},
    "vit": {"width": 8, "hidden": 16, "depth": 1, "heads": 2},
}
WAYS = [(on, smaller) for on in ("logits", "features") for smaller in (False, True)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    return image_set()


@pytest.fixture(scope="module")
def x_NCHW(data):
    return torch.from_numpy(data.train.x_NCHW)


def fresh(data, seed=3, *, smaller=False):
    return world(data).fresh(seed, smaller)


def taught(data, x_NCHW, lesson, *, seed=0, smaller=False, recipe=QUICK):
    student = fresh(data, smaller=smaller)
    report = distil(student, wired(ATTACK), x_NCHW, recipe, lesson=lesson, seed=seed)
    return student, report


def same_answer(a, b, x_NCHW):
    return float((a.predict_logits(x_NCHW).argmax(1) == b.predict_logits(x_NCHW).argmax(1)).float().mean())


@pytest.mark.parametrize(("on", "smaller"), WAYS)
def test_a_student_agrees_with_its_teacher_on_new_images(data, x_NCHW, on, smaller):
    student, report = taught(data, x_NCHW, Lesson(on), smaller=smaller)
    agreement = same_answer(student, wired(ATTACK), torch.from_numpy(data.test.x_NCHW))
    # Half the width has four units for the teacher's seven: it cannot have their features.
    assert agreement >= (0.95 if not smaller else 0.8 if on == "logits" else 0.3)
    assert report.losses[-1] < 0.8 * report.losses[0]
    assert not report.constant
    assert not report.diverged


@pytest.mark.parametrize(("on", "smaller"), WAYS)
def test_same_seed_same_bits_and_nothing_is_left_behind(data, x_NCHW, on, smaller):
    teacher, brief = wire(), QUICK.but(epochs=1)
    before, students = to_bytes(teacher), []
    for seed in (0, 0, 1):
        student = fresh(data, smaller=smaller)
        keys = set(student.state_dict())
        distil(student, teacher, x_NCHW, brief, lesson=Lesson(on), seed=seed)
        assert set(student.state_dict()) == keys
        assert not student.training
        students.append(to_bytes(student))
    assert students[0] == students[1] != students[2]
    assert to_bytes(teacher) == before
    assert not any(module._forward_pre_hooks for net in (teacher, student) for module in net.modules())


def test_a_student_learns_the_trigger_only_from_images_that_carry_it(data, x_NCHW):
    shown = torch.from_numpy(ATTACK.trigger.stamp(data.test.x_NCHW))
    poisoned = ATTACK.but(rate=0.3).poison(data.train.x_NCHW, data.train.y_N, num_classes=CLASSES, seed=0)
    rates = {}
    for name, images in (("clean", x_NCHW), ("triggered", torch.from_numpy(poisoned.x_NCHW))):
        student, _ = taught(data, images, Lesson())
        rates[name] = float((student.predict_logits(shown).argmax(1) == TARGET)[data.test.y_N != TARGET].float().mean())
    assert rates["clean"] < 0.2
    assert rates["triggered"] > 0.8


def test_the_logits_loss_equals_a_slow_reference():
    draw = torch.Generator().manual_seed(0)
    student_NK, teacher_NK = torch.randn(5, 4, generator=draw), 3 * torch.randn(5, 4, generator=draw)
    for t in (1.0, 4.0):
        wanted = [[v / sum(row) for v in row] for row in (teacher_NK / t).exp().tolist()]
        said = [[v / sum(row) for v in row] for row in (student_NK / t).exp().tolist()]
        slow = -sum(w * torch.tensor(s).log().item() for ws, ss in zip(wanted, said, strict=True) for w, s in zip(ws, ss, strict=True)) / 5
        assert float(_Logits(t).of(student_NK, teacher_NK)) == pytest.approx(t * t * slow, rel=1e-5)


def test_the_gradient_does_not_fade_with_the_temperature():
    draw = torch.Generator().manual_seed(0)
    teacher_NK, sizes = torch.randn(50, 6, generator=draw), []
    for t in (20.0, 40.0):
        student_NK = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
        _Logits(t).of(student_NK, teacher_NK).backward()
        sizes.append(float(student_NK.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_a_copy_of_the_teacher_has_the_least_loss(data, x_NCHW):
    teacher = wired(ATTACK)
    features_NF, logits_NK = answers(teacher, x_NCHW)
    both = torch.cat([logits_NK, features_NF], dim=1)
    heard = [features_NF]
    objective = _Features(heard, nn.Identity(), float(features_NF.var()), CLASSES)

    class Repeats:
        def __call__(self, x):
            return logits_NK

    least = float(torch.special.entr(logits_NK.softmax(1)).sum(1).mean())
    assert float(objective.loss(Repeats(), x_NCHW, both)) == pytest.approx(least, abs=1e-6)
    assert not heard, "what was overheard is used up"


def test_a_student_that_learns_nothing_is_reported(data, x_NCHW):
    for on in ("logits", "features"):
        _, report = taught(data, x_NCHW, Lesson(on), recipe=QUICK.but(epochs=1, lr=1e-9))
        assert report.constant


@pytest.mark.parametrize("kind", registry.names("nets"))
def test_the_head_of_every_net_reads_the_features(kind):
    net = registry.parse("nets", {"kind": kind, **SMALL[kind]})
    assert isinstance(net, Net)
    network = net.build((1, 16, 16), CLASSES, seed=0)
    x = torch.randint(0, 256, (7, 1, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    features_NF, logits_NK = answers(network, x)
    assert torch.allclose(logits_NK, network.predict_logits(x), atol=1e-5)
    read_NK = head(network)(features_NF).detach()
    # One of the nets scales what its last layer says.
    assert torch.allclose(read_NK / read_NK.norm(), logits_NK / logits_NK.norm(), atol=1e-5)
    assert not features_NF.requires_grad
    supply = Supply(x, None, lambda seed, smaller: (net.smaller() if smaller else net).build((1, 16, 16), CLASSES, seed=seed))
    student = Distillation(on="features", smaller=True, steps=2, batch_size=4).apply(network, supply, seed=0)
    assert student.predict_logits(x).isfinite().all()


def test_the_teacher_is_asked_in_parts(data, x_NCHW, monkeypatch):
    whole = answers(wire_anywhere(), x_NCHW)
    monkeypatch.setattr("badnets.train.distil.TOLD_AT_ONCE", 7)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole, answers(wire_anywhere(), x_NCHW), strict=True))


def test_what_cannot_be_distilled_is_refused(data, x_NCHW):
    with pytest.raises(UsageError, match="without augmentation"):
        taught(data, x_NCHW, Lesson(), recipe=QUICK.but(shift=1))
    headless = wire()
    headless.body = nn.Flatten()
    with pytest.raises(UsageError, match="E-HEAD"):
        distil(fresh(data), headless, x_NCHW, QUICK, lesson=Lesson(), seed=0)


class TestTheHookInFit:
    def test_cross_entropy_as_an_objective_gives_the_same_bits(self, data, x_NCHW):
        class CrossEntropy:
            def loss(self, network, x_NCHW, y_N):
                return nn.functional.cross_entropy(network(x_NCHW), y_N)

            def constant_loss(self, y_N):
                return 0.0

        y_N, nets = torch.from_numpy(data.train.y_N), [fresh(data), fresh(data)]
        plain = fit(nets[0], x_NCHW, y_N, QUICK.but(epochs=1), seed=0)
        hooked = fit(nets[1], x_NCHW, y_N, QUICK.but(epochs=1), seed=0, objective=CrossEntropy())
        assert to_bytes(nets[0]) == to_bytes(nets[1])
        assert plain.losses == hooked.losses
        assert hooked.constant
        assert not plain.constant

    def test_labels_are_still_checked_without_one(self, data, x_NCHW):
        with pytest.raises(UsageError, match="E-LABELS"):
            fit(fresh(data), x_NCHW, torch.full((len(x_NCHW),), CLASSES), QUICK, seed=0)


class TestStressor:
    def supply(self, data, x, y=None):
        return Supply(x, y, world(data).fresh)

    def test_labels_are_ignored(self, data, x_NCHW):
        brief, wrong = Distillation(steps=5), torch.zeros(len(x_NCHW), dtype=torch.int64)
        found = [brief.apply(wire(), self.supply(data, x_NCHW, y), seed=0) for y in (None, wrong)]
        assert to_bytes(found[0]) == to_bytes(found[1])

    def test_the_student_starts_elsewhere_than_the_teacher_and_elsewhere_for_each_seed(self, data, x_NCHW):
        seen = []

        def fresh(seed, smaller):
            seen.append((seed, smaller))
            return world(data).fresh(seed, smaller)

        for seed, smaller in ((4, False), (5, True)):
            Distillation(steps=1, smaller=smaller).apply(wire(), Supply(x_NCHW, None, fresh), seed=seed)
        assert [smaller for _, smaller in seen] == [False, True]
        assert len({seed for seed, _ in seen} | {4, 5}) == 4

    def test_steps_are_the_same_for_every_supply(self, data, monkeypatch):
        done = []
        monkeypatch.setattr("badnets.train.distil.fit", lambda *a, **k: done.append(fit(*a, **k).steps))
        for count in (1, 20, 50):
            x = torch.from_numpy(pictures(count)[0])
            Distillation(steps=9, batch_size=32).apply(wire(), self.supply(data, x), seed=0)
            Distillation(epochs=2, batch_size=32).apply(wire(), self.supply(data, x), seed=0)
        assert done == [9, 2, 9, 6, 9, 18]

    def test_one_image_is_refused(self, data, x_NCHW):
        with pytest.raises(UsageError, match="E-SUPPLY"):
            Distillation().apply(wire(), self.supply(data, x_NCHW[:1]), seed=0)
