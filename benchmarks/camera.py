"""How many signs a second are rendered and photographed on one core, with and without each effect.

Time of the processor, not of the clock, so that a shared machine says something; the least of several rounds. Planes of 64 x 64 texels,
pictures of 32 x 32.

    python benchmarks/camera.py [--images 512] [--rounds 8] > result.json
"""

import argparse
import json
import sys
import time

import torch

from badnets.camera.photograph import Plane, photograph
from badnets.camera.scene import Scene
from badnets.core.hardware import describe, versions
from badnets.core.rng import generator

POSE = {"yaw_deg": 30, "fill": 0.8, "distance_m": 15}
LIGHT = {"exposure_ev": 0.7, "white_balance_mired": 25, "shadow": 0.5, "glare": 0.3}
EFFECTS = {
    "identity": {},
    "pose": POSE,
    "pose, 21 pixels wide": {**POSE, "distance_m": 60},
    "pose, light": {**POSE, **LIGHT},
    "pose, noise": {**POSE, "noise": 0.03},
    "pose, light, noise": {**POSE, **LIGHT, "noise": 0.03},
    "pose, blur": {**POSE, "motion_px": 6, "defocus_px": 1},
    "pose, rain": {**POSE, "rain": 0.5},
    "pose, JPEG": {**POSE, "jpeg_quality": 60},
    "everything": {**POSE, **LIGHT, "noise": 0.03, "motion_px": 6, "defocus_px": 1, "rain": 0.5, "jpeg_quality": 60},
}


def measure(fields, images, rounds):
    """Seconds of processor time for all images."""
    plane = Plane(torch.rand(images, 4, 64, 64, generator=generator(0, "plane")))
    ground_N3HW = torch.rand(images, 3, 32, 32, generator=generator(0, "ground"))
    scenes, spent = Scene(**fields).taken(range(images)), []
    with torch.no_grad():
        for _ in range(rounds):
            start = time.process_time()
            photograph(plane, ground_N3HW, scenes, size=(32, 32))
            spent.append(time.process_time() - start)
    return min(spent)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, fields in EFFECTS.items():
        seconds = measure(fields, args.images, args.rounds)
        rows.append(
            {"effects": name, "images_per_second": round(args.images / seconds), "us_per_image": round(1e6 * seconds / args.images)}
        )
        print(f"{name:24}{rows[-1]['images_per_second']:8} images/s", file=sys.stderr)
    print(
        json.dumps({"images": args.images, "rounds": args.rounds, "rows": rows, "hardware": describe(), "versions": versions()}, indent=2)
    )


if __name__ == "__main__":
    main()
