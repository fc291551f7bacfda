"""Repairs that move the input: what is moved, where to, and that a trigger misses its place; on wired nets, whose answers are known.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from wired import CLASSES, TARGET, TRIGGER, pictures, wire

from badnets.core.suspect import Suspect
from badnets.nets._base import Network
from badnets.repairs.random_shift import RandomShift
from badnets.repairs.shrink_pad import ShrinkPad

torch.set_num_threads(1)


def repaired(method, seed=0):
    network = wire()
    return method.apply(Suspect(network, network.shape, CLASSES), rng=np.random.default_rng(seed))


def canvas_of(method, x_NCHW, seed=0):
    """What the net is shown."""
    network, shown = repaired(method, seed=seed).network, []
    handle = network.body.register_forward_pre_hook(lambda module, given: shown.append(given[0]))
    network.predict_logits(torch.from_numpy(x_NCHW))
    handle.remove()
    return [x * network.std[:, None, None] + network.mean[:, None, None] for x in shown]


def white(count=150):
    """White squares, each with one darker pixel of its own, so that every image has its own draw."""
    x_NCHW = np.full((count, 1, 8, 8), 255, dtype=np.uint8)
    x_NCHW.reshape(count, 64)[np.arange(count), np.arange(count) % 64] = 254 - np.arange(count) // 64
    return x_NCHW


class TestWhere:
    def test_a_shrunk_image_lies_whole_on_black_at_every_place(self):
        (shown,) = canvas_of(ShrinkPad(pad=2), white())
        lit_NHW = shown[:, 0] > 0.5
        assert (lit_NHW.sum((1, 2)) == 36).all()
        assert ((shown[:, 0] < 1e-3) | (shown[:, 0] > 0.99)).all()
        corners = {
            (int(rows[0]), int(columns[0])) for rows, columns in ((m.any(1).nonzero()[:, 0], m.any(0).nonzero()[:, 0]) for m in lit_NHW)
        }
        assert corners == {(i, j) for i in range(3) for j in range(3)}

    def test_a_shift_goes_both_ways_and_repeats_the_border(self):
        x_NCHW = white()
        x_NCHW[:, 0, 4, 4] = 0
        x_NCHW[:, 0, :, 0] = 100
        (shown,) = canvas_of(RandomShift(pixels=1), x_NCHW)
        black = (shown[:, 0] < 0.1).nonzero()
        assert len(black) == len(x_NCHW)
        assert {(int(i), int(j)) for _, i, j in black} == {(i, j) for i in (3, 4, 5) for j in (3, 4, 5)}
        assert ((shown[:, 0, 2, 0] - 100 / 255).abs() < 1e-3)[black[:, 2] >= 4].all()

    def test_the_answer_to_an_image_depends_on_it_and_the_seed_alone(self):
        x_NCHW = pictures(10)[0]
        network = repaired(ShrinkPad(pad=2)).network
        together = network.predict_logits(torch.from_numpy(x_NCHW))
        alone = torch.cat([network.predict_logits(torch.from_numpy(x_NCHW[i : i + 1])) for i in range(len(x_NCHW))])
        assert torch.allclose(together, alone, atol=1e-5)
        assert torch.equal(network(torch.from_numpy(x_NCHW).float() / 255), network(torch.from_numpy(x_NCHW)))
        other = repaired(ShrinkPad(pad=2), seed=1).network.predict_logits(torch.from_numpy(x_NCHW))
        assert not torch.allclose(together, other, atol=0.1)

    @pytest.mark.parametrize("kind", [ShrinkPad, RandomShift])
    def test_draws_are_averaged(self, kind):
        x_NCHW = pictures(10)[0]
        shown = canvas_of(kind(draws=3), x_NCHW)
        assert len(shown) == 3
        assert not torch.equal(shown[0], shown[1])
        network = repaired(kind(draws=3)).network
        each = [Network.forward(network, part) for part in shown]
        assert torch.allclose(torch.stack(each).mean(0), network(torch.from_numpy(x_NCHW)), atol=1e-4)


class TestWhat:
    def test_a_trigger_in_a_corner_misses_its_place(self):
        """The wired trigger fires only on its own four pixels; a shift of at most one finds them in one draw of nine."""
        x_NCHW, y_N = pictures(60, seed=6)
        x_NCHW = TRIGGER.stamp(x_NCHW[y_N != TARGET])

        def fires(network):
            return float((network.predict_logits(torch.from_numpy(x_NCHW)).argmax(1) == TARGET).float().mean())

        assert fires(wire()) == 1.0
        assert fires(repaired(RandomShift(pixels=1)).network) < 0.7
        assert fires(repaired(ShrinkPad(pad=2)).network) < 0.5

    def test_gradients_pass_and_weights_keep_their_names(self):
        network = repaired(RandomShift(pixels=1, draws=2)).network
        x_NCHW = torch.rand(4, 1, 8, 8, requires_grad=True)
        network(x_NCHW)[:, 0].sum().backward()
        assert x_NCHW.grad.abs().sum() > 0
        assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), wire().state_dict().values(), strict=True))

    def test_it_says_what_it_does(self):
        assert repaired(ShrinkPad(pad=3)).note == "inputs are shrunk by 3 pixels and padded at one random place"
        assert repaired(RandomShift(draws=8)).note == "inputs are shifted at random by up to 3 pixels, 8 times, and the logits averaged"
