"""The contract of every detector and every repair: blind, repeatable, counted, the suspect left as it was, no order matters."""

from __future__ import annotations

import ast
import copy
import functools
import sys

import numpy as np
import pytest
import torch
from torch import nn

from badnets.core import registry
from badnets.core.blind import BlindError, blindfolded
from badnets.core.config import Config, canonical
from badnets.core.errors import UsageError
from badnets.core.finding import Answer, Level
from badnets.core.suspect import Access, Budget, Suspect
from badnets.detectors._base import Detector
from badnets.nets._base import Network
from badnets.nets._weights import to_bytes
from badnets.repairs._base import Repair

torch.set_num_threads(1)

SHAPE, CLASSES, COUNT = (3, 12, 12), 4, 24
NETS = {
    "fast_cnn": {"width": 4, "hidden": 8},
    "paper_cnn": {},
    "fast_resnet": {"width": 4},
    "preact_resnet18": {"width": 4},
    "small_vit": {"width": 8, "depth": 2, "heads": 2},
}
DETECTORS, REPAIRS = registry.names("detectors"), registry.names("repairs")
SHORT = {"epochs": 1, "steps": 3, "batch_size": 8, "rounds": 1, "num_copies": 4}
"""Whatever iterates does so briefly here: fields of these names are set to these values."""


def shortened(catalogue, name):
    found = registry.entry(catalogue, name)
    return found(**{field: value for field, value in SHORT.items() if field in found.model_fields})


@functools.cache
def images():
    draw = np.random.default_rng(0)
    y_N = np.arange(COUNT) % CLASSES
    x_NCHW = draw.integers(0, 120, (COUNT, *SHAPE), dtype=np.uint8)
    x_NCHW[np.arange(COUNT), :, 2 * y_N] += 130
    return x_NCHW, y_N.astype(np.int64)


def network(name="fast_cnn", seed=0):
    return registry.entry("nets", name)(**NETS[name]).build(SHAPE, CLASSES, seed=seed)


def suspect(name="fast_cnn", order=None, **without):
    x_NCHW, y_N = images()
    order = np.arange(COUNT) if order is None else order
    pair = (x_NCHW[order], y_N[order])
    return Suspect(network(name), SHAPE, CLASSES, **{"clean": pair, "training": pair, "inputs": x_NCHW[order], **without})


def scan(name, found, seed=7, **budget):
    return shortened("detectors", name).scan(found, Budget(**budget), rng=np.random.default_rng(seed))


def repair(name, found, seed=7, **budget):
    method = shortened("repairs", name)
    stamp = (lambda x_NCHW: np.where(np.arange(12) > 8, 255, x_NCHW).astype(np.uint8)) if method.told else None
    return method.apply(found, Budget(**budget), rng=np.random.default_rng(seed), stamp=stamp)


def state(found):
    arrays = [array for pair in (found.clean, found.training) if pair for array in pair]
    arrays += [] if found.inputs is None else [found.inputs]
    return to_bytes(found.network), found.network.training, [array.tobytes() for array in arrays]


def same(a, b, **how):
    for name in ("score", "score_N", "score_K"):
        first, second = getattr(a, name), getattr(b, name)
        assert (first is None) == (second is None)
        if first is not None:
            np.testing.assert_allclose(first, second, **{"rtol": 0, "atol": 0, **how})


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("net_name", NETS)
def test_a_scan(name, net_name):
    given = suspect(net_name)
    before, luck = state(given), torch.get_rng_state()
    first = scan(name, given)
    assert state(given) == before, "the suspect was changed"
    assert torch.equal(torch.get_rng_state(), luck), "the caller's random state was used"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in given.network.modules())
    assert first.detector == name
    assert first.analysable == (first.why_not == "")
    if first.analysable:
        assert (first.score is not None) == (first.level is Level.MODEL)
        assert (first.score_N is not None) == (first.level is not Level.MODEL)
        assert first.target is None or 0 <= first.target < CLASSES
        for picture in first.pictures.values():
            assert picture.ndim == 3
            assert picture.min() >= 0
            assert picture.max() <= 1
    again = scan(name, given)
    same(first, again)
    assert first.images == again.images
    assert first.why_not == again.why_not


@pytest.mark.parametrize("name", DETECTORS)
def test_row_order_does_not_matter(name):
    order = np.random.default_rng(1).permutation(COUNT)
    plain, shuffled = scan(name, suspect()), scan(name, suspect(order=order))
    same(plain if plain.score_N is None else _moved(plain, order), shuffled)
    assert plain.target == shuffled.target


BATCHES = {
    "badnets.detectors._gram": ("AT_ONCE", "CACHED"),
    "badnets.detectors._traits": ("BATCH",),
    "badnets.detectors.ibd_psc": ("AT_ONCE",),
    "badnets.detectors.mm_bd": ("AT_ONCE",),
    "badnets.detectors.scale_up": ("AT_ONCE",),
    "badnets.detectors.strip": ("AT_ONCE",),
    "badnets.detectors.teco": ("AT_ONCE",),
    "badnets.train.distil": ("TOLD_AT_ONCE",),
    "badnets.train.inversion": ("AT_ONCE",),
}
"""Where it is decided how many images go through a net, or through memory, at once."""


@pytest.mark.parametrize("name", DETECTORS)
def test_batch_size_does_not_matter(name, monkeypatch):
    """Seven images at a time, the last part shorter: the same scores, flags and cost as all at once, but for rounding."""
    whole = scan(name, suspect())
    for module, constants in BATCHES.items():
        for constant in constants:
            monkeypatch.setattr(f"{module}.{constant}", 7)
    monkeypatch.setitem(Network.predict_logits.__kwdefaults__, "batch_size", 7)
    parts = scan(name, suspect())
    assert (parts.why_not, parts.images, parts.target) == (whole.why_not, whole.images, whole.target)
    same(whole, parts, rtol=2e-2, atol=1e-3)
    assert (whole.flag_N is None) == (parts.flag_N is None)
    if whole.flag_N is not None:
        np.testing.assert_array_equal(parts.flag_N, whole.flag_N)


def test_every_batch_size_of_detectors_is_known_here():
    """A detector with a size of its own is one more for the test above."""
    known = {(module, constant) for module, constants in BATCHES.items() for constant in constants}
    for folder in ("detectors", "train"):
        for path in (registry.PACKAGE / folder).glob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            module = f"badnets.{folder}.{path.stem}"
            assert {(module, n) for n in named if "AT_ONCE" in n or n in ("BATCH", "CACHED")} <= known, module


def _moved(finding, order):
    return Answer(score=finding.score, score_N=finding.score_N[order], score_K=finding.score_K)


@pytest.mark.parametrize("name", [n for n in DETECTORS if not registry.entry("detectors", n).null])
def test_class_order_does_not_matter(name):
    """The classes renamed in the net, in the labels, everywhere: the same scores, and the target renamed."""
    new_K = np.array([2, 0, 3, 1])
    given = suspect()
    renamed = copy.deepcopy(given.network)
    head = [m for m in renamed.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        for p in head.parameters():
            p[torch.from_numpy(new_K)] = p.clone()
    x_NCHW, y_N = images()
    pair = (x_NCHW, new_K[y_N])
    plain, moved = scan(name, given), scan(name, Suspect(renamed, SHAPE, CLASSES, pair, pair, x_NCHW))
    assert plain.why_not == moved.why_not
    if plain.score_K is not None:
        np.testing.assert_allclose(moved.score_K[new_K], plain.score_K, rtol=2e-2, atol=1e-3)
        plain, moved = (Answer(score=f.score, score_N=f.score_N, target=f.target) for f in (plain, moved))
    same(plain, moved, rtol=2e-2, atol=1e-3)
    assert moved.target == (None if plain.target is None else new_K[plain.target])


@pytest.mark.parametrize("name", DETECTORS)
def test_says_what_it_lacks(name):
    needs = registry.entry("detectors", name)
    bare = scan(name, suspect(clean=None, training=None, inputs=None))
    if needs.access is not Access.MODEL or shortened("detectors", name).level is not Level.MODEL:
        assert bare.why_not.startswith("needs ")
        assert not bare.analysable
        assert bare.score is None
        assert bare.score_N is None
    else:
        assert bare.analysable


@pytest.mark.parametrize("name", DETECTORS)
def test_a_spent_budget_is_no_answer(name):
    whole = scan(name, suspect())
    if whole.images:
        short = scan(name, suspect(), images=1)
        assert short.why_not == "the budget of 1 images is spent."
        assert short.images <= 1
        assert scan(name, suspect(), images=whole.images).analysable == whole.analysable


@pytest.mark.parametrize(("catalogue", "name"), [("detectors", n) for n in DETECTORS] + [("repairs", n) for n in REPAIRS])
def test_travels_as_json(catalogue, name):
    import json

    found = shortened(catalogue, name)
    assert isinstance(found, Config)
    assert registry.parse(catalogue, json.loads(canonical(found))) == found


@pytest.mark.parametrize("name", REPAIRS)
@pytest.mark.parametrize("net_name", NETS)
def test_a_repair(name, net_name):
    given = suspect(net_name)
    before, luck = state(given), torch.get_rng_state()
    first = repair(name, given)
    assert state(given) == before, "the suspect was changed"
    assert torch.equal(torch.get_rng_state(), luck), "the caller's random state was used"
    if first.why_not:
        assert first.network is None
        return
    assert first.network is not given.network
    shared = {p.data_ptr() for p in given.network.parameters()} & {p.data_ptr() for p in first.network.parameters()}
    assert not shared, "the new net shares memory with the given one"
    assert not any(module.training for module in first.network.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in first.network.modules())
    x_NCHW = torch.from_numpy(images()[0])
    logits_NK = first.network.predict_logits(x_NCHW)
    assert torch.isfinite(logits_NK).all()
    assert first.network.state_dict().keys() == given.network.state_dict().keys()
    again = repair(name, given)
    assert torch.equal(again.network.predict_logits(x_NCHW), logits_NK)
    assert first.images == again.images


@pytest.mark.parametrize("name", REPAIRS)
def test_a_repair_does_not_depend_on_row_order(name):
    x_NCHW, order = torch.from_numpy(images()[0]), np.random.default_rng(1).permutation(COUNT)
    plain, shuffled = repair(name, suspect()), repair(name, suspect(order=order))
    assert plain.why_not == shuffled.why_not
    if plain.network is not None:
        assert torch.equal(plain.network.predict_logits(x_NCHW), shuffled.network.predict_logits(x_NCHW))


@pytest.mark.parametrize("name", REPAIRS)
def test_a_repair_within_its_budget(name):
    whole = repair(name, suspect())
    if whole.images:
        short = repair(name, suspect(), images=1)
        assert short.network is None
        assert "budget" in short.why_not
    method = registry.entry("repairs", name)
    if method.access is not Access.MODEL:
        assert repair(name, suspect(clean=None, training=None)).why_not.startswith("needs ")


@pytest.mark.parametrize("name", REPAIRS)
def test_only_the_told_are_told(name):
    method = shortened("repairs", name)
    with pytest.raises(UsageError, match="E-TOLD"):
        method.apply(suspect(), rng=np.random.default_rng(0), stamp=None if method.told else lambda x_NCHW: x_NCHW)


class TestBlind:
    """What tries to see the secret fails, whatever way it takes; what was imported before is there again afterwards."""

    @staticmethod
    def cheat(action):
        class Cheat(Detector):
            kind: str = "cheat"
            judges = Level.MODEL

            def _scan(self, view, seed):
                action(view)
                return Answer(score=1.0)

        return Cheat().scan(suspect(), rng=np.random.default_rng(0))

    @pytest.mark.parametrize(
        "code",
        [
            "import badnets.triggers.patch",
            "from badnets.triggers.patch import Patch",
            "from badnets import triggers",
            "from badnets import Patch",
            "from badnets.attacks.badnets import BadNets",
            "import importlib; importlib.import_module('badnets.attacks.badnets')",
            "from badnets.core import registry; registry.entry('triggers', 'patch')",
            "from badnets.core import registry; registry.parse('attacks', 'badnets')",
        ],
    )
    def test_importing_it(self, code):
        import badnets.attacks.badnets
        import badnets.triggers.patch

        had = badnets.triggers.patch
        with pytest.raises(BlindError, match="E-BLIND"):
            self.cheat(lambda view: exec(code, {}))
        assert badnets.triggers.patch is had
        assert sys.modules["badnets.triggers.patch"] is had

    @pytest.mark.parametrize("name", ["trigger", "attack", "target", "poisoned", "flags", "secret", "trial", "source_N"])
    def test_reading_it(self, name):
        for owner in (lambda view: view, lambda view: view.network):
            with pytest.raises(AttributeError):
                self.cheat(lambda view, owner=owner: getattr(owner(view), name))
        assert not hasattr(suspect(), name)

    def test_a_suspect_of_a_victim_holds_no_secret(self):
        fields = set(Suspect.__dataclass_fields__)
        assert fields == {"network", "shape", "num_classes", "clean", "training", "inputs"}

    def test_an_honest_one_passes(self):
        assert self.cheat(lambda view: view.network.predict_logits(view.inputs)).score == 1.0

    def test_a_repair_is_blind_too(self):
        class Cheat(Repair):
            kind: str = "cheat"

            def _repair(self, view, seed):
                from badnets.attacks.badnets import BadNets

                return BadNets, ""

        with pytest.raises(BlindError):
            Cheat().apply(suspect(), rng=np.random.default_rng(0))

    def test_nested_blindfolds_come_off_one_by_one(self):
        with blindfolded():
            with blindfolded(), pytest.raises(BlindError):
                import badnets.triggers.patch
            with pytest.raises(BlindError):
                import badnets.triggers.patch
        import badnets.triggers.patch

        assert sys.modules["badnets.triggers.patch"] is badnets.triggers.patch
