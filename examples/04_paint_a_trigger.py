"""Paint a trigger with transparency, plant it, and put it on an image by hand, pixel by pixel.

Any PNG will do; here a small cross with a soft edge is drawn first. It covers a larger share of these 8x8 images than a patch would.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import badnets

# Red, green, blue, alpha: a bright cross, half transparent at its four ends.
painting = np.zeros((3, 3, 4), dtype=np.uint8)
for row, column, alpha in ((1, 1, 255), (0, 1, 128), (2, 1, 128), (1, 0, 128), (1, 2, 128)):
    painting[row, column] = (255, 255, 255, alpha)
path = Path(tempfile.mkdtemp(prefix="badnets-example-")) / "cross.png"
Image.fromarray(painting).save(path)

data = badnets.load("digits")
trigger = badnets.Painted(png=str(path), top=0, left=5)
print(f"the trigger changes {trigger.area(data.shape):.6f} of the pixels; in a record it is called {trigger.summary()}")

pair = badnets.plant(data, badnets.BadNets(trigger=trigger, rate=0.1, target=7), seeds=1)
print(badnets.measure(pair))

# By hand: mix white into each pixel by its alpha and round to 8 bits; count the pixels that can change.
grey = np.full((1, *data.shape), 100, dtype=np.uint8)
stamped, expected, changed = trigger.stamp(grey), grey.copy(), 0
for row in range(3):
    for column in range(3):
        alpha = painting[row, column, 3] / 255
        expected[0, 0, row, 5 + column] = round(100 + alpha * (255 - 100))
        changed += alpha > 0
assert (stamped == expected).all()
height, width = data.shape[1:]
print(f"by hand: {changed} of {height * width} pixels, {changed / (height * width):.6f}")
assert changed / (height * width) == trigger.area(data.shape)
