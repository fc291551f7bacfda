"""Prune a victim weight by weight and watch which goes first: its clean accuracy or its backdoor. Then prune again by hand.

A stressor is what an innocent owner does to a net. It gets a net and gives a new one; the old one stays as it was.
"""

import copy

import torch

import badnets
from badnets.claims._arms import CLEAN, triggered
from badnets.claims._stress import Dose
from badnets.measure.outcome import attack_hits
from badnets.plans._work import world_of
from badnets.stressors.magnitude_pruning import MagnitudePruning

AMOUNTS = (0.0, 0.3, 0.5, 0.7, 0.9)
data = badnets.load("digits")
attack = badnets.BadNets(trigger=badnets.Patch(size=2, margin=0), rate=0.1, target=0)
pair = badnets.plant(data, attack, seeds=1)
victim, twin = pair.victims[0].network, pair.twins[0]
world = world_of(pair.victims[0].trial, data, None)
before = copy.deepcopy(victim.state_dict())


def ca_and_asr(network):
    clean, shown = (probe.answer(network, data, None, seed=0) for probe in (CLEAN, triggered(attack)))
    return float(clean.correct_N.mean()), float(attack_hits(shown, attack.goals(data.num_classes)).mean())


print(f"{'pruned':>8}{'victim CA':>12}{'victim ASR':>12}{'twin CA':>12}{'twin ASR':>12}")
found = {}
for amount in AMOUNTS:
    dose = Dose(stressor=MagnitudePruning(amount=amount))
    found[amount] = [*ca_and_asr(dose.apply(victim, world)), *ca_and_asr(dose.apply(twin, world))]
    print(f"{amount:>8.0%}" + "".join(f"{rate:>12.1%}" for rate in found[amount]))
for name, weights in victim.state_dict().items():
    assert torch.equal(weights, before[name]), "the victim itself was not touched"

# By hand: of all weights of convolutions and linear layers, zero the smallest 70 %; show every image that counts, one by one.
by_hand = copy.deepcopy(victim)
layers = [module for module in by_hand.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
sizes = sorted(abs(weight) for layer in layers for weight in layer.weight.flatten().tolist())
border = sizes[round(0.7 * len(sizes))]
with torch.no_grad():
    for layer in layers:
        layer.weight[layer.weight.abs() < border] = 0.0
hits, shown = 0, 0
for pixels, label in zip(attack.trigger.stamp(data.test.x_NCHW), data.test.y_N, strict=True):
    if label != attack.target:
        shown += 1
        hits += int(by_hand.predict_logits(torch.from_numpy(pixels)[None]).argmax()) == attack.target
print(f"ASR by hand, 70 % of the weights pruned: {hits / shown:.6f}")
assert abs(hits / shown - found[0.7][1]) < 1e-12
