"""TorchScript archives and exported programs that torch writes: every number and name as torch reads them; damaged ones; `convert`."""

from __future__ import annotations

import contextlib
import io
import json
import random
import time
import warnings

import corpus_script
import pytest
import safetensors.torch
import tiny
import torch
from mutants import mutated
from test_model_files_benign import same
from torch import nn

from badnets.core import registry
from badnets.core.errors import RefusedError
from badnets.datasets.folder import Folder
from badnets.intake.formats import read_weights
from badnets.plans._model_file import open_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
COUNT, LONG = 2_000, 200_000
NET = {"kind": "fast_cnn", "width": 4, "hidden": 16}


class Block(nn.Module):
    """Attributes of every kind that TorchScript keeps beside tensors."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.register_buffer("scale", torch.tensor([0.5, 2.0]).view(2, 1, 1))
        self.names, self.sizes, self.table, self.pair = ["a", "b"], [1, 2], {"k": 3}, (1, "x", 2.5)
        self.device, self.large, self.nothing = torch.device("cpu"), 1 << 40, None

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x))) * self.scale + float(self.sizes[0])
        return y if self.device == x.device else y * self.large


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.stem = nn.Conv2d(1, 2, 3, bias=False)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x) * self.alpha


class Tied(nn.Module):
    """A module in two places, a parameter in two modules."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.again, self.other.weight = self.one, self.one.weight

    def forward(self, x):
        return self.again(self.other(self.one(x)))


class Pieces(nn.Module):
    """Tensors that lie across or within larger ones."""

    def __init__(self):
        super().__init__()
        large = torch.arange(80.0)
        self.weight, self.bias = nn.Parameter(torch.rand(8, 8).t()), nn.Parameter(large[64:72])
        self.register_buffer("first", large[:8])
        self.register_buffer("whole", torch.arange(6).view(2, 3).t())
        self.register_buffer("flags", torch.tensor([True, False]))

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias) + self.first + self.whole.sum() * self.flags.sum()


class OwnState(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    @torch.jit.export
    def __getstate__(self):
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.w, self.training = state

    def forward(self, x):
        return x * self.w


class Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.more = nn.Parameter(torch.ones(3)), [torch.ones(2), torch.ones(3)]

    def forward(self, x):
        return x * self.w + self.more[1]


IMAGE, ROW = (2, 1, 8, 8), (2, 8)
NETS = {
    "nested": (Net, IMAGE),
    "channels last": (lambda: Net().to(memory_format=torch.channels_last), IMAGE),
    "double": (lambda: Net().double(), IMAGE),
    "half": (lambda: nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)).half(), ROW),
    "bfloat16": (lambda: nn.Linear(8, 4).bfloat16(), ROW),
    "tied": (Tied, ROW),
    "pieces": (Pieces, ROW),
    "an LSTM": (lambda: nn.LSTM(8, 3, 2, bidirectional=True), ROW),
    "in parallel": (lambda: nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), ROW),
}


def kept(net, how, size):
    """The bytes of a file that torch writes of a net."""
    out = io.BytesIO()
    example = torch.rand(size, dtype=next(net.parameters()).dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "exported":
            torch.export.save(torch.export.export(net.eval(), (example,)), out)
        else:
            torch.jit.save(torch.jit.script(net) if how == "scripted" else torch.jit.trace(net.eval(), example), out)
    return out.getvalue()


def loaded(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(io.BytesIO(data))


@pytest.mark.parametrize("how", ["scripted", "traced"])
@pytest.mark.parametrize("kind", NETS)
def test_script_is_read_as_torch_reads_it(kind, how):
    make, size = NETS[kind]
    net = make()
    data = kept(net, how, size)
    found, own = read_weights(data), net.state_dict()
    assert found.format == "TorchScript"
    assert list(found.tensors) == list(own) == list(loaded(data).state_dict())
    assert all(same(found.tensors[name], value) for name, value in own.items())
    assert "the code in it was not looked at: the architecture is told by the tensors' names" in found.notes


# A compiler is imported for these, which takes seconds.
@pytest.mark.parametrize("kind", ["nested", "tied", "pieces"])
def test_an_exported_program_is_read_as_torch_reads_it(kind):
    make, size = NETS[kind]
    net = make()
    found, own = read_weights(kept(net, "exported", size)), net.state_dict()
    assert found.format == "torch.export"
    assert found.tensors.keys() == own.keys()
    assert all(same(found.tensors[name], value) for name, value in own.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in NETS if kind not in ("nested", "tied", "pieces")])
def test_others_exported_are_read_as_torch_reads_them(kind):
    test_an_exported_program_is_read_as_torch_reads_it(kind)


@pytest.mark.parametrize(
    "make", [lambda state: corpus_script.exported({"data/weights/model.pt": state}), corpus_script.old], ids=["2.8", "older"]
)
def test_programs_of_older_torch_are_read(make):
    """Their layout is written here by hand, the state dict within by torch."""
    out, state = io.BytesIO(), Net().state_dict()
    torch.save(dict(state), out)
    found = read_weights(make(out.getvalue()))
    assert (found.format, list(found.tensors)) == ("torch.export", list(state))
    assert all(same(found.tensors[name], value) for name, value in state.items())


def test_what_is_left_out_is_said():
    notes = "; ".join(read_weights(kept(Net(), "scripted", IMAGE)).notes)
    assert "attributes that are no tensors left out" in notes
    assert "in lists and tables" not in notes
    assert "tied" in "; ".join(read_weights(kept(Tied(), "scripted", ROW)).notes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(Lists())
        out = io.BytesIO()
        torch.jit.save(scripted, out, _extra_files={"a.txt": "b"})
    assert {"its extra files were not looked at", "2 tensors in lists and tables left out"} <= set(read_weights(out.getvalue()).notes)


def frozen():
    return torch.jit.freeze(torch.jit.script(Net().eval()))


def quantized():
    net = nn.Sequential(nn.Linear(8, 4)).eval()
    return torch.jit.script(torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8))


def expanded():
    net = nn.Linear(8, 8)
    net.weight = nn.Parameter(torch.rand(1).expand(8, 8))
    return torch.jit.script(net)


@pytest.mark.parametrize(
    ("make", "code"),
    [(frozen, "E-FROZEN"), (quantized, "E-TORCHSCRIPT"), (lambda: torch.jit.script(OwnState()), "E-TORCHSCRIPT"), (expanded, "E-STRIDE")],
    ids=["frozen", "quantised", "a state of its own", "expanded"],
)
def test_honest_files_that_are_not_read_say_why(make, code):
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(make(), out)
    with pytest.raises(RefusedError) as caught:
        read_weights(out.getvalue())
    assert caught.value.code == code
    assert "state_dict" in caught.value.hint


def test_the_hostile_files_are_made_as_torch_makes_them():
    """Or else their refusal would say nothing: torch loads the honest one of the corpus, code and all."""
    data = corpus_script.script(code=corpus_script.RUNS)
    assert loaded(data).state_dict()["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_weights(data).tensors["w"].data.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Pictures, and a net of the catalogue that has learned them."""
    folder = tiny.pictures(tmp_path_factory.mktemp("pictures"))
    data = Folder(size=8).load(folder)
    net = registry.parse("nets", NET).build(data.shape, data.num_classes, seed=0)
    return data, tiny.taught(net) or net


class TestRecognition:
    @pytest.mark.parametrize("how", ["traced", "exported"])
    def test_a_net_of_the_catalogue_is_itself(self, world, how, tmp_path):
        data, net = world
        (tmp_path / "net.pt").write_bytes(kept(net, how, (2, *data.shape)))
        found = open_model(tmp_path / "net.pt", data)
        assert found.net == NET
        x_NCHW = torch.from_numpy(data.test.x_NCHW[:8])
        assert torch.equal(found.network.predict_logits(x_NCHW), net.eval().predict_logits(x_NCHW))

    def test_so_it_is_once_converted(self, world, tmp_path):
        data, net = world
        (tmp_path / "net.pt").write_bytes(kept(net, "traced", (2, *data.shape)))
        done = tiny.cli("convert", tmp_path / "net.pt", "--out", tmp_path / "net.safetensors")
        assert done.status == 0, done.err
        assert "the code in it was not looked at" in done.out
        found = open_model(tmp_path / "net.safetensors", data)
        assert (found.net, found.format) == (NET, "safetensors")


class TestConvert:
    def test_writes_the_tensors_of_a_script(self, tmp_path):
        net = Net()
        (tmp_path / "traced.pt").write_bytes(kept(net, "traced", IMAGE))
        done = tiny.cli("convert", tmp_path / "traced.pt", "--out", tmp_path / "t.safetensors", "--json")
        assert done.status == 0, done.err
        told = json.loads(done.out)
        assert (told["format"], told["tensors"]) == ("TorchScript", len(net.state_dict()))
        found = safetensors.torch.load_file(tmp_path / "t.safetensors")
        assert found.keys() == net.state_dict().keys()
        assert all(torch.equal(found[name], value) for name, value in net.state_dict().items())

    @pytest.mark.parametrize(("make", "code"), [(frozen, "E-FROZEN"), (quantized, "E-TORCHSCRIPT")], ids=["frozen", "quantised"])
    def test_refusals_write_nothing(self, make, code, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(make(), tmp_path / "x.pt")
        done = tiny.cli("convert", tmp_path / "x.pt", "--out", tmp_path / "y")
        assert (done.status, done.err.count("\n"), code in done.err) == (3, 1, True)
        assert not (tmp_path / "y").exists()


def read(data):
    return {name: (tensor.dtype, tensor.shape, tensor.data.tobytes()) for name, tensor in read_weights(data).tensors.items()}


@pytest.mark.parametrize("count", [COUNT, pytest.param(LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["scripted", "exported"])
def test_damage_to_what_torch_wrote(how, count):
    """Only our errors, and quickly; what is accepted holds the same tensors, since sums guard all that is read."""
    seed, rng = kept(nn.Sequential(nn.Linear(8, 2), nn.BatchNorm1d(2)), how, ROW), random.Random(f"{how}{count}")
    truth, accepted, slowest = read(seed), 0, 0.0
    for _ in range(count):
        data, start = mutated(seed, rng), time.process_time()
        with contextlib.suppress(RefusedError):
            assert read(data) == truth
            accepted += 1
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 1
    assert accepted > 0
