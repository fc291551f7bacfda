"""Latency of one net as float32 and as int8, on the same batch with one thread: proof that integer kernels run, and what they gain.

Rounds go through all variants in turn, so that a slow minute hits all of them; medians and quartiles over rounds. Latency of
`predict_logits`, normalisation of the pixels included, since an owner pays for that too.

    python benchmarks/int8.py [--net fast_resnet:width=32] [--batch 100] [--rounds 30] > result.json
"""

import argparse
import json
import sys
import time

import numpy as np
import torch

from badnets.claims._stress import file_size
from badnets.core import registry
from badnets.core.errors import RefusedError
from badnets.core.hardware import describe, versions
from badnets.core.rng import generator
from badnets.stressors._base import Supply
from badnets.stressors.int8 import Int8

NETS = ("fast_cnn", "paper_cnn", "fast_resnet:width=32", "preact_resnet18:width=32", "small_vit")
GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def variants(name):
    """The net in float32 and quantised, with images; random weights and pixels, since kernels take as long for any."""
    shape = GREY if name.partition(":")[0] in ("fast_cnn", "paper_cnn") else COLOUR
    network = registry.parse("nets", name).build(shape, 10, seed=0)
    x_NCHW = torch.randint(0, 256, (500, *shape), dtype=torch.uint8, generator=generator(0, "benchmark"))
    found = {"float32": network}
    for runtime in ("torch", "onnxruntime"):
        try:
            found[f"int8, {runtime}"] = Int8(runtime=runtime).apply(network, Supply(x_NCHW, None, lambda seed, smaller: network), seed=0)
        except RefusedError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return found, x_NCHW


def measure(name, batch, rounds):
    """Milliseconds a batch of each variant."""
    found, x_NCHW = variants(name)
    exact_N = found["float32"].predict_logits(x_NCHW).argmax(dim=1)
    spent = {variant: [] for variant in found}
    for i in range(rounds + 2):
        for variant, network in found.items():
            start = time.perf_counter()
            network.predict_logits(x_NCHW[:batch], batch_size=batch)
            if i >= 2:
                spent[variant].append(1000 * (time.perf_counter() - start))
    rows = []
    for variant, network in found.items():
        low, middle, high = (round(float(q), 3) for q in np.percentile(spent[variant], (25, 50, 75)))
        same = float((network.predict_logits(x_NCHW).argmax(dim=1) == exact_N).double().mean())
        times = {"median_ms": middle, "quartiles_ms": [low, high], "speedup": round(float(np.median(spent["float32"])) / middle, 2)}
        rows.append({"net": name, "variant": variant, **times, "same_answer": same, "file_bytes": file_size(network)})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", action="append", help="may be given several times")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in args.net or NETS for row in measure(name, args.batch, args.rounds)]
    for row in rows:
        line = f"{row['net']:26}{row['variant']:20}{row['median_ms']:10.2f} ms {row['quartiles_ms']}"
        print(f"{line} x{row['speedup']:.2f}, same answer {100 * row['same_answer']:.1f} %", file=sys.stderr)
    print(json.dumps({"batch": args.batch, "rounds": args.rounds, "rows": rows, "hardware": describe(), "versions": versions()}, indent=2))


if __name__ == "__main__":
    main()
