"""Model folders: recognised, read as one model, built as the nets that they are, prepared as they say; the same logits as plain torch."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from types import SimpleNamespace

import hub_makers
import numpy as np
import pytest
import tiny
import torch
from hub_makers import PREPARED, RESNET, TIMM, TO_TIMM, TO_TRANSFORMERS, VIT, folder, renamed, shaken
from test_outside import Residual, taught

from badnets.core.errors import RefusedError
from badnets.datasets.folder import Folder
from badnets.intake.found import digest, find, is_pickle
from badnets.intake.hub_folder import look
from badnets.intake.not_built import not_built
from badnets.intake.sandbox import Sandbox, read_model
from badnets.plans._model_file import _choices, open_model, read_net

torch.set_num_threads(1)


def opened(path, image, classes, net=None):
    """(network without a normalisation, notes) of the first net that fits."""
    data = SimpleNamespace(shape=image, num_classes=classes, name="pictures")
    file = read_net(path, net).with_layers(data)
    choices, notes, _ = _choices(file.reading.weights, data, file.net, file.hints.arch)
    network = choices[0].network
    network.mean.zero_()
    network.std.fill_(1)
    return choices[0], notes


def same_logits(path, net, image, classes, named=None):
    chosen, _ = opened(path, image, classes, named)
    x = torch.rand(3, *image, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want, got = net(x), chosen.network(x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert want.std() > 0.01
    return chosen


class TestVits:
    @pytest.mark.parametrize(
        ("words", "config", "title"),
        [
            ({}, {"architectures": ["VisionTransformer"], "num_attention_heads": 2}, "torchvision"),
            ({"mlp.0": "mlp.linear_1", "mlp.3": "mlp.linear_2"}, {"num_attention_heads": 2}, "torchvision"),
            (TO_TIMM, {"architecture": "vit", "num_classes": 3, "model_args": {"num_heads": 2}}, "timm"),
            (TO_TRANSFORMERS, VIT, "transformers"),
        ],
    )
    def test_the_same_logits_under_every_name(self, words, config, title, tmp_path):
        net = shaken(hub_makers.Vit())
        chosen = same_logits(folder(tmp_path / "m", renamed(net.state_dict(), words), config), net, (1, 8, 8), 3)
        assert chosen.title == f"ViT as {title} names it, 2 blocks of width 16, 2 heads, patches of 4"
        assert chosen.fields["kind"] == "vit"

    def test_a_mean_instead_of_a_token(self, tmp_path):
        net = shaken(hub_makers.Vit(mean=True))
        words = {**TO_TIMM, "encoder.ln.": "fc_norm."}
        config = {"architecture": "vit", "num_classes": 3, "global_pool": "avg", "model_args": {"num_heads": 2}}
        same_logits(folder(tmp_path / "m", renamed(net.state_dict(), words), config), net, (1, 8, 8), 3)

    def test_what_the_config_says_of_activation_epsilon_and_biases(self, tmp_path):
        net = shaken(hub_makers.Vit(eps=0.1, act=lambda: torch.nn.GELU(approximate="tanh")))
        state = renamed(net.state_dict(), TO_TRANSFORMERS)
        for number in range(2):
            net.encoder.layers[number].self_attention.in_proj_bias.data.zero_()
            for part in ("query", "key", "value"):
                del state[f"vit.encoder.layer.{number}.attention.attention.{part}.bias"]
        config = {**VIT, "hidden_act": "gelu_new", "layer_norm_eps": 0.1, "qkv_bias": False}
        same_logits(folder(tmp_path / "m", state, config), net, (1, 8, 8), 3)

    def test_newer_names_of_transformers(self, tmp_path):
        net = shaken(hub_makers.Vit())
        newer = {"vit.encoder.layer.": "vit.layers.", "attention.output.dense": "attention.o_proj", "attention.attention.": "attention."}
        newer |= {"query": "q_proj", "key": "k_proj", "value": "v_proj", "intermediate.dense": "mlp.fc1", ".output.dense": ".mlp.fc2"}
        state = {}
        for name, value in renamed(net.state_dict(), TO_TRANSFORMERS).items():
            for old, new in newer.items():
                name = name.replace(old, new)
            state[name] = value
        same_logits(folder(tmp_path / "m", state), net, (1, 8, 8), 3)

    def test_images_of_another_size_are_brought_to_its_own(self, tmp_path):
        net = shaken(hub_makers.Vit(side=16))
        path = folder(tmp_path / "m", renamed(net.state_dict(), TO_TRANSFORMERS), {**VIT, "image_size": 16})
        chosen, _ = opened(path, (1, 8, 8), 3)
        x = torch.rand(2, 1, 8, 8)
        with torch.no_grad():
            want = net(torch.nn.functional.interpolate(x, (16, 16), mode="bilinear", antialias=True))
            torch.testing.assert_close(chosen.network(x), want, rtol=1e-4, atol=1e-4)
        assert chosen.title.endswith("images brought to 16 x 16")

    def test_heads_that_nothing_tells_are_said(self, tmp_path):
        net = shaken(hub_makers.Vit(width=128, heads=2))
        path = folder(tmp_path / "m", renamed(net.state_dict(), TO_TIMM), {"architecture": "vit_x", "num_classes": 3})
        _, notes = opened(path, (1, 8, 8), 3)
        assert "2 heads, as is usual for a width of 128: shapes do not show them" in notes
        same_logits(path, net, (1, 8, 8), 3)
        net = shaken(hub_makers.Vit(heads=4))
        path = folder(tmp_path / "n", renamed(net.state_dict(), TO_TIMM), {"architecture": "vit_x", "num_classes": 3})
        _, notes = opened(path, (1, 8, 8), 3)
        assert any("what clean images speak for was taken" in note for note in notes)
        same_logits(path, net, (1, 8, 8), 3, {"kind": "vit", "heads": 4})

    def test_our_own_file_of_it_is_known_again(self, tmp_path):
        net = shaken(hub_makers.Vit())
        chosen, _ = opened(folder(tmp_path / "m", renamed(net.state_dict(), TO_TRANSFORMERS)), (1, 8, 8), 3)
        from badnets.nets._weights import to_bytes

        (tmp_path / "own.safetensors").write_bytes(to_bytes(chosen.network))
        again, _ = opened(tmp_path / "own.safetensors", (1, 8, 8), 3, {"kind": "vit", "heads": 2})
        assert again.network.body.state_dict().keys() == chosen.network.body.state_dict().keys()

    @pytest.mark.parametrize(
        ("change", "code", "said"),
        [
            (
                lambda s: s.update({"blocks.0.ls1.gamma": torch.ones(16)}),
                "E-WEIGHTS",
                "timm names it, but for 1 tensors as 'blocks.0.ls1.gamma', and are not built: scaled layers (LayerScale)",
            ),
            (
                lambda s: s.update({"dist_token": torch.ones(1, 1, 16)}),
                "E-WEIGHTS",
                "and are not built: a distillation token (DeiT): 'dist_token'",
            ),
            (lambda s: s.update({"norm.bias": torch.ones(15)}), "E-WEIGHTS", "but 'pool.norm.bias' is (15,), expected (16,)"),
            (lambda s: s.update({"pos_embed": torch.ones(1, 6, 16)}), "E-WEIGHTS", "of odd shapes"),
            (lambda s: s.pop("norm.bias"), "E-WEIGHTS", "config.json names the architecture 'vit_x', and its tensors are those of none"),
        ],
    )
    def test_what_is_nearly_one_is_told(self, change, code, said, tmp_path):
        state = renamed(shaken(hub_makers.Vit()).state_dict(), TO_TIMM)
        change(state)
        path = folder(tmp_path / "m", state, {"architecture": "vit_x", "num_classes": 3})
        with pytest.raises(RefusedError) as caught:
            opened(path, (1, 8, 8), 3)
        assert caught.value.code == code
        assert said in str(caught.value)


class TestWhatIsNotBuilt:
    """Said by its kind, so that nobody describes layers that cannot be described; "not analysable", never "clean"."""

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("stages.0.blocks.0.gamma", "scaled layers (LayerScale), as ConvNeXt"),
            ("features.1.0.layer_scale", "scaled layers"),
            ("convnext.encoder.stages.0.layers.0.layer_scale_parameter", "scaled layers"),
            ("dinov2.encoder.layer.0.layer_scale1.lambda1", "scaled layers"),
            ("deit.embeddings.distillation_token", "a distillation token"),
            ("layers.0.blocks.0.attn.relative_position_bias_table", "relative positions"),
            ("base_model.model.q.lora_A.weight", "adapters of another net"),
            ("bert.embeddings.word_embeddings.weight", "words for input"),
            ("rnn.weight_ih_l0", "recurrent layers"),
            ("layers.0.qweight", "quantised weights"),
            ("roi_heads.box_head.fc6.weight", "parts that find objects"),
        ],
    )
    @pytest.mark.parametrize("named", [True, False], ids=["folder", "file"])
    def test_is_told(self, name, said, named, tmp_path):
        state = {name: torch.ones(4, 4), "head.weight": torch.ones(3, 4)}
        path = folder(tmp_path / "m", state, {"architecture": "net_x", "num_classes": 3})
        path = path if named else path / "model.safetensors"
        with pytest.raises(RefusedError, match=re.escape(f"are of layers that are not built: {said}")) as caught:
            opened(path, (3, 16, 16), 3)
        assert (caught.value.code, caught.value.exit_status) == ("E-WEIGHTS", 3)
        assert "does not mean clean" in caught.value.hint
        assert ("'net_x'" in str(caught.value)) == named

    def test_names_of_nets_that_are_built_mean_nothing(self):
        built = [Residual(3, 3).state_dict(), hub_makers.Vit().state_dict(), hub_makers.ResNet().state_dict()]
        built += [renamed(built[1], words) for words in (TO_TIMM, TO_TRANSFORMERS)]
        assert [not_built(state) for state in built] == [""] * 5


class TestResNets:
    @pytest.mark.parametrize("three", [False, True])
    @pytest.mark.parametrize("first", [False, True])
    @pytest.mark.parametrize("early", [False, True])
    def test_the_same_logits(self, three, first, early, tmp_path):
        net = shaken(hub_makers.ResNet(three=three, first=first, early=early))
        config = {**RESNET, "downsample_in_first_stage": first, "downsample_in_bottleneck": early}
        chosen = same_logits(folder(tmp_path / "m", net.state_dict(), config), net, (3, 40, 40), 5)
        assert chosen.title == "ResNet of 1-2-1 blocks as transformers names it"

    def test_the_published_ones_have_their_name(self, tmp_path):
        net = hub_makers.ResNet(depths=(2, 2, 2, 2), widths=(4, 4, 8, 8), stem=4)
        assert opened(folder(tmp_path / "m", net.state_dict(), RESNET), (3, 32, 32), 5)[0].title.startswith("ResNet-18 as transformers")

    def test_timm_names_them_as_torchvision_does(self, tmp_path):
        torch.manual_seed(0)
        net = shaken(Residual(3, 3))
        chosen = same_logits(folder(tmp_path / "m", net.state_dict(), TIMM), net, (3, 32, 32), 3)
        assert chosen.title == "ResNet-18 with the stem of ImageNet"


class TestReading:
    def state(self):
        return renamed(shaken(hub_makers.Vit()).state_dict(), TO_TRANSFORMERS)

    def test_the_hash_is_that_of_what_sha256sum_prints(self, tmp_path):
        path = folder(tmp_path / "m", self.state(), preparation=PREPARED, shards=2, more=[("x.py", b"1")])
        names = sorted(one.name for one in path.iterdir() if one.name != "x.py")
        lines = "".join(f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
        assert read_model(path).weights.sha256 == digest(path) == hashlib.sha256(lines.encode()).hexdigest()
        told = subprocess.run(["sha256sum", *names], cwd=path, capture_output=True, text=True, check=True)
        assert told.stdout == lines

    def test_every_way_of_keeping_the_tensors_gives_the_same(self, tmp_path):
        state = self.state()
        ways = {"safetensors": {}, "safetensors in 3 shards": {"shards": 3}, "torch zip": {"pickled": True}}
        for number, (way, how) in enumerate(ways.items()):
            found = read_model(folder(tmp_path / str(number), state, **how)).weights
            assert found.format == f"transformers folder, {way}"
            assert found.tensors.keys() == state.keys()
            assert all(np.array_equal(found.tensors[name].data, state[name].numpy()) for name in state)
            assert is_pickle(tmp_path / str(number)) == (way == "torch zip")

    def test_without_a_process_of_its_own_the_same_is_read(self, tmp_path, monkeypatch):
        monkeypatch.delattr("os.fork")
        with Sandbox() as sandbox:
            found = sandbox.read(folder(tmp_path / "m", self.state(), preparation=PREPARED, shards=2))
        assert found.weights.card.mean == pytest.approx((0.5,))
        assert not found.level.process

    def test_code_and_other_files_are_named(self, tmp_path):
        config = {**VIT, "auto_map": {"AutoModel": "modeling.Net"}}
        more = [("modeling.py", b"import os"), ("pytorch_model.bin", b"\x80\x04N."), ("README.md", b"")]
        notes = "; ".join(read_model(folder(tmp_path / "m", self.state(), config, more=more)).weights.notes)
        assert "config.json names code that was not looked at: 'auto_map'" in notes
        assert "not looked at in this folder: 'README.md', 'modeling.py', 'pytorch_model.bin'" in notes
        assert "config.json says 'ViTForImageClassification'" in notes

    def test_a_folder_within_a_folder_is_one_input(self, tmp_path):
        folder(tmp_path / "all" / "b", self.state(), shards=2, more=[("readme", b"x"), ("training_args.bin", b"\x80\x04N.")])
        folder(tmp_path / "all" / "a", self.state())
        (tmp_path / "all" / "c.safetensors").write_bytes((tmp_path / "all" / "a" / "model.safetensors").read_bytes())
        (tmp_path / "all" / "b" / "onnx").mkdir()
        (tmp_path / "all" / "b" / "onnx" / "d.safetensors").write_bytes((tmp_path / "all" / "c.safetensors").read_bytes())
        (tmp_path / "all" / "d").mkdir()
        (tmp_path / "all" / "d" / "config.json").write_text("{}")
        found = find([tmp_path / "all"])
        names = [path.relative_to(tmp_path / "all").as_posix() for path in found.inputs]
        assert sorted(names) == ["a", "b", "b/onnx/d.safetensors", "c.safetensors"]
        assert [(path.name, why) for path, why in found.passed_over] == [
            ("readme", "beside the files of a model folder"),
            ("training_args.bin", "beside the files of a model folder"),
            ("config.json", "begins like no model file"),
        ]
        assert find([tmp_path / "all" / "b"]).inputs == [tmp_path / "all" / "b"]
        assert look(tmp_path / "all" / "d") is None

    def test_it_is_converted(self, tmp_path):
        path = folder(tmp_path / "m", self.state(), shards=2)
        done = tiny.cli("convert", path, "--out", tmp_path / "one.safetensors", "--json")
        assert done.status == 0, done.err
        told = json.loads(done.out)
        assert told["format"] == "transformers folder, safetensors in 2 shards"
        assert told["sha256"] == digest(path)
        assert read_model(tmp_path / "one.safetensors").weights.tensors.keys() == self.state().keys()


# ---- a small world: three classes of 8x8 pictures -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Folder(size=8).load(tiny.pictures(tmp_path_factory.mktemp("pictures"), count=80))


@pytest.fixture(scope="module")
def learnt(data):
    torch.manual_seed(0)
    net = taught(shaken(hub_makers.Vit()), data, mean=0.25, std=0.1, steps=150, rate=0.02)
    return renamed(net.state_dict(), TO_TRANSFORMERS)


@pytest.fixture
def prepared():
    return {**PREPARED, "image_mean": [0.25], "image_std": [0.1]}


class TestOpening:
    def test_the_preparation_is_the_folders(self, learnt, prepared, data, tmp_path):
        found = open_model(folder(tmp_path / "m", learnt, preparation=prepared), data)
        told = "; ".join(found.notes)
        assert "prepared as preprocessor_config.json says; accuracy" in told
        assert found.network.mean.tolist() == pytest.approx([0.25])
        assert found.network.std.tolist() == pytest.approx([0.1])
        assert found.accuracy.value > 0.9
        assert found.format == "transformers folder, safetensors"

    @pytest.mark.parametrize(
        ("change", "mean", "std"),
        [
            ({"do_rescale": False, "image_mean": [0.25 * 255], "image_std": [0.1 * 255]}, 0.25, 0.1),
            ({"rescale_factor": 1 / 127.5, "image_mean": 0.5, "image_std": 0.2}, 0.25, 0.1),
        ],
    )
    def test_its_scale_counts(self, change, mean, std, learnt, prepared, data, tmp_path):
        found = open_model(folder(tmp_path / "m", learnt, preparation={**prepared, **change}), data)
        assert found.network.mean.tolist() == pytest.approx([mean])
        assert found.network.std.tolist() == pytest.approx([std])

    def test_without_normalisation_it_is_the_range(self, tmp_path):
        path = folder(tmp_path / "m", {"w.weight": torch.ones(3, 3)}, preparation={"do_normalize": False, "image_mean": [0.5]})
        card = read_model(path).weights.card
        assert (card.mean, card.std) == ((0.0,), (1.0,))

    def test_the_option_overrides_it(self, learnt, prepared, data, tmp_path):
        path = folder(tmp_path / "m", learnt, preparation={**prepared, "image_mean": [0.9]})
        found = open_model(path, data, normalization=([0.25], [0.1]))
        assert "prepared as --normalize says" in "; ".join(found.notes)

    def test_one_that_only_guesses_is_not_taken(self, learnt, prepared, data, tmp_path):
        found = open_model(folder(tmp_path / "m", learnt, preparation={**prepared, "image_mean": [90.0]}), data)
        assert "with preprocessor_config.json says: is the preparation right?" in "; ".join(found.notes)

    def test_classes_in_another_order_are_put_in_the_data_sets(self, learnt, prepared, data, tmp_path):
        turned = dict(learnt)
        for part in ("weight", "bias"):
            turned[f"classifier.{part}"] = learnt[f"classifier.{part}"][[2, 0, 1]]
        names = {str(number): data.classes[k].upper() for number, k in enumerate((2, 0, 1))}
        found = open_model(folder(tmp_path / "m", turned, {**VIT, "id2label": names}, prepared), data)
        assert found.accuracy.value > 0.9
        assert any("in that of the data set" in note for note in found.notes)
        assert any("names of its 3 classes: 'DOT', 'BAR', 'BOX'" in note for note in found.notes)

    @pytest.mark.parametrize(
        ("config", "code", "said"),
        [
            ({**VIT, "num_channels": 3}, "E-SHAPE", "m: config.json says images of 3 channels, those of"),
            ({**VIT, "num_attention_heads": 3}, "E-WEIGHTS", "m: the weights look like a ViT as transformers names it"),
        ],
    )
    def test_what_does_not_fit_is_told(self, config, code, said, learnt, data, tmp_path):
        with pytest.raises(RefusedError) as caught:
            open_model(folder(tmp_path / "m", learnt, config), data)
        assert caught.value.code == code
        assert said in str(caught.value)

    def test_other_classes_are_said_plainly(self, data, tmp_path):
        state = renamed(hub_makers.Vit(classes=4).state_dict(), TO_TRANSFORMERS)
        with pytest.raises(RefusedError, match=r"E-CLASSES m: the net has 4 classes, the data set has 3"):
            open_model(folder(tmp_path / "m", state, {**VIT, "id2label": None}), data)
        with pytest.raises(RefusedError, match=r"E-CLASSES n: config.json says 4 classes, .* has 3"):
            open_model(folder(tmp_path / "n", state, {**VIT, "id2label": None, "num_labels": 4}), data)
