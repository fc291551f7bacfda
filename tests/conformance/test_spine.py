"""What detectors and repairs stand on: the meter, the budget, the view, the blindfold, and what becomes of an author's answer."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules import module as torch_module
from wired import CLASSES, TRIGGER, pictures, twin, wire

from badnets.core.blind import BlindError, blindfolded
from badnets.core.errors import UsageError
from badnets.core.finding import Answer, Finding, Level
from badnets.core.meter import WITH_GRADIENT, BudgetSpentError, metered
from badnets.core.suspect import NO_LIMIT, Access, Budget, Suspect
from badnets.core.view import hash_order, view_of
from badnets.detectors._base import Detector
from badnets.nets._base import Network
from badnets.repairs._base import Repair

SHAPE = (1, 8, 8)


def images(count=6):
    return torch.from_numpy(pictures(2, seed=4)[0][:count])


def hooks():
    """How many global hooks torch has."""
    return len(torch_module._global_forward_pre_hooks), len(torch_module._global_forward_hooks), len(torch_module._global_backward_hooks)


def suspect(network=None, **given):
    pair = pictures(3, seed=4)
    return Suspect(network or wire(), SHAPE, CLASSES, **{"clean": pair, "training": pair, "inputs": pair[0], **given})


class Bare(nn.Module):
    """A net that can run under vmap over images, as one with a memory layout of its own cannot."""

    def __init__(self, body):
        super().__init__()
        self.shape, self.num_classes, self.body = SHAPE, CLASSES, body

    def forward(self, x_NCHW):
        return self.body(x_NCHW)


class TestMeter:
    def test_counts_images_not_calls_and_not_layers(self):
        network = twin()
        with metered(NO_LIMIT) as meter, torch.no_grad():
            network(images(5))
            network(images(1))
            network.predict_logits(images(6), batch_size=2)
        assert meter.images == 12

    def test_gradients_cost_three_times(self):
        network = copy.deepcopy(twin())
        with metered(NO_LIMIT) as meter:
            network(images(4)).sum().backward()
            assert meter.images == 4 * WITH_GRADIENT == 12
            network.predict_logits(images(4))
            assert meter.images == 16
            with torch.inference_mode():
                network(images(4))
            assert meter.images == 20

    def test_copies_count(self):
        network = twin()
        with metered(NO_LIMIT) as meter, torch.no_grad():
            other = copy.deepcopy(network)
            other(images(3))
            wire()(images(2))
        assert meter.images == 5

    def test_functional_calls_count(self):
        network = twin()
        with metered(NO_LIMIT) as meter, torch.no_grad():
            functional_call(network, {"body.4.bias": torch.ones(CLASSES)}, (images(3),))
        assert meter.images == 3

    def test_nets_at_once_count_one_by_one(self):
        """Under vmap over parameters a net is called once, for all of them."""
        nets = [twin(), wire(None), wire(None, gain=1.0), wire(None, gain=2.0)]
        parameters, _ = stack_module_state(nets)
        with metered(NO_LIMIT) as meter, torch.no_grad():
            found = vmap(lambda p: functional_call(nets[0], p, (images(3),)))(parameters)
        assert found.shape == (4, 3, CLASSES)
        assert meter.images == 12

    def test_images_under_vmap_count_one_by_one(self):
        network = Bare(twin().body)
        with metered(NO_LIMIT) as meter, torch.no_grad():
            vmap(lambda x_CHW: network(x_CHW[None])[0])(images(5).float() / 255)
        assert meter.images == 5

    def test_gradients_under_vmap_count_for_each_image(self):
        network = Bare(copy.deepcopy(twin().body))
        with metered(NO_LIMIT) as meter:
            vmap(lambda x_CHW: network(x_CHW[None])[0])(images(5).float() / 255)
        assert meter.images == 5 * WITH_GRADIENT

    def test_a_net_within_a_net_is_counted_once(self):
        inner = copy.deepcopy(twin())

        class Around(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = inner

            def forward(self, x_NCHW):
                return self.inner(x_NCHW) + self.inner(x_NCHW)

        outer = Network(Around(), SHAPE, CLASSES, mean=[0.0], std=[1.0]).eval()
        with metered(NO_LIMIT) as meter, torch.no_grad():
            outer(images(3))
            assert meter.images == 3
            inner(images(2))
        assert meter.images == 5

    def test_counts_on_after_a_call_that_failed(self):
        """Nothing stays open: neither a net that broke in the middle nor one that the budget stopped hides what comes after."""
        network = twin()
        with metered(Budget(images=10)) as meter, torch.no_grad():
            with pytest.raises(RuntimeError):
                network(torch.zeros(2, 1, 3, 3))
            assert meter.images == 2
            network(images(5))
            assert meter.images == 7
            with pytest.raises(BudgetSpentError):
                network(images(4))
            assert meter.images == 7
            network(images(3))
        assert meter.images == 10

    def test_what_is_too_much_is_not_sent(self):
        called = []
        network = copy.deepcopy(twin())
        network.body[0].register_forward_hook(lambda *rest: called.append(1))
        with metered(Budget(images=5)), torch.no_grad():
            network(images(5))
            with pytest.raises(BudgetSpentError, match="the budget of 5 images is spent"):
                network(images(1))
        assert called == [1]

    def test_images_by_keyword_cannot_slip_through(self):
        with metered(NO_LIMIT), pytest.raises(AssertionError, match="first argument"):
            twin()(x_NCHW=images(2))

    def test_seconds(self):
        with metered(Budget(seconds=1e-9)) as meter, torch.no_grad(), pytest.raises(BudgetSpentError, match="1e-09 seconds"):
            twin()(images(1))
        assert meter.images == 0
        assert meter.seconds > 0

    def test_nothing_stays_registered(self):
        before = hooks()
        with metered(NO_LIMIT):
            assert hooks() != before
        assert hooks() == before
        with pytest.raises(ZeroDivisionError), metered(NO_LIMIT):
            _ = 1 / 0
        assert hooks() == before
        with pytest.raises(KeyboardInterrupt), metered(NO_LIMIT):
            raise KeyboardInterrupt
        assert hooks() == before
        with metered(Budget(images=1)), torch.no_grad(), pytest.raises(BudgetSpentError):
            twin()(images(2))
        assert hooks() == before

    def test_outside_nothing_is_counted(self):
        with metered(NO_LIMIT) as meter:
            pass
        twin().predict_logits(images(2))
        assert meter.images == 0

    def test_meters_within_meters(self):
        network = twin()
        with metered(NO_LIMIT) as outer, torch.no_grad():
            network(images(1))
            with metered(NO_LIMIT) as inner:
                network(images(2))
            network(images(3))
        assert (outer.images, inner.images) == (6, 2)

    def test_answers_are_the_same_under_the_meter(self):
        network, x_NCHW = wire(), images()
        plain = network.predict_logits(x_NCHW)
        with metered(NO_LIMIT):
            assert torch.equal(network.predict_logits(x_NCHW), plain)


class TestBudget:
    @pytest.mark.parametrize("given", [{}, {"images": 1}, {"seconds": 0.5}, {"images": np.int64(3)}, {"images": 10**12, "seconds": 60}])
    def test_good(self, given):
        assert Budget(**given).images == given.get("images")

    @pytest.mark.parametrize(
        "given",
        [
            {"images": 0},
            {"images": -1},
            {"images": 1.5},
            {"images": True},
            {"images": "10"},
            {"images": float("nan")},
            {"seconds": 0},
            {"seconds": -0.1},
            {"seconds": float("nan")},
            {"seconds": "1"},
            {"seconds": True},
        ],
    )
    def test_bad(self, given):
        with pytest.raises(UsageError, match=r"E-BUDGET expected as a budget a positive .*, got "):
            Budget(**given)


class TestView:
    def test_row_order_does_not_matter(self):
        x_NCHW, y_N = pictures(5, seed=1)
        mixed_N = np.random.default_rng(0).permutation(len(y_N))
        plain = view_of(suspect(clean=(x_NCHW, y_N), training=(x_NCHW, y_N), inputs=x_NCHW))
        mixed = view_of(suspect(clean=(x_NCHW[mixed_N], y_N[mixed_N]), training=(x_NCHW[mixed_N], y_N[mixed_N]), inputs=x_NCHW[mixed_N]))
        for name in ("clean", "training"):
            for a, b in zip(getattr(plain, name), getattr(mixed, name), strict=True):
                assert torch.equal(a, b)
        assert torch.equal(plain.inputs, mixed.inputs)

    @pytest.mark.parametrize("judge", ["inputs", "training"])
    def test_the_order_leads_back(self, judge):
        x_NCHW, y_N = pictures(5, seed=1)
        given = suspect(training=(x_NCHW, y_N), inputs=x_NCHW[::-1])
        view = view_of(given, judge=judge)
        seen = view.inputs if judge == "inputs" else view.training[0]
        owner = given.inputs if judge == "inputs" else x_NCHW
        np.testing.assert_array_equal(owner[view.order_N], seen.numpy())
        assert sorted(view.order_N) == list(range(len(y_N)))
        assert view_of(given).order_N is None

    def test_labels_stay_with_their_images(self):
        x_NCHW, y_N = pictures(5, seed=1)
        seen_NCHW, seen_N = view_of(suspect(clean=(x_NCHW, y_N))).need_clean()
        lit_N = seen_NCHW[:, 0, :CLASSES].float().mean(dim=2).argmax(dim=1)
        assert torch.equal(lit_N, seen_N)
        assert seen_N.dtype == torch.int64

    def test_the_same_image_with_two_labels_has_a_fixed_order(self):
        x_NCHW = np.repeat(pictures(1, seed=1)[0][:1], 3, axis=0)
        orders = [
            np.array([2, 0, 1])[hash_order(x_NCHW, np.array([2, 0, 1]))],
            np.array([1, 2, 0])[hash_order(x_NCHW, np.array([1, 2, 0]))],
        ]
        assert orders[0].tolist() == orders[1].tolist() == [0, 1, 2]

    def test_equal_rows_stay_as_given(self):
        x_NCHW, y_N = pictures(1, seed=1)
        twice = np.concatenate([x_NCHW, x_NCHW])
        order_N = hash_order(twice, np.concatenate([y_N, y_N]))
        pairs = order_N.reshape(-1, 2)
        np.testing.assert_array_equal(pairs[:, 1] - pairs[:, 0], len(x_NCHW))

    def test_does_not_depend_on_memory_layout_or_label_type(self):
        x_NCHW, y_N = pictures(3, seed=1)
        plain = hash_order(x_NCHW, y_N)
        strided = np.repeat(x_NCHW, 2, axis=3)[..., ::2]
        assert not strided.flags.c_contiguous
        np.testing.assert_array_equal(hash_order(strided, y_N.astype(np.int32)), plain)

    def test_is_not_the_order_of_classes(self):
        """Taking the first n is taking them at random, whatever order they were given in."""
        y_N = view_of(suspect(clean=pictures(50, seed=1))).need_clean()[1]
        counts = torch.bincount(y_N[:60], minlength=CLASSES)
        assert counts.min() >= 2

    def test_nothing_at_all(self):
        x_NCHW, y_N = pictures(1, seed=1)
        view = view_of(suspect(clean=(x_NCHW[:0], y_N[:0]), training=None, inputs=x_NCHW[:0]), judge="inputs")
        assert view.inputs.shape == (0, *SHAPE)
        assert view.order_N.shape == (0,)
        assert view.clean[1].shape == (0,)
        assert [view.granted(access) for access in Access] == [True, False, False]
        assert view_of(suspect()).granted(Access.TRAINING)

    def test_is_a_copy(self):
        given = suspect(copy.deepcopy(wire()).train())
        pixels, weight = given.clean[0].copy(), given.network.body[1].weight.detach().clone()
        view = view_of(given)
        assert given.network.training
        assert not view.network.training
        with torch.no_grad():
            view.network.body[1].weight.zero_()
        view.clean[0].zero_()
        view.inputs.zero_()
        assert torch.equal(given.network.body[1].weight, weight)
        np.testing.assert_array_equal(given.clean[0], pixels)
        np.testing.assert_array_equal(given.inputs, pixels)

    def test_pixels_that_cannot_be_written_are_fine(self):
        x_NCHW, y_N = pictures(1, seed=1)
        x_NCHW.flags.writeable = y_N.flags.writeable = False
        view_of(suspect(clean=(x_NCHW, y_N), inputs=x_NCHW)).inputs.zero_()

    def test_labels_that_do_not_fit_are_an_error(self):
        x_NCHW, y_N = pictures(1, seed=1)
        with pytest.raises(ValueError, match="zip"):
            view_of(suspect(clean=(x_NCHW, y_N[:-1])))


class TestBlindfold:
    def test_comes_off_after_an_exception(self):
        import badnets.triggers.patch as had

        path = list(sys.meta_path)
        with pytest.raises(ZeroDivisionError), blindfolded():
            _ = 1 / 0
        assert sys.meta_path == path
        import badnets.triggers.patch as has

        assert has is had

    def test_leaves_everything_else_alone(self):
        before = {name: module for name, module in sys.modules.items() if name.startswith("badnets")}
        with blindfolded():
            import badnets.core.view
            import badnets.nets.fast_cnn

            assert not [name for name in sys.modules if name.startswith(("badnets.triggers", "badnets.attacks"))]
        after = {name: module for name, module in sys.modules.items() if name.startswith("badnets")}
        assert {name: after[name] for name in before} == before
        assert badnets.core.view is before["badnets.core.view"]

    def test_names_that_only_begin_alike_are_not_hidden(self):
        with blindfolded(), pytest.raises(ModuleNotFoundError):
            __import__("badnets.triggers_of_mine")

    def test_looking_for_it_is_refused_too(self):
        import importlib.util

        with blindfolded(), pytest.raises(BlindError, match="E-BLIND"):
            importlib.util.find_spec("badnets.attacks")

    def test_a_failed_import_is_not_taken_for_a_missing_module(self):
        """`except ImportError` around it does not swallow the refusal."""
        assert not issubclass(BlindError, ImportError)

    def test_one_who_is_told_can_use_the_trigger(self):
        """The stamp works behind the blindfold, though its module cannot be imported there."""

        class Told(Repair):
            kind: str = "told"
            told = True

            def _repair(self, view, seed):
                raise NotImplementedError

            def _told(self, view, seed, stamp):
                stamped = stamp(view.need_clean()[0].numpy())
                return view.network, f"{int((stamped[:, :, -2:, -2:] == 255).all())}"

        found = Told().apply(suspect(), rng=np.random.default_rng(0), stamp=TRIGGER.stamp)
        assert found.note == "1"


class Says(Detector):
    """Gives the answer that it is told to give."""

    kind: str = "says"
    on: Level = Level.MODEL
    say: object = None

    @property
    def level(self):
        return self.on

    def _scan(self, view, seed):
        return self.say(view) if callable(self.say) else self.say


def says(answer, on=Level.MODEL, **given):
    return Says(on=on, say=answer).scan(suspect(**given), rng=np.random.default_rng(0))


class TestAnswers:
    def test_of_rows_come_back_in_the_given_order(self):
        """The score of a row is here the label that it has in the view."""
        given = pictures(3, seed=4)
        found = says(
            lambda view: Answer(score_N=view.training[1].numpy(), flag_N=view.training[1].numpy() == 2, score_K=np.arange(CLASSES)),
            on=Level.ROWS,
        )
        np.testing.assert_array_equal(found.score_N, given[1])
        np.testing.assert_array_equal(found.flag_N, given[1] == 2)
        np.testing.assert_array_equal(found.score_K, np.arange(CLASSES))

    def test_nothing_flagged_is_an_answer(self):
        found = says(lambda view: Answer(score_N=np.zeros(len(view.inputs)), flag_N=np.zeros(len(view.inputs))), on=Level.INPUTS)
        assert found.analysable
        assert found.flag_N.dtype == bool
        assert not found.flag_N.any()

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_no_number_is_no_answer(self, bad):
        found = says(Answer(score=bad, score_K=np.zeros(CLASSES), target=1))
        assert "not finite" in found.why_not
        assert (found.score, found.score_K, found.target) == (None, None, None)
        rows = says(lambda view: Answer(score_N=np.where(np.arange(len(view.inputs)) == 1, bad, 0.0)), on=Level.INPUTS)
        assert "not finite" in rows.why_not
        assert rows.score_N is None

    def test_who_cannot_say_gives_no_score(self):
        """A reason and a score together: the score goes."""
        found = says(Answer(score=0.0, score_K=np.zeros(CLASSES), target=2, why_not="too few images"))
        assert not found.analysable
        assert (found.score, found.score_K, found.target) == (None, None, None)
        assert found.why_not == "too few images"

    @pytest.mark.parametrize(
        ("answer", "on"),
        [
            (Answer(), Level.MODEL),
            (Answer(score=1.0), Level.INPUTS),
            (Answer(score_N=np.zeros(3)), Level.INPUTS),
            (Answer(score_N=np.zeros((18, 1))), Level.ROWS),
            (Answer(score=1.0, score_K=np.zeros(CLASSES + 1)), Level.MODEL),
            (Answer(score_N=np.zeros(18), flag_N=np.zeros(17)), Level.ROWS),
            (Answer(score_N=np.zeros(18), score_K=np.zeros(CLASSES + 1)), Level.ROWS),
        ],
    )
    def test_the_wrong_shape_is_a_defect(self, answer, on):
        with pytest.raises(AssertionError):
            says(answer, on=on)

    def test_costs_are_those_of_the_meter(self):
        def look(view):
            view.network.predict_logits(view.inputs)
            return Answer(score=1.0)

        found = says(look)
        assert isinstance(found, Finding)
        assert found.images == 18
        assert found.seconds > 0

    @pytest.mark.parametrize("level", [Level.INPUTS, Level.ROWS])
    def test_what_is_missing_is_said(self, level):
        found = says(Answer(score_N=np.zeros(0)), on=level, training=None, inputs=None)
        assert found.why_not.startswith("needs ")

    @pytest.mark.parametrize(("access", "why"), [(Access.CLEAN, "needs clean images"), (Access.TRAINING, "needs the training data")])
    def test_no_images_are_no_access(self, access, why):
        class Wants(Detector):
            kind: str = "wants"
            judges = Level.MODEL

            def _scan(self, view, seed):
                raise AssertionError

        class Mends(Repair):
            kind: str = "mends"

            def _repair(self, view, seed):
                raise AssertionError

        Wants.access = Mends.access = access
        x_NCHW, y_N = pictures(1)
        for pair in (None, (x_NCHW[:0], y_N[:0])):
            given = suspect(clean=pair, training=pair)
            assert Wants().scan(given, rng=np.random.default_rng(0)).why_not == why
            assert Mends().apply(given, rng=np.random.default_rng(0)).why_not == why

    def test_a_defect_of_the_author_leaves_nothing_behind(self):
        before, path = hooks(), list(sys.meta_path)
        with pytest.raises(ZeroDivisionError):
            says(lambda view: 1 / 0)
        assert hooks() == before
        assert sys.meta_path == path
        assert "badnets.triggers.patch" in sys.modules
