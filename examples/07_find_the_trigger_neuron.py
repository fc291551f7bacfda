"""Find the units that fire for the trigger, switch them off one after the other, and watch the backdoor; then one figure by hand.

Selectivity is a correlation; only switching off (ablation) says whether the backdoor needs the units. Random units are the control.
Units are chosen on validation images and judged on test images, since the best of many looks better where it was chosen.
"""

from dataclasses import replace

import numpy as np
import torch

import badnets
from badnets.claims._arms import CLEAN, triggered
from badnets.measure.outcome import attack_hits
from badnets.nets._taps import masked, record, unit_layers
from badnets.neurons.selectivity import Selectivity
from badnets.plans._work import world_of

data = badnets.load("digits")
attack = badnets.BadNets(trigger=badnets.Patch(size=2, margin=0), rate=0.1, target=0)
pair = badnets.plant(data, attack, seeds=1)
victim, twin = pair.victims[0].network, pair.twins[0]
world = world_of(pair.victims[0].trial, replace(data, test=data.validation), None)

layers = unit_layers(victim)
layer = list(layers)[-1]
place = len(layers) - 1
scores = {name: Selectivity(attack=attack).arrays(net, world)[f"{place}.selectivity"] for name, net in (("victim", victim), ("twin", twin))}
order = np.argsort(-scores["victim"])
print(f"last layer with units: {layer}, {layers[layer]} units")
print("most selective units of the victim:", ", ".join(f"{unit} ({scores['victim'][unit]:.1f})" for unit in order[:5]))
print("highest selectivity in the twin:", f"{scores['twin'].max():.1f}")


def ca_and_asr(units):
    mask = torch.ones(layers[layer])
    mask[units] = 0.0
    with masked(victim, {layer: mask}):
        clean, shown = (probe.answer(victim, data, None, seed=0) for probe in (CLEAN, triggered(attack)))
    return float(clean.correct_N.mean()), float(attack_hits(shown, attack.goals(data.num_classes)).mean())


drawn = np.random.default_rng(0).permutation(layers[layer])
print(f"{'switched off':>14}{'CA':>8}{'ASR':>8}{'random: CA':>14}{'ASR':>8}")
for k in (0, 1, 2, 4, 8, 16):
    chosen, random = ca_and_asr(order[:k].tolist()), ca_and_asr(drawn[:k].tolist())
    print(f"{k:>14}{chosen[0]:>8.1%}{chosen[1]:>8.1%}{random[0]:>14.1%}{random[1]:>8.1%}")

# By hand: how far the first unit moves under the trigger, image by image, over how much it varies without.
clean, shown = [], []
for before, after in zip(data.validation.x_NCHW, attack.trigger.stamp(data.validation.x_NCHW), strict=True):
    for pixels, seen in ((before, clean), (after, shown)):
        seen.append(record(victim, [layer], torch.from_numpy(pixels)[None])[layer][0].double().numpy())
spreads = np.std(clean, axis=0)
change = sum(abs(a[order[0]] - b[order[0]]) for a, b in zip(shown, clean, strict=True)) / len(clean)
by_hand = change / max(spreads[order[0]], 0.01 * spreads.max())  # a unit silent on clean images has no spread of its own
print(f"selectivity of unit {order[0]} by hand: {by_hand:.6f}")
assert abs(by_hand / scores["victim"][order[0]] - 1) < 1e-4
