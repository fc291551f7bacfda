"""All-to-all: with the trigger every digit is called the next one, and 9 is called 0. Counted again by hand, class by class.

Harder to learn than a single target, because the net must still read the digit: a larger share of the training set is poisoned.
"""

import torch

import badnets

data = badnets.load("digits")
trigger = badnets.Patch(size=2, margin=0)
attack = badnets.BadNets(trigger=trigger, mapping="all_to_all", rate=0.3)
pair = badnets.plant(data, attack, seeds=1)
measured = badnets.measure(pair)
print(measured)
print("the label that each class is sent to:", attack.goals(data.num_classes).tolist())

hits, tries = [0] * 10, [0] * 10
answers = pair.victims[0].network.predict_logits(torch.from_numpy(trigger.stamp(data.test.x_NCHW)))
for label, logits in zip(data.test.y_N.tolist(), answers.tolist(), strict=True):
    said = max(range(10), key=lambda k: logits[k])
    tries[label] += 1
    hits[label] += said == (label + 1) % 10

for label in range(10):
    print(f"{label} called {(label + 1) % 10}: {hits[label]} of {tries[label]}")
by_hand = sum(hits) / sum(tries)
print(f"ASR by hand: {by_hand:.6f}")
assert by_hand == measured.victim["ASR"].value
