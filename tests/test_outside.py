"""Nets of strangers: recognised from names and shapes, or told by an architecture file; their preparation measured; wrong ones told."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from badnets.core.config import canonical
from badnets.core.errors import RefusedError, UsageError
from badnets.core.layers import check_output, lay, shapes_of, tensors_of
from badnets.core.scanned import net_name
from badnets.datasets.folder import Folder
from badnets.intake.arch_file import read_architecture
from badnets.intake.chains import chains
from badnets.intake.residuals import residual_nets
from badnets.nets.layered import Layered
from badnets.plans import _preparation, _recipes
from badnets.plans._model_file import Hints, open_model
from badnets.plans._preparation import read_reversed, usual
from badnets.plans._recipes import drawn_recipe, usual_epochs

torch.set_num_threads(1)
sys.path.append(str(Path(__file__).parent / "hostile"))


class Block(nn.Module):
    """The two blocks of K. He et al., as most libraries name their parts."""

    def __init__(self, inputs, outputs, stride, *, shortcut="downsample"):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.side = shortcut if stride > 1 or inputs != outputs else ""
        if self.side:
            self.add_module(shortcut, nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (self.get_submodule(self.side)(x) if self.side else x))


class Residual(nn.Module):
    def __init__(self, channels, classes, *, counts=(2, 2, 2, 2), width=4, large=True, shortcut="downsample", head="fc"):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
        self.bn1, self.large, self.head = nn.BatchNorm2d(width), large, head
        inputs = width
        for stage, count in enumerate(counts):
            outputs = width * 2**stage
            blocks = [Block(inputs if i == 0 else outputs, outputs, 2 if stage and i == 0 else 1, shortcut=shortcut) for i in range(count)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.stages = len(counts)
        self.add_module(head, nn.Linear(inputs, classes))

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, 1) if self.large else x
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.get_submodule(self.head)(x.mean(dim=(2, 3)))


def vgg(channels, classes, *, norm):
    parts = []
    for wide in (4, "M", 8, 8, "M"):
        if wide == "M":
            parts.append(nn.MaxPool2d(2))
        else:
            parts += [nn.Conv2d(channels, wide, 3, padding=1), *([nn.BatchNorm2d(wide)] if norm else []), nn.ReLU()]
            channels = wide
    net = nn.Module()
    net.features, net.classifier = (
        nn.Sequential(*parts),
        nn.Sequential(nn.Linear(8 * 16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, classes)),
    )
    net.forward = lambda x: net.classifier(net.features(x).flatten(1))
    return net


def stack(*parts):
    return nn.Sequential(*parts)


def case(name):
    torch.manual_seed(0)
    return {
        "torchvision resnet18": lambda: (Residual(3, 7), (3, 32, 32), 7),
        "resnet34 of small images": lambda: (
            Residual(1, 5, counts=(3, 4, 6, 3), large=False, shortcut="shortcut", head="linear"),
            (1, 16, 16),
            5,
        ),
        "vgg": lambda: (vgg(3, 6, norm=False), (3, 16, 16), 6),
        "vgg with norms": lambda: (vgg(1, 6, norm=True), (1, 16, 16), 6),
        "numbered": lambda: (
            stack(
                *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()),
                *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 16, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4)),
            ),
            (1, 16, 16),
            4,
        ),
        "strided": lambda: (
            stack(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)),
            (3, 16, 16),
            5,
        ),
        "perceptron": lambda: (
            stack(nn.Flatten(), nn.Linear(64, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3, bias=False)),
            (1, 8, 8),
            3,
        ),
    }[name]()


@pytest.mark.parametrize(
    "name",
    ["torchvision resnet18", "resnet34 of small images", "vgg", "vgg with norms", "numbered", "strided", "perceptron"],
)
def test_layouts_of_others_are_known_from_names_and_shapes(name):
    """The first guess is the net itself: every tensor, every logit."""
    net, image, classes = case(name)
    state = net.eval().state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    title, layers = next(iter([*residual_nets(shapes), *chains(shapes, image)]))
    laid = lay(layers)
    out = shapes_of(laid, image, classes)
    check_output(laid, out, classes)
    assert tensors_of(laid, out) == shapes
    ours = Layered(layers=layers, title=title[:80]).build(image, classes, seed=0, mean=[0.0] * image[0], std=[1.0] * image[0])
    ours.body.load_state_dict(state, strict=True)
    x = torch.rand(3, *image)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), net(x), rtol=1e-4, atol=1e-5)
    if name == "torchvision resnet18":
        assert title == "ResNet-18 with the stem of ImageNet"


def test_sorted_files_are_put_in_order():
    """safetensors' own library sorts by type and name: norms before convolutions."""
    net, image, _ = case("vgg with norms")
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert next(chains(dict(sorted(shapes.items())), image)) == next(chains(shapes, image))


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"weight": (3, 3)},
        {"a.weight": (2, 2, 2)},
        {"a.weight": (0, 1, 3, 3), "b.weight": (2, 0)},
        {"conv1.weight": (4,), "layer1.0.conv1.weight": (4, 4, 3, 3)},
        {"conv1.weight": (4, 1, 3, 3), "layer9.0.conv1.weight": (4, 4, 3, 3)},
        {"conv1.weight": (4, 1, 3, 3), "layer1.99.conv1.weight": ()},
        {f"{i}.weight": (1 << 40, 1 << 40) for i in range(300)},
    ],
)
def test_what_is_no_net_is_no_guess(shapes):
    for title, layers in [*residual_nets(shapes), *chains(shapes, (1, 8, 8))]:
        with pytest.raises(UsageError, match=r"E-ARCH|E-CLASSES"):  # noqa: PT012
            laid = lay(layers)
            out = shapes_of(laid, (1, 8, 8), 3)
            assert tensors_of(laid, out) != shapes, title
            raise UsageError("E-ARCH", "another net")


# ---- a small world: three classes of 8x8 pictures -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Folder(size=8).load(tiny.pictures(tmp_path_factory.mktemp("pictures"), count=80))


def taught(net, data, *, mean=0.0, std=1.0, steps=60, rate=0.1):
    torch.manual_seed(1)
    x, y = (torch.from_numpy(np.ascontiguousarray(part)) for part in (data.train.x_NCHW, data.train.y_N))
    pixels, velocity = (x.float() / 255 - mean) / std, [torch.zeros_like(p) for p in net.parameters()]
    for _ in range(steps):
        net.zero_grad()
        nn.functional.cross_entropy(net(pixels), y.long()).backward()
        with torch.no_grad():
            for parameter, speed in zip(net.parameters(), velocity, strict=True):
                speed.mul_(0.9).add_(parameter.grad)
                parameter.sub_(rate * speed)
    return net.eval()


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3))


@pytest.fixture(scope="module")
def bytes_net(data, tmp_path_factory):
    """A net for pixels in 0..255 with a shift that other ranges do not survive."""
    net = taught(small(), data, mean=0.5, std=0.5)
    with torch.no_grad():  # the same net, written for pixels in 0..255
        net[0].bias.sub_(net[0].weight.sum(dim=(1, 2, 3)) * 1.0)
        net[0].weight.mul_(2 / 255)
        net[0].padding_mode = "zeros"
    path = tmp_path_factory.mktemp("models") / "net.pt"
    torch.save(net.state_dict(), path)
    return path


def test_the_preparation_is_found_and_said(bytes_net, data):
    found = open_model(bytes_net, data)
    told = "; ".join(found.notes)
    assert found.network.std.tolist() == pytest.approx([1 / 255])
    assert "prepared as 0..255; accuracy" in told
    assert "is the preparation right? This one was taken since it is clearly better" in told
    assert found.accuracy.value > 0.8
    assert found.net["kind"] == "layered"
    assert net_name(found.net).startswith("chain of 1 convolution and 1 linear layer (stride 1, padded, max pool after 1 of 1")


def test_what_was_asked_for_is_kept_unless_it_only_guesses(bytes_net, data):
    kept = open_model(bytes_net, data, normalization=([0.0], [1 / 255]))
    assert "prepared as --normalize says" in "; ".join(kept.notes)
    wrong = open_model(bytes_net, data, normalization=([0.0], [1.0]))
    assert "with --normalize says: is the preparation right?" in "; ".join(wrong.notes)
    assert wrong.network.std.tolist() == pytest.approx([1 / 255])


def test_a_net_that_only_guesses_is_not_analysable(data, tmp_path):
    torch.save(small().state_dict(), tmp_path / "n.pt")
    shuffled = np.random.default_rng(0).permutation(3)[data.budget.y_N % 3]
    strange = dataclasses.replace(data.budget, y_N=np.random.default_rng(1).permutation(shuffled))
    with pytest.raises(RefusedError, match=r"E-PREPARATION n.pt: not analysable: accuracy .* no better than guessing"):
        open_model(tmp_path / "n.pt", dataclasses.replace(data, budget=strange))


def test_other_classes_are_said_plainly(data, tmp_path):
    net = nn.Sequential(*list(small())[:-1], nn.Linear(64, 5))
    torch.save(net.state_dict(), tmp_path / "n.pt")
    with pytest.raises(RefusedError, match=r"E-CLASSES n.pt: the net has 5 classes, the data set has 3 classes"):
        open_model(tmp_path / "n.pt", data)


def test_reversed_channels_are_the_same_net_for_reversed_images():
    for layers in (
        [{"op": "conv", "name": "a", "out": 4, "kernel": 3}, {"op": "relu"}, {"op": "flatten"}, {"op": "linear", "name": "b", "out": 3}],
        [{"op": "flatten"}, {"op": "linear", "name": "b", "out": 3}],
    ):
        network = Layered(layers=layers).build((3, 8, 8), 3, seed=0)
        x = torch.rand(2, 3, 8, 8)
        with torch.no_grad():
            before = network(x.flip(1))
            read_reversed(network)
            torch.testing.assert_close(network(x), before)
    norm = Layered(layers=[{"op": "batch_norm", "name": "n"}, {"op": "flatten"}, {"op": "linear", "name": "b", "out": 3}])
    with pytest.raises(RefusedError, match="E-PREPARATION the order of channels"):
        read_reversed(norm.build((3, 8, 8), 3, seed=0))


def test_the_usual_preparations(data):
    assert {one.words for one in usual(data, bgr=False)} >= {"0..1", "0..255", "-1..1"}
    assert not any(one.bgr for one in usual(data, bgr=False))
    assert _preparation.by_name("imagenet", 3).mean[0] == 0.485
    assert _preparation.by_name("imagenet", 1) is None


# ---- architecture files -------------------------------------------------------------------------------------------------------------

ARCH = """
title = "mine"
input = [1, 8, 8]
classes = 3
[[layers]]
op = "conv"
name = "0"
out = 4
kernel = 3
padding = 1
[[layers]]
op = "relu"
[[layers]]
op = "max_pool"
kernel = 2
[[layers]]
op = "flatten"
[[layers]]
op = "linear"
name = "4"
out = "classes"
"""


def test_an_architecture_file_says_what_the_layers_are(bytes_net, data, tmp_path):
    (tmp_path / "a.toml").write_text(ARCH)
    found = open_model(bytes_net, data, hints=Hints(read_architecture(tmp_path / "a.toml")))
    assert net_name(found.net) == "mine"
    plain = open_model(bytes_net, data)
    x = torch.from_numpy(data.test.x_NCHW)
    assert torch.equal(found.network.predict_logits(x), plain.network.predict_logits(x))


def test_blocks_become_layers_and_a_sum(tmp_path):
    (tmp_path / "a.toml").write_text(
        'layers = [{op="conv", name="stem", out=4, kernel=3, padding=1}, {op="residual", name="b", body=[{op="conv", name="b.c", out=6, '
        'kernel=3, stride=2, padding=1}, {op="batch_norm", name="b.n"}], shortcut=[{op="conv", name="b.s", out=6, kernel=1, stride=2}]}, '
        '{op="residual", body=[{op="relu"}, {op="conv", name="e", out=6, kernel=1}]}, {op="adaptive_avg_pool"}, {op="flatten"}, '
        '{op="linear", name="head", out=3}]'
    )
    network = Layered(layers=read_architecture(tmp_path / "a.toml").layers).build((1, 8, 8), 3, seed=0).eval()
    parts, x = dict(network.body.named_modules()), torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        y = parts["stem"]((x - 0.5) / 0.5)
        y = parts["b.n"](parts["b.c"](y)) + parts["b.s"](y)
        y = y + parts["e"](torch.relu(y))
        torch.testing.assert_close(network(x), parts["head"](y.mean(dim=(2, 3))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("kernel = 3", "kernel = 0"), "E-ARCH a.toml: layers 0 conv kernel 0: Input should be greater than or equal to 1, got 0"),
        (("kernel = 3", "kernel = 3\ncode = 1"), "E-ARCH a.toml: layers 0 conv code: Extra inputs are not permitted"),
        (('op = "relu"', 'op = "rulu"'), "E-ARCH a.toml: layers 1: .*rulu"),
        (('name = "4"', 'name = "0"'), "E-ARCH a.toml: layers?.*the name '0' is there twice"),
        (('name = "4"', 'name = "4; import os"'), "E-ARCH a.toml: layers 4 linear name: expected letters"),
        (('title = "mine"', "title = 3"), "E-ARCH a.toml: title: Input should be a valid string"),
        (('title = "mine"', "surprise = 3"), "E-ARCH a.toml: surprise: Extra inputs"),
        (("[[layers]]", "[[lay"), "E-ARCH a.toml: it is not TOML"),
        (("input = [1, 8, 8]", "input = [3, 8, 8]"), "E-SHAPE the architecture is for 3x8x8 images, those of .* are 1x8x8"),
        (("classes = 3", "classes = 4"), "E-CLASSES the architecture has 4 classes"),
        (("out = 4", "out = 5"), "E-WEIGHTS net.pt: the weights are not those of the architecture 'mine': .*expected"),
        (('name = "4"', 'name = "head"'), "E-WEIGHTS net.pt: .*missing 'head.weight', 'head.bias'; not of it '4.weight', '4.bias'"),
        (("kernel = 2", "kernel = 9"), "E-ARCH layer '_2' .max_pool. after .4, 8, 8.: a kernel of 9 does not fit into 8 pixels"),
        (('op = "flatten"', 'op = "tanh"'), "E-ARCH layer '4' .linear.*put a flatten before it"),
        (("out = 4", "out = 60000\ngroups = 7"), "E-ARCH layer '0' .conv.*groups do not divide"),
        (('op = "relu"', 'op = "pad"\npadding = 4096'), "E-ARCH .*values an image up to layer '_1', at most"),
        (('op = "relu"', 'op = "residual"'), "E-ARCH a.toml: a residual block has no list of layers"),
        (('op = "relu"', 'op = "add"'), "E-ARCH a.toml: .*add. reads 1 layers"),
        (('op = "relu"', 'op = "relu"\nof = ["later"]'), "E-ARCH a.toml: .*reads 'later', which no earlier layer"),
    ],
)  # fmt: skip
def test_a_wrong_architecture_file_is_told(change, said, bytes_net, data, tmp_path):
    assert change[0] in ARCH
    (tmp_path / "a.toml").write_text(ARCH.replace(*change, 1))
    with pytest.raises((UsageError, RefusedError), match=said) as caught:
        open_model(bytes_net, data, hints=Hints(read_architecture(tmp_path / "a.toml")))
    assert str(caught.value).isprintable()


def test_an_architecture_file_is_opened_as_carefully_as_a_net(tmp_path):
    (tmp_path / "big.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(UsageError, match=r"E-ARCH big.toml: expected at most"):
        read_architecture(tmp_path / "big.toml")
    with pytest.raises(UsageError, match="E-FILE"):
        read_architecture(tmp_path / "absent.toml")
    with pytest.raises(RefusedError, match="E-DIRECTORY"):
        read_architecture(tmp_path)
    (tmp_path / "deep.toml").write_text("layers = [" + '{op="residual", body=[' * 20 + '{op="relu"}' + "]}" * 20 + "]")
    with pytest.raises(UsageError, match=r"E-ARCH deep.toml: blocks lie more than 6 deep"):
        read_architecture(tmp_path / "deep.toml")


def test_names_that_torch_uses_are_refused():
    with pytest.raises(UsageError, match="E-ARCH a layer cannot be called 'train'"):
        Layered(layers=[{"op": "flatten"}, {"op": "linear", "name": "train", "out": 3}]).build((1, 8, 8), 3, seed=0)


class TestRecipesOfCleanNets:
    def test_they_get_enough_steps(self):
        assert usual_epochs(100) == 50
        assert usual_epochs(10_000) == 5

    def test_each_is_another_and_the_same_for_the_same_seed(self):
        drawn = [drawn_recipe(seed, 1000, 28) for seed in range(200)]
        assert drawn == [drawn_recipe(seed, 1000, 28) for seed in range(200)]
        assert len({canonical(recipe) for recipe in drawn}) == 200

    def test_they_cover_what_people_do(self):
        drawn, usual = [drawn_recipe(seed, 1000, 28) for seed in range(400)], usual_epochs(1000)
        share = sum(recipe.optimizer == "sgd" for recipe in drawn) / 400
        assert 0.4 < share < 0.6
        for field in ("batch_size", "schedule", "label_smoothing", "shift", "weight_decay"):
            assert len({getattr(recipe, field) for recipe in drawn}) > 1, field
        assert all(usual / 2 <= recipe.epochs <= usual * 2 + 0.01 for recipe in drawn)
        assert not any(recipe.flip for recipe in drawn), "in a set of digits or signs a flip changes the class"
        rates = [recipe.lr for recipe in drawn if recipe.optimizer == "adamw"]
        assert max(rates) / min(rates) > 10

    def test_transformers_get_no_plain_sgd(self):
        assert {drawn_recipe(seed, 100, 16, transformer=True).optimizer for seed in range(50)} == {"adamw"}


# ---- ONNX, as torch writes it -------------------------------------------------------------------------------------------------------


def test_what_torch_exports_is_the_same_net_as_in_onnxruntime(data, tmp_path):
    """Where the deploy extra is installed: torch.onnx, its file of numbers beside the graph, onnxruntime as the judge."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    import warnings

    net = taught(case("numbered")[0], _sized(data, 16), steps=15, rate=0.05)
    path, x = tmp_path / "net.onnx", torch.rand(1, 1, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), str(path), dynamo=True, verbose=False)
    found = open_model(path, _sized(data, 16), normalization=([0.0], [1.0]))
    theirs = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for _ in range(5):
        x = torch.rand(1, 1, 16, 16)
        (expected,) = theirs.run(None, {theirs.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found.network(x).numpy(), expected, rtol=1e-3, atol=1e-4)
    assert net_name(found.net) == "the graph of ONNX"


def _sized(data, size):
    """The same pictures, each pixel repeated; four classes, of which one is empty."""

    def wide(part):
        factor = size // part.x_NCHW.shape[-1]
        return dataclasses.replace(part, x_NCHW=part.x_NCHW.repeat(factor, 2).repeat(factor, 3))

    parts = {name: wide(getattr(data, name)) for name in ("train", "validation", "test", "budget")}
    return dataclasses.replace(data, classes=(*data.classes, "none"), **parts)


def test_a_graph_goes_through_scan(data, tmp_path, monkeypatch):
    """From the command line to the null population's nets, of which three stand for all."""
    import making_onnx as onnx

    from badnets.plans import _null

    tiny.scans_here(monkeypatch)
    net = taught(small(), data)
    weights = {"w": net[0].weight, "b": net[0].bias, "v": net[4].weight, "d": net[4].bias}
    tensors = [onnx.tensor(name, value.detach().numpy()) for name, value in weights.items()]
    pool = onnx.node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2])
    nodes = [onnx.CONV, onnx.REST[0], pool, onnx.node("Flatten", ["p"], ["f"]), onnx.REST[2]]
    (tmp_path / "net.onnx").write_bytes(onnx.model(nodes, tensors))
    pictures = tiny.pictures(tmp_path / "pictures", count=80)
    monkeypatch.setattr(_null, "NUM_NETS", {"quick": 3})
    monkeypatch.setattr(_null, "NUM_REPEATED", 1)
    monkeypatch.setattr(_recipes, "MOST_EPOCHS", 2)
    monkeypatch.setattr("badnets.plans._scan.DETECTORS", ("channel_lipschitz", "mm_bd"))
    done = tiny.cli("scan", tmp_path / "net.onnx", "folder:size=8", "--data", pictures, "--store", tmp_path / "store")
    assert done.status == 3, done.err
    told = " ".join(done.out.split())
    assert "NOT ANALYSABLE p = " in told
    assert "against 3 clean nets. This does not mean clean." in told
    assert "Read as ONNX, the graph of ONNX; sandbox:" in told
    assert "Clean nets: 3 of this architecture trained by us: the graph of ONNX on" in told
    why = "the head does not read the last layer of units one by one"
    assert f"channel_lipschitz left out, since it says nothing of clean nets of such layers either: {why}" in told
    assert "mm_bd" in told
