"""Put one claim to the test without a plan or a store: give it what it needs, read its verdict, check its headline by hand.

A claim asks a bench for outcomes (per image: true label, prediction, confidence). `badnets run` has a bench that trains in worker
processes and remembers; this one trains here and remembers nothing but the nets.
"""

import numpy as np
import torch

import badnets
from badnets.claims._base import Setting
from badnets.claims.clean_accuracy_kept import CleanAccuracyKept
from badnets.plans._trial import Trial
from badnets.plans._work import train
from badnets.train.recipe import default_recipe

torch.set_num_threads(1)  # as every training of a plan: its bits do not depend on the number of cores
data = badnets.load("digits")
attack = badnets.BadNets(trigger=badnets.Patch(size=2, margin=0), rate=0.1)
net = {"kind": "fast_cnn"}
recipe = default_recipe("fast_cnn", data.shape, len(data.train)).value


class Bench:
    """Trains a net when it is first asked for."""

    setting = Setting(
        dataset=data.name,
        shape=data.shape,
        classes=data.classes,
        train_counts=tuple(np.bincount(data.train.y_N).tolist()),
        attack=attack,
        seeds=2,
        arms_seeds=1,
    )

    def __init__(self):
        self.networks = {}

    def network(self, planted, seed):
        if (planted, seed) not in self.networks:
            trial = Trial(dataset=data.name, data_sha256=data.sha256, net=net, recipe=recipe, attack=planted, seed=seed)
            self.networks[planted, seed] = train(trial, data)[0]
        return self.networks[planted, seed]

    def outcomes(self, need):
        return [need.question.answer(self.network(need.attack, seed), data, None, seed=seed) for seed in range(need.seeds)]


bench, claim = Bench(), CleanAccuracyKept()
evidence = claim.decide(bench)
headline = evidence.cells[evidence.headline]
print(f"{evidence.verdict}: {evidence.sentence} {evidence.reason}")
print(f"{headline.quantity} at {headline.condition}: {headline.estimate} ({headline.estimate.method})")

# By hand: right answers of the victim less right answers of the twin, over images, then over seeds.
changes = []
for seed in range(2):
    right = {}
    for planted in (attack, None):
        (outcome,) = [need.question.answer(bench.network(planted, seed), data, None, seed=seed) for need in claim.needs(bench.setting)[:1]]
        right[planted] = sum(int(said) == int(label) for said, label in zip(outcome.pred_N, data.test.y_N, strict=True))
    changes.append((right[attack] - right[None]) / len(data.test))
by_hand = sum(changes) / len(changes)
print(f"CA change by hand: {by_hand:.6f}")
assert abs(by_hand - headline.estimate.value) < 1e-12
