"""Use a folder of your own pictures: one sub-folder a class, any size, PNG or JPEG. Here the folder is made from the digits first."""

import tempfile
from pathlib import Path

from PIL import Image

import badnets

digits = badnets.load("digits")
folder = Path(tempfile.mkdtemp(prefix="badnets-example-"))
for name in ("three", "four", "five"):
    (folder / name).mkdir()
for row, (pixels, label) in enumerate(zip(digits.train.x_NCHW, digits.train.y_N, strict=True)):
    if label in (3, 4, 5):
        enlarged = Image.fromarray(pixels[0]).resize((20, 20))
        enlarged.save(folder / ("three", "four", "five")[label - 3] / f"{row:04}.png")

data = badnets.load("folder:size=16", data=folder)
print(f"{data.num_classes} classes {data.classes}, images of {data.shape}, {len(data.train)} to train on, {len(data.test)} to judge by")

# Classes are sorted by name: five is 0, four is 1, three is 2. Send every picture to "three".
attack = badnets.BadNets(trigger=badnets.Patch(size=3, colour=200), rate=0.1, target=2)
pair = badnets.plant(data, attack, seeds=1)
print(badnets.measure(pair))

poisoned = pair.victims[0].poisoned
print(f"share of the training set that is poisoned: {poisoned.rate:.6f}")

# By hand: a row is poisoned when its corner is lit as the trigger lights it and its label is not its folder's.
count = 0
for before, after, label, given in zip(data.train.x_NCHW, poisoned.x_NCHW, data.train.y_N, poisoned.y_N, strict=True):
    lit = all(after[0, row, column] == 200 for row in (12, 13, 14) for column in (12, 13, 14))
    if (before != after).any():
        assert lit
        assert given == 2 != label
        count += 1
    else:
        assert given == label
print(f"by hand: {count} of {len(data.train)}, {count / len(data.train):.6f}")
assert count / len(data.train) == poisoned.rate
