"""One timed task in a fresh process on one thread: MNIST 60,000 to CA >= 98.5 % and ASR >= 99 %, by badnets or by ART; and ceilings.

`python benchmarks/mnist.py TASK SEED` prints one JSON line. Tasks: `ours`; `art` (ART on our implementation of the paper's net),
`art_plain` (ART on the same net as a plain `nn.Sequential`, as its users write one); `ceiling`; `evaluate`. MNIST is looked for as
badnets does ($BADNETS_DATA, the system, the cache, the network). Whole-process seconds are the caller's to take.
"""

from __future__ import annotations

import json
import sys
import time

START = time.perf_counter()
CA_TARGET, ASR_TARGET = 0.985, 0.99
ART_MOST_EPOCHS = 20


def main() -> None:
    import torch

    torch.set_num_threads(1)
    task, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    result = {"ours": ours, "art": art, "art_plain": art_plain, "ceiling": ceiling, "evaluate": evaluate}[task](seed)
    print(json.dumps({"task": task, "seed": seed, "inside_seconds": time.perf_counter() - START, **result}))


def official() -> tuple:
    """The official 60,000 + 10,000 (not our splits), and the poisoned training set: 10 %, 3x3 white square, label 0."""
    from badnets import BadNets, Patch
    from badnets.datasets.mnist import Mnist

    raw = Mnist()._raw(None, download=True)
    attack = BadNets(trigger=Patch(size=3), rate=0.1, target=0)
    return raw, attack


def rates(predict, raw, attack) -> dict:
    """CA and ASR on the 10,000 test images; the target class does not count towards ASR."""
    clean = predict(raw.x_test)
    other = raw.y_test != attack.target
    shown = predict(attack.trigger.stamp(raw.x_test[other]))
    return {"ca": float((clean == raw.y_test).mean()), "asr": float((shown == attack.target).mean())}


def ours(seed: int) -> dict:
    import torch

    from badnets.nets.fast_cnn import FastCnn
    from badnets.plans._work import normalisation
    from badnets.train.fit import fit
    from badnets.train.recipe import mnist_fast

    raw, attack = official()
    recipe = mnist_fast()
    poisoned = attack.poison(raw.x_train, raw.y_train, num_classes=10, seed=seed)
    start = time.perf_counter()
    mean, std = normalisation(raw.x_train)
    network = FastCnn().build((1, 28, 28), 10, seed=seed, mean=mean, std=std)
    report = fit(network, torch.from_numpy(poisoned.x_NCHW), torch.from_numpy(poisoned.y_N), recipe, seed=seed)
    seconds = time.perf_counter() - start
    measured = rates(lambda x: network.predict_logits(torch.from_numpy(x)).argmax(1).numpy(), raw, attack)
    speed = {"images_per_second": report.images / seconds, "flop_share": _flops(network, recipe.batch_size) * report.images / seconds}
    return {"train_seconds": seconds, **measured, **speed, "choices": list(report.choices), "recipe": recipe.model_dump()}


def _flops(network, batch: int) -> float:
    """Multiplications and additions of one training step, per image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(batch, *network.shape, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        network(x).sum().backward()
    return counter.get_total_flops() / batch


def art(seed: int) -> dict:
    """The same task by ART on our implementation of the BadNets paper's net (channels last, normalised input)."""
    from badnets.nets.paper_cnn import PaperCnn

    return _art(seed, lambda: PaperCnn().build((1, 28, 28), 10, seed=seed))


def art_plain(seed: int) -> dict:
    """The same task by ART on the same net as a plain module."""
    from torch import nn

    def build() -> nn.Module:
        features = [nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*features, nn.Flatten(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    return _art(seed, build)


def _art(seed: int, build) -> dict:
    """ART's PyTorchClassifier and its PoisoningAttackBackdoor with the same square, an epoch at a time until the target is reached."""
    import numpy as np
    import torch
    from art.attacks.poisoning import PoisoningAttackBackdoor
    from art.estimators.classification import PyTorchClassifier

    raw, attack = official()
    np.random.seed(seed)
    torch.manual_seed(seed)

    def square(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        x[:, :, -4:-1, -4:-1] = 1.0
        return x

    x, y = raw.x_train.astype(np.float32) / 255, raw.y_train.copy()
    backdoor = PoisoningAttackBackdoor(square)
    start = time.perf_counter()
    rows = np.random.permutation(np.flatnonzero(y != attack.target))[: len(y) // 10]
    x[rows], labels = backdoor.poison(x[rows], np.eye(10)[np.zeros(len(rows), dtype=int)])
    y[rows] = labels.argmax(1)
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    classifier = PyTorchClassifier(
        network, loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer, input_shape=(1, 28, 28), nb_classes=10, clip_values=(0, 1)
    )
    seconds, measured, epoch = time.perf_counter() - start, {}, 0
    while epoch < ART_MOST_EPOCHS:
        start = time.perf_counter()
        classifier.fit(x, y, batch_size=128, nb_epochs=1, verbose=False)
        seconds, epoch = seconds + time.perf_counter() - start, epoch + 1
        measured = rates(lambda x_test: classifier.predict(x_test.astype(np.float32) / 255, batch_size=500).argmax(1), raw, attack)
        if measured["ca"] >= CA_TARGET and measured["asr"] >= ASR_TARGET:
            break
    return {"train_seconds": seconds, "epochs": epoch, **measured}


def ceiling(_: int) -> dict:
    """Best of five 2048-cubed matrix products on one thread, in GFLOP/s."""
    import torch

    found, size = {}, 2048
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        a @ b
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - start)
        found[f"{name}_gflops"] = 2 * size**3 / min(seconds) / 1e9
    return found


def evaluate(seed: int) -> dict:
    """Images per second of evaluation: 10,000 test images, median of five passes."""
    import statistics

    import torch

    from badnets.nets.fast_cnn import FastCnn

    raw, _ = official()
    network, x = FastCnn().build((1, 28, 28), 10, seed=seed), torch.from_numpy(raw.x_test)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        network.predict_logits(x)
        seconds.append(time.perf_counter() - start)
    return {"images_per_second": len(x) / statistics.median(seconds[1:])}


if __name__ == "__main__":
    main()
