"""One timed defence in a fresh process on one thread: ours, TrojanZoo's or ART's, on one MNIST victim; what it spent and what it found.

`defence.py` calls it with all it needs as JSON: `task`, `seed`, `victim` (a file), `net`, `rows` of training, `inputs`, `classes`. Prints
one JSON line. Reading, poisoning and imports are outside the clock; hashing of images and extraction of features are inside.
Shapes: N images or rows, M overlaid images, C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mnist import official, rates
from sklearn.metrics import roc_auc_score
from torch import nn

from badnets.core import registry
from badnets.core.suspect import Suspect
from badnets.core.view import view_of
from badnets.detectors.neural_cleanse import NeuralCleanse, anomaly_index
from badnets.nets._base import Network
from badnets.nets._weights import load_into, to_bytes
from badnets.plans._work import normalisation
from badnets.train.fit import fit
from badnets.train.inversion import few_of_each
from badnets.train.recipe import mnist_fast

SHAPE, CLASSES, COPIES, OVERLAID = (1, 28, 28), 10, 100, 300
Found = dict[str, Any]


def main() -> None:
    torch.set_num_threads(1)
    given = SimpleNamespace(**json.loads(sys.argv[1]))
    np.random.seed(given.seed)
    torch.manual_seed(given.seed)
    raw, attack = official()
    raw = replace(raw, x_train=raw.x_train[: given.rows], y_train=raw.y_train[: given.rows])
    poisoned = attack.poison(raw.x_train, raw.y_train, num_classes=CLASSES, seed=0)
    mean, std = normalisation(raw.x_train)
    network = registry.entry("nets", given.net)().build(SHAPE, CLASSES, seed=0, mean=mean, std=std)
    if given.task != "victim":
        load_into(network, Path(given.victim).read_bytes(), name=given.net)
    found = TASKS[given.task](Scene(given, raw, attack, poisoned, network))
    print(json.dumps({"task": given.task, "seed": given.seed, **found}))


@contextlib.contextmanager
def clock() -> Generator[Found]:
    """`seconds` of the wall's clock, and the processor's, which a busy machine disturbs less."""
    spent: Found = {}
    wall, processor = time.perf_counter(), time.process_time()
    yield spent
    spent |= {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}


@dataclass(frozen=True, eq=False)
class Scene:
    """The victim and its secret."""

    given: SimpleNamespace
    raw: Any
    attack: Any
    poisoned: Any
    network: Network

    def scan(self, detector: str, **granted: Any) -> tuple[Found, Any]:
        """What a detector of ours spends and says."""
        chosen = registry.parse("detectors", detector)
        with clock() as spent:
            finding = chosen.scan(Suspect(self.network, SHAPE, CLASSES, **granted), rng=np.random.default_rng(self.given.seed))
        assert finding.analysable, finding.why_not
        return spent, finding

    def inputs(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Clean test images and the same ones stamped, which is which, and other test images, clean and labelled, to lay over them."""
        x_NCHW, half = self.raw.x_test, self.given.inputs // 2
        stamped_NCHW, clean = self.attack.trigger.stamp(x_NCHW[:half]), (x_NCHW[-OVERLAID:], self.raw.y_test[-OVERLAID:])
        return np.concatenate([x_NCHW[:half], stamped_NCHW]), np.arange(2 * half) >= half, clean

    def verdict(self, norm_K: np.ndarray) -> Found:
        """Whether the target's norm is the smallest, and the paper's index (above 2: infected)."""
        named = {"names_target": int(np.argmin(norm_K)) == self.attack.target, "index": anomaly_index(norm_K)}
        norms = {"target_norm": float(norm_K[self.attack.target]), "median_norm": float(np.median(norm_K))}
        return {**named, **norms, "norms": norm_K.round(2).tolist()}


def detected(bad_N: np.ndarray, flag_N: np.ndarray, score_N: np.ndarray) -> Found:
    return {"auroc": float(roc_auc_score(bad_N, score_N)), "tpr": float(flag_N[bad_N].mean()), "fpr": float(flag_N[~bad_N].mean())}


def victim(scene: Scene) -> Found:
    """Trains the net that all the others look at, and leaves its weights in the file `victim`."""
    with clock() as spent:
        fit(scene.network, torch.from_numpy(scene.poisoned.x_NCHW), torch.from_numpy(scene.poisoned.y_N), mnist_fast(), seed=0)
    Path(scene.given.victim).write_bytes(to_bytes(scene.network))
    return {**spent, **rates(lambda x: scene.network.predict_logits(torch.from_numpy(x)).argmax(1).numpy(), scene.raw, scene.attack)}


def cleanse_ours(scene: Scene) -> Found:
    spent, finding = scene.scan("neural_cleanse", clean=(scene.raw.x_train, scene.raw.y_train))
    return {**spent, **scene.verdict(np.exp(-finding.score_K))}


def cleanse_trojanzoo(scene: Scene, *, few: bool = False, batch: int = 512, **chosen: Any) -> Found:
    """Its search of every class, without its validation and files. Ready batches of clean images, so that it waits for no loader: all of
    them, or the `few` that ours looks at. Its cost goes on from class to class, as it does in its own loop."""
    _let_torchvision_in()
    from trojanvision.attacks.backdoor import BadNet
    from trojanvision.defenses.backdoor.model_inspection.neural_cleanse import NeuralCleanse as Peer
    from trojanvision.marks import Watermark
    from trojanzoo.models import Model
    from trojanzoo.utils.metric import normalize_mad

    x_NCHW, y_N = view_of(Suspect(scene.network, SHAPE, CLASSES, clean=(scene.raw.x_train, scene.raw.y_train))).need_clean()
    x_NCHW = (few_of_each(x_NCHW, y_N, NeuralCleanse().num_images) if few else x_NCHW).float() / 255
    batches = [(part, torch.zeros(len(part), dtype=torch.int64)) for part in x_NCHW.split(batch)]
    model = Model(name="victim", model=scene.network, num_classes=CLASSES)
    attack = BadNet(mark=Watermark(data_shape=[*SHAPE], mark_height=28, mark_width=28), train_mode="loss", model=model)
    defence = Peer(attack=attack, original=True, model=model, **chosen)
    with clock() as spent:
        marks = [defence.optimize_mark(k, loader=batches, verbose=False)[0] for k in range(scene.given.classes)]
    norm_K = torch.stack([mark[-1].norm(p=1) for mark in marks])
    own = {"own_index": float(normalize_mad(norm_K)[norm_K.argmin()]), "classes": len(marks)}
    return {**spent, **scene.verdict(norm_K.numpy()), **own}


def _let_torchvision_in() -> None:
    """The usual torchvision holds kernels for CUDA, which a torch without it cannot load. Its modules only ask that two operators are
    declared, and TrojanZoo calls neither."""
    try:
        import torchvision
    except RuntimeError:
        declared = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        for half in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[half]
        import torchvision

        torchvision.declared = declared  # kept: they go when it goes


def strip_ours(scene: Scene) -> Found:
    x_NCHW, bad_N, clean = scene.inputs()
    spent, finding = scene.scan(f"strip:num_copies={COPIES}", inputs=x_NCHW, clean=clean)
    return {**spent, **detected(bad_N, finding.flag_N, finding.score_N)}


def strip_art(scene: Scene) -> Found:
    """On probabilities: of logits its entropy is not a number. The same predictions are also scored as the paper does it."""
    from art.defences.transformer.poisoning import STRIP

    module = importlib.import_module("art.estimators.poison_mitigation.strip.strip")  # the package shows a class by this name
    x_NCHW, bad_N, (over_MCHW, _) = scene.inputs()
    entropy, seen = module.entropy, []
    module.entropy = lambda p, **how: seen.append(p) or entropy(p, **how)
    with clock() as spent:
        guarded = STRIP(_classifier(nn.Sequential(scene.network, nn.Softmax(dim=1))))(num_samples=COPIES)
        guarded.mitigate(over_MCHW.astype(np.float32) / 255)
        answers_NK = guarded.predict(x_NCHW.astype(np.float32) / 255)
    flag_N, judged = ~answers_NK.any(axis=1), seen[-len(x_NCHW) :]
    over_blends, over_classes = (detected(bad_N, flag_N, np.array([-entropy(p, base=2, axis=a).sum() for p in judged])) for a in (0, 1))
    return {**spent, **over_blends, "auroc_over_classes": over_classes["auroc"]}


def rows_ours(scene: Scene, *, detector: str) -> Found:
    spent, finding = scene.scan(detector, training=(scene.poisoned.x_NCHW, scene.poisoned.y_N))
    return {**spent, **detected(scene.poisoned.stamped_N, finding.flag_N, finding.score_N)}


def clustering_art(scene: Scene, *, plain: bool = False, **rules: Any) -> Found:
    """It only says yes or no, of which the AUROC is."""
    from art.defences.detector.poison import ActivationDefence

    spent, flag_N = _rows_art(scene, ActivationDefence, plain, {}, rules)
    return {**spent, **detected(scene.poisoned.stamped_N, flag_N, flag_N.astype(float))}


def spectral_art(scene: Scene, *, plain: bool = False, **chosen: Any) -> Found:
    """It keeps the scores of rows that it does not flag to itself, so its function is listened to."""
    from art.defences.detector.poison import SpectralSignatureDefense as Peer

    scores, measure = [], Peer.spectral_signature_scores
    Peer.spectral_signature_scores = staticmethod(lambda rows: scores.append(measure(rows)) or scores[-1])
    spent, flag_N = _rows_art(scene, Peer, plain, chosen, {})
    score_N = np.empty(len(flag_N))
    score_N[np.argsort(scene.poisoned.y_N, kind="stable")] = np.concatenate(scores)[:, 0]
    return {**spent, **detected(scene.poisoned.stamped_N, flag_N, score_N)}


def _rows_art(scene: Scene, peer: Any, plain: bool, chosen: Found, rules: Found) -> tuple[Found, np.ndarray]:
    x_NCHW = scene.poisoned.x_NCHW.astype(np.float32) / 255
    with clock() as spent:
        _, clean_N = peer(_classifier(_parts(scene.network, plain)), x_NCHW, scene.poisoned.y_N, **chosen).detect_poison(**rules)
    return spent, np.array(clean_N) == 0


class _HeadFirst(nn.Module):
    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.head, self.features = head, features

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x_NCHW))


def _parts(network: Network, plain: bool) -> nn.Module:
    """The net in parts that ART can tell apart. It reads the last one named: in a `plain` sequence the logits, here else the features."""
    *below, head = network.body.children()
    features = Network(nn.Sequential(*below), SHAPE, CLASSES, mean=network.mean.tolist(), std=network.std.tolist())
    return nn.Sequential(OrderedDict(features=features, head=head)) if plain else _HeadFirst(features, head)


def _classifier(module: nn.Module) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(module.eval(), nn.CrossEntropyLoss(), SHAPE, CLASSES, clip_values=(0, 1))


TASKS = {
    "victim": victim,
    "cleanse_ours": cleanse_ours,
    "cleanse_trojanzoo": cleanse_trojanzoo,
    "cleanse_trojanzoo_few": partial(cleanse_trojanzoo, few=True, batch=20, defense_remask_epoch=200),
    "strip_ours": strip_ours,
    "strip_art": strip_art,
    "clustering_ours": partial(rows_ours, detector="activation_clustering"),
    "clustering_art": partial(clustering_art, reduce="FastICA"),
    "clustering_art_silhouette": partial(clustering_art, reduce="FastICA", cluster_analysis="silhouette-scores"),
    "clustering_art_plain": partial(clustering_art, plain=True),
    "spectral_ours": partial(rows_ours, detector="spectral_signatures"),
    "spectral_art": partial(spectral_art, expected_pp_poison=0.1),
    "spectral_art_plain": partial(spectral_art, plain=True),
}

if __name__ == "__main__":
    main()
