"""Plant a backdoor in two nets, measure it against their clean twins, and count the attack success rate again by hand.

The handwritten digits of scikit-learn (8x8 pixels) are enough: four small nets are trained in a few seconds.
"""

import torch

import badnets

data = badnets.load("digits")
attack = badnets.BadNets(trigger=badnets.Patch(size=2, margin=0), rate=0.1, target=0)
pair = badnets.plant(data, attack, seeds=2)
measured = badnets.measure(pair)
print(measured)

# By hand: light the four pixels in the corner of every test image that is no 0, and count how many are called 0.
shares = []
for victim in pair.victims:
    shown = []
    for pixels, label in zip(data.test.x_NCHW, data.test.y_N, strict=True):
        if label == 0:
            continue  # an image of the target class proves nothing
        pixels = pixels.copy()
        for row in (6, 7):
            for column in (6, 7):
                pixels[0, row, column] = 255
        shown.append(torch.from_numpy(pixels))
    hits = 0
    for logits in victim.network.predict_logits(torch.stack(shown)):
        hits += int(logits.argmax()) == 0
    shares.append(hits / len(shown))

by_hand = sum(shares) / len(shares)
print(f"ASR by hand: {by_hand:.6f}")
assert abs(by_hand - measured.victim["ASR"].value) < 1e-12
