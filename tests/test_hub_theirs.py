"""Where they are installed: the same logits as timm's and transformers' own nets, from folders of theirs; and timm's nets by name."""

from __future__ import annotations

import contextlib
import sys
import types
import warnings

import pytest
import torch
from hub_makers import TIMM, folder, shaken
from test_hub_folders import opened, same_logits

from badnets.core.errors import RefusedError, UsageError
from badnets.intake import zoo
from badnets.plans import _model_file

torch.set_num_threads(1)


def theirs(name):
    """The library; a torchvision of another build of torch, which none of it needs, is helped over its missing operators."""
    with contextlib.suppress(RuntimeError):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        theirs.kept = library
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.fixture(scope="module")
def transformers():
    return theirs("transformers")


@pytest.fixture(scope="module")
def timm():
    return theirs("timm")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Logits(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).logits


class TestTransformers:
    @pytest.mark.parametrize("more", [{}, {"hidden_act": "gelu_new", "qkv_bias": False, "layer_norm_eps": 0.01}])
    def test_vits(self, more, transformers, tmp_path):
        sizes = {
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 64,
            "image_size": 16,
            "patch_size": 8,
        }
        net = shaken(transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, num_labels=5, **more)))
        net.save_pretrained(tmp_path / "m")
        same_logits(tmp_path / "m", Logits(net), (3, 16, 16), 5)

    @pytest.mark.parametrize("kind", ["basic", "bottleneck"])
    @pytest.mark.parametrize("more", [{}, {"downsample_in_first_stage": True}, {"downsample_in_bottleneck": True}])
    def test_resnets_in_shards(self, kind, more, transformers, tmp_path):
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 12, 16], "depths": [1, 2, 1], "layer_type": kind}
        net = shaken(transformers.ResNetForImageClassification(transformers.ResNetConfig(**sizes, num_labels=5, **more)))
        net.save_pretrained(tmp_path / "m", max_shard_size="10KB")
        assert (tmp_path / "m" / "model.safetensors.index.json").exists()
        same_logits(tmp_path / "m", Logits(net), (3, 40, 40), 5)


class TestTimm:
    @pytest.mark.parametrize(
        ("name", "more", "size"),
        [
            ("resnet18", {}, 40),
            ("vit_tiny_patch16_224", {"img_size": 32, "depth": 3}, 32),
            ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2, "embed_dim": 96, "num_heads": 2, "global_pool": "avg"}, 32),
        ],
    )
    def test_folders(self, name, more, size, timm, tmp_path):
        from timm.models import save_for_hf

        net = shaken(timm.create_model(name, num_classes=5, **more))
        save_for_hf(net, str(tmp_path / "m"), model_args=more or None)
        same_logits(tmp_path / "m", net, (3, size, size), 5)

    @pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
    def test_nets_by_name(self, name, timm, tmp_path):
        net = shaken(timm.create_model(name, num_classes=5))
        path = folder(tmp_path / "m", net.state_dict(), {**TIMM, "architecture": name, "num_classes": 5})
        if name != "resnet10t":
            with pytest.raises(RefusedError, match=rf"E-WEIGHTS config.json names the architecture '{name}'.*--net timm:{name}"):
                opened(path, (3, 40, 40), 5)
        chosen = same_logits(path, net, (3, 40, 40), 5, zoo.named(name))
        assert chosen.title == f"timm's {name}"
        assert chosen.fields["kind"] == "layered"

    def test_other_weights_and_other_layers_are_told(self, timm, tmp_path):
        path = folder(tmp_path / "m", timm.create_model("resnet10t", num_classes=5).state_dict(), {"architecture": "x"})
        with pytest.raises(RefusedError, match=r"E-WEIGHTS the weights are not those of the architecture .timm's resnet14t"):
            opened(path, (3, 40, 40), 5, zoo.named("resnet14t"))
        with pytest.raises(RefusedError, match="E-ARCH timm's convnext_atto has the operator permute: it is not read"):
            opened(path, (3, 40, 40), 5, zoo.named("convnext_atto"))
        with pytest.raises(UsageError, match=r"E-NAME timm has no net called 'resnet18x'\. Did you mean"):
            opened(path, (3, 40, 40), 5, zoo.named("resnet18x"))


class TestWithout:
    """What is said where timm is not to be had, whether or not it is here."""

    def test_it_is_not_installed(self, monkeypatch):
        def missing(name):
            raise zoo.importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(zoo.importlib.metadata, "version", missing)
        with pytest.raises(UsageError, match=r"E-ENGINE --net timm:resnet18 needs timm.*pip install 'badnets\[zoo\]'"):
            zoo.named("resnet18")

    def test_it_is_gone(self, monkeypatch):
        class Gone:
            def find_spec(self, name, path=None, target=None):
                if name == "timm":
                    raise ModuleNotFoundError("No module named 'timm'", name="timm")

        monkeypatch.delitem(sys.modules, "timm", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Gone(), *sys.meta_path])
        with pytest.raises(UsageError, match=r"E-ENGINE .*not installed.*badnets\[zoo\]"):
            zoo.timm_layers("resnet18", (3, 32, 32), 5)

    def test_its_torchvision_is_broken(self, monkeypatch):
        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name == "timm":
                    raise RuntimeError("operator torchvision::nms does not exist")

        monkeypatch.delitem(sys.modules, "timm", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
        with pytest.raises(
            UsageError, match=r"E-ENGINE timm is installed, but cannot be imported: operator torchvision::nms .* torchvision"
        ):
            zoo.timm_layers("resnet18", (3, 32, 32), 5)


class Small(torch.nn.Module):
    """What timm's nets do, without timm: writes over what others read, excites, joins."""

    def __init__(self, classes=5, channels=3):
        super().__init__()
        self.stem, self.bn = torch.nn.Conv2d(channels, 8, 3, 2, 1, bias=False), torch.nn.BatchNorm2d(8)
        self.gate, self.side = torch.nn.Conv2d(8, 8, 1), torch.nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.fc = torch.nn.Linear(16, classes)

    def forward(self, x):
        x = self.bn(self.stem(x))
        y = torch.relu_(x)
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        y = torch.cat([torch.nn.functional.avg_pool2d(x, 2, ceil_mode=True), torch.nn.functional.max_pool2d(self.side(y), 3, 2, 1)], 1)
        return self.fc(torch.nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


class Turned(Small):
    def forward(self, x):
        return super().forward(x.permute(0, 1, 3, 2))


@pytest.fixture
def pretended(monkeypatch):
    """A timm that has two nets."""
    nets = {"small": Small, "turned": Turned}

    def create_model(name, *, pretrained, num_classes, in_chans):
        assert not pretrained
        return nets[name](num_classes, in_chans)

    found = types.SimpleNamespace(is_model=nets.__contains__, list_models=lambda: list(nets), create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", found)


class TestFollowing:
    def test_layers_by_name_give_the_same(self, pretended, tmp_path):
        torch.manual_seed(0)
        net = shaken(Small())
        chosen = same_logits(
            folder(tmp_path / "m", net.state_dict(), TIMM | {"num_classes": 5}), net, (3, 9, 9), 5, {"kind": "timm", "name": "small"}
        )
        assert chosen.title == "timm's small"

    def test_what_is_no_layer_of_ours_is_named(self, pretended):
        with pytest.raises(RefusedError, match="E-ARCH timm's turned has the operator permute: it is not read"):
            zoo.timm_layers("turned", (3, 9, 9), 5)

    @pytest.mark.parametrize("name", ["smal", "hf-hub:x/small", "../small", "a\nb"])
    def test_other_names_are_refused(self, name, pretended):
        with pytest.raises(UsageError, match="E-NAME timm has no net called"):
            zoo.timm_layers(name, (3, 9, 9), 5)

    def test_a_net_that_does_not_fit_the_images(self, pretended):
        with pytest.raises(RefusedError, match="E-ARCH timm's small cannot be built for 3x0x9 images"):
            zoo.timm_layers("small", (3, 0, 9), 5)

    def test_layers_that_answer_otherwise_are_refused(self, pretended, monkeypatch):
        monkeypatch.setattr(zoo, "_SAME", 0.0)
        with pytest.raises(RefusedError, match="E-ARCH timm's small has layers that, put together by us, answer otherwise"):
            zoo.timm_layers("small", (3, 9, 9), 5)


def test_the_names_are_told_apart():
    from badnets.cli._choose import choose_theirs

    assert choose_theirs("fast_cnn") == {"kind": "fast_cnn"}
    assert "our own nets" in _model_file.KNOWN
