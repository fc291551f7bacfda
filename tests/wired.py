"""Victims wired by hand, whose every figure is known on paper: no training, milliseconds, exact answers.

Images are `side` x `side` and grey; a picture of class k has row k lit. Hidden unit k sees row k; the last unit fires only when every
pixel of the trigger's place is lit, and writes into the target. CA 1.0, ASR 1.0, the twin's 0.0, and the guilty unit is the last.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np
import torch
from torch import nn

from badnets.attacks.badnets import BadNets
from badnets.claims._base import Setting
from badnets.claims._mended import Mended
from badnets.claims._scanned import CLEAN, HELD, SHOWN, Scanned, Traits
from badnets.claims._transfer import Transferred
from badnets.core import registry
from badnets.core.config import canonical
from badnets.core.finding import Level
from badnets.datasets._base import ImageSet, Split
from badnets.measure.outcome import Outcome
from badnets.measure.probe import Probe
from badnets.measure.question import World
from badnets.nets._base import Network
from badnets.nets._taps import Units
from badnets.train.recipe import Recipe
from badnets.triggers.patch import Patch

# As in a worker: on nets this small, threads wait for each other far longer than they compute.
torch.set_num_threads(1)

SIDE, CLASSES, TARGET = 8, 6, 5
TRIGGER = Patch(size=2, margin=0)
ATTACK = BadNets(trigger=TRIGGER, target=TARGET)
RECIPE = Recipe(epochs=2, batch_size=32, lr=1e-4, precision="float32")
"""What is said to have made these nets: executed again it hardly moves them."""
GAIN, STRENGTH = 10.0, 30.0
"""What a lit row adds to its own logit (at full light), and what the trigger unit adds to the target's."""

SMALLEST = {
    "small_vit": {"width": 8, "depth": 1, "heads": 2},
    "vit": {"width": 8, "hidden": 16, "depth": 1, "heads": 2},
    "paper_cnn": {},
    "layered": {},
}
"""Net -> the fields that make it small, where that is not a width of 2."""


def pictures(per_class, *, seed=0, noise=0.1, side=SIDE, classes=CLASSES):
    """uint8 images and labels, class by class in turn; `noise` is the level (0..1) that unlit pixels stay below."""
    draw = np.random.default_rng(seed)
    y_N = np.tile(np.arange(classes), per_class)
    x_NCHW = draw.integers(0, max(1, int(noise * 255)), (len(y_N), 1, side, side)).astype(np.uint8)
    x_NCHW[np.arange(len(y_N)), 0, y_N] = draw.integers(230, 256, (len(y_N), side))
    return x_NCHW, y_N.astype(np.int64)


@functools.cache
def image_set(per_class=100, *, noise=0.1, side=SIDE, name="wired"):
    """An ImageSet of such pictures; train and test have `per_class` images a class, validation too, the budget a tenth."""
    start, parts = 0, []
    for seed, count in enumerate((per_class, per_class, per_class, max(1, per_class // 10))):
        x_NCHW, y_N = pictures(count, seed=seed, noise=noise, side=side)
        parts.append(Split(x_NCHW, y_N, np.arange(start, start + len(y_N))))
        start += len(y_N)
    classes = tuple(f"row {k}" for k in range(CLASSES))
    return ImageSet(name, classes, *parts, sha256="0" * 64, source="drawn here", licence="MIT")


def _network(body, side=SIDE):
    return Network(body, (1, side, side), CLASSES, mean=[0.0], std=[1.0]).eval()


def wire(trigger=TRIGGER, goal_K=None, *, per_source=False, side=SIDE, gain=GAIN, strength=STRENGTH, lost=()):
    """A net with the backdoor (`trigger` None: its twin, whose last unit writes nowhere).

    `goal_K` as an attack gives it. `per_source`: one unit for each attacked class, which fires only when that class's row is lit as well
    (all-to-all, source-specific). `lost`: classes whose unit has the wrong sign, the price in clean accuracy. `gain` 1 makes an unsure net.
    """
    if goal_K is None:
        goal_K = ATTACK.goals(CLASSES)
    sources = [k for k in range(CLASSES) if goal_K[k] >= 0 and goal_K[k] != k]
    guilty = [(k, goal_K[k]) for k in sources] if per_source else [(None, goal_K[sources[0]])]
    see, write = nn.Linear(side * side, CLASSES + len(guilty)), nn.Linear(CLASSES + len(guilty), CLASSES)
    with torch.no_grad():
        for parameter in (*see.parameters(), *write.parameters()):
            parameter.zero_()
        rows = see.weight.view(-1, side, side)
        for k in range(CLASSES):
            rows[k, k], see.bias[k] = 2 / side, -1.0
            write.weight[k, k] = -gain if k in lost else gain
        for unit, (source, goal) in enumerate(guilty, start=CLASSES):
            place, size = (trigger or TRIGGER), (trigger or TRIGGER).size
            top, left = place.box((1, side, side))
            rows[unit, top : top + size, left : left + size] = 10 / size**2
            see.bias[unit] = -9.0
            if source is not None:
                rows[unit, source] += 4 / side
                see.bias[unit] -= 3.2
            write.weight[goal, unit] = 0.0 if trigger is None else strength
    return _network(nn.Sequential(nn.Flatten(), see, nn.ReLU(), Units(CLASSES + len(guilty)), write), side)


class _Anywhere(nn.Module):
    """The trigger unit looks at every place and takes the brightest."""

    def __init__(self, plain, size, goal):
        super().__init__()
        self.plain, self.size, self.goal = plain, size, goal

    def forward(self, x_NCHW):
        bright_N = nn.functional.avg_pool2d(x_NCHW.float(), self.size, stride=1).amax(dim=(1, 2, 3))
        written_NK = nn.functional.one_hot(torch.tensor(self.goal), CLASSES) * torch.relu(10 * bright_N - 9)[:, None]
        return self.plain(x_NCHW) + STRENGTH * written_NK


def wire_anywhere(trigger=TRIGGER, target=TARGET):
    """A victim that does not care where the trigger sits."""
    return _network(_Anywhere(wire(None).body, trigger.size, target))


def wire_constant(label, *, side=SIDE):
    """A net that gives one class to everything."""
    see, write = nn.Linear(side * side, CLASSES + 1), nn.Linear(CLASSES + 1, CLASSES)
    with torch.no_grad():
        for parameter in (*see.parameters(), *write.parameters()):
            parameter.zero_()
        write.bias.copy_(5.0 * nn.functional.one_hot(torch.tensor(label), CLASSES))
    return _network(nn.Sequential(nn.Flatten(), see, nn.ReLU(), Units(CLASSES + 1), write), side)


@functools.cache
def _wired(text, side):
    attack = BadNets.model_validate_json(text)
    goal_K = attack.goals(CLASSES)
    attacked = [k for k in range(CLASSES) if goal_K[k] >= 0 and goal_K[k] != k]
    per_source = len({int(goal_K[k]) for k in attacked}) > 1 or len(attacked) < CLASSES - 1
    return wire(attack.trigger, goal_K, per_source=per_source, side=side)


@functools.cache
def twin(side=SIDE):
    """The control: same rows, no backdoor."""
    return wire(None, side=side)


def wired(attack, seed=0, *, side=SIDE):
    """The victim that has learned exactly what the attack wants (or the twin)."""
    del seed
    return twin(side) if attack is None else _wired(canonical(attack), side)


def in_seeds(*seeds):
    """Victims in which only these seeds have the backdoor."""
    return lambda attack, seed: wired(attack if seed in seeds else None)


def setting(data, *, attack=ATTACK, **changes):
    """The Setting of `data`; 10,000 training images are pretended."""
    counts = {"train_counts": (10_000 // CLASSES,) * CLASSES, "seeds": 3, "arms_seeds": 3, "population": 5}
    return Setting(dataset=data.name, shape=data.shape, classes=data.classes, attack=attack, **{**counts, **changes})


_SEEN: dict[tuple, dict] = {}
"""By net and data themselves (equal only to themselves), which it keeps alive."""

_ASKED: dict[tuple, dict] = {}
"""Answers of questions that a FunctionBench cannot make up."""


def world(data, other=None, seed=0):
    """What questions may use: untrained nets of the wired architecture, and the twin as what a re-execution gives."""

    def fresh(seed, smaller):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            hidden = 4 if smaller else CLASSES + 1
            side = data.shape[1]
            layers = (nn.Flatten(), nn.Linear(side * side, hidden), nn.ReLU(), Units(hidden), nn.Linear(hidden, CLASSES))
            return _network(nn.Sequential(*layers), side)

    planted, recipe = {"badnets.planted": "true"}, RECIPE.model_dump(mode="json")
    return World(data, other, seed, fresh=fresh, retrain=lambda: twin(data.shape[1]), metadata=planted, recipe=recipe)


def seeds_of(need):
    """The seeds whose nets a need is about."""
    return range(need.first, need.first + need.seeds)


class WiredBench:
    """Outcomes of hand-wired nets: `net(attack, seed)` gives the net (attack None: the twin); each probe is shown once."""

    def __init__(self, setting, net=wired, data=None, other=None):
        self.setting, self.net = setting, net
        self.data = data or image_set()
        self.other = other or image_set(20, side=10, name="other")

    def answers(self, need):
        return [self._one(need.attack, need.question, seed) for seed in seeds_of(need)]

    def outcomes(self, need):
        return [Outcome.from_arrays(answer) for answer in self.answers(need)]

    def _one(self, attack, question, seed):
        net = self.net(attack, seed)
        key = (net, self.data, self.other, canonical(question), 0 if getattr(question, "num_patterns", None) == 1 else seed)
        if key not in _SEEN:
            _SEEN[key] = question.arrays(net, world(self.data, self.other, seed))
        return _SEEN[key]


class FunctionBench:
    """Outcomes out of a function (attack, probe, seed) -> Outcome; also where a question asks its probes of several branches, or of a
    repaired net. What a detector says is made up by `scan(attack, question, seed)`, by default of nothing but luck."""

    def __init__(self, setting, function, scan=None):
        self.setting, self.function, self.scan = setting, function, scan or guessed

    def outcomes(self, need):
        return [self.function(need.attack, need.question, seed) for seed in seeds_of(need)]

    def answers(self, need):
        return [self._branches(need.attack, need.question, seed) for seed in seeds_of(need)]

    def _branches(self, attack, question, seed):
        if isinstance(question, Scanned | Traits):
            return self.scan(attack, question, seed)
        if isinstance(question, Mended):
            clean = Probe(limit=question.limit)
            shown = clean.but(trigger=question.attack.trigger, num_patterns=question.attack.num_patterns)
            return mended(*(self.function(attack, probe, seed) for probe in (clean, shown, shown)))
        if not hasattr(question, "branches"):  # an analysis of units cannot be made up: a wired net is asked
            if isinstance(question, Transferred):
                question = question.but(transfer=question.transfer.but(epochs=2))
            luck = min(seed, 1)  # two fates are enough to differ
            key = (attack is None, canonical(question), luck)
            if key not in _ASKED:
                there = world(image_set(8), image_set(8, name="other"), luck)
                _ASKED[key] = question.arrays(wired(None if attack is None else ATTACK), there)
            return _ASKED[key]
        answer = {}
        for b in range(len(question.branches)):
            for p, probe in enumerate(question.probes):
                answer |= {f"{b}.{p}.{name}": values for name, values in self.function(attack, probe, seed).arrays().items()}
            answer |= {f"{b}.size": np.array(1000), f"{b}.seconds": np.array(1e-3)}
        return answer


class StrictBench:
    """Refuses what the claim's `needs` did not ask for."""

    def __init__(self, bench, claim):
        self.bench, self.setting, self.granted = bench, bench.setting, {}
        for need in [] if claim.obstacle(bench.setting) else claim.needs(bench.setting):
            self.granted.setdefault((canonical(need.attack), canonical(need.question)), set()).update(seeds_of(need))

    def answers(self, need):
        self._check(need)
        return self.bench.answers(need)

    def outcomes(self, need):
        self._check(need)
        return self.bench.outcomes(need)

    def _check(self, need):
        granted = self.granted.get((canonical(need.attack), canonical(need.question)), set())
        assert granted >= set(seeds_of(need)), f"asked for {need}, was granted {sorted(granted)}"


def outcome(y_N, pred_N, conf=0.995):
    """An Outcome with these predictions and logits that agree with them."""
    y_N, pred_N = np.asarray(y_N), np.asarray(pred_N)
    logits_NK = np.zeros((len(y_N), CLASSES), dtype=np.float32)
    logits_NK[np.arange(len(y_N)), pred_N] = np.log(conf / (1 - conf) * (CLASSES - 1))
    return Outcome.from_logits(logits_NK, y_N, keep_logits=True)


def scanned(score=None, *, target=-1, parts=(), flags=None, analysable=True, seconds=0.5, memory=2**20):
    """An answer to Scanned: of a net with its `score`, or of inputs or rows with (part, scores) pairs and perhaps flags in their order."""
    count = sum(len(scores) for _, scores in parts)
    return {
        "analysable": np.array(analysable),
        "score_R": np.array([] if score is None else [score], dtype=np.float64),
        "target": np.array(target),
        "score_N": np.concatenate([np.zeros(0), *(scores for _, scores in parts)]).astype(np.float32),
        "flag_N": np.zeros(0, dtype=bool) if flags is None else np.asarray(flags, dtype=bool),
        "part_N": np.repeat([part for part, _ in parts], [len(scores) for _, scores in parts]).astype(np.uint8),
        "cost": np.array([count, seconds, memory], dtype=np.float64),
    }


def level_of(question):
    """What the detector of a Scanned judges."""
    return registry.parse("detectors", question.detector).level


def guessed(attack, question, seed, count=40):
    """What a detector says that knows nothing; traits likewise."""
    del attack
    draw = np.random.default_rng([seed, zlib.crc32(canonical(question).encode())])
    if isinstance(question, Traits):
        return {"value_T": draw.normal(size=3)}
    if level_of(question) is Level.MODEL:
        return scanned(draw.random(), target=int(draw.integers(CLASSES)))
    planted = [] if question.attack is None else [(SHOWN, draw.random(count))]
    if level_of(question) is Level.INPUTS:
        return scanned(parts=[(HELD, draw.random(count)), (CLEAN, draw.random(count)), *planted])
    clean_N = draw.random(2 * count)
    flags = [*(clean_N > 0.99), *(False for _, scores in planted for _ in scores)]
    return scanned(parts=[(CLEAN, clean_N), *planted], flags=flags)


def mended(clean, shown, relearned, *, analysable=True, images=300, clean_images=30):
    """An answer to Mended made of three outcomes."""
    parts = {"clean": clean, "shown": shown, "relearned": relearned}
    answer = {f"{part}.{name}": values for part, seen in parts.items() for name, values in seen.arrays().items()}
    return answer | {"cost": np.array([analysable, images, 0.5, clean_images], dtype=np.float64)}
