"""HDF5 and Keras: honest files to the numbers that Keras or numpy has of them; others refused in the sandbox; many damaged at random.

Without h5py only its absence can be tried; what the zip and the config of a `.keras` file say is among the other hostile files.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from corpus_keras import GRAPH, GRAPH_ARRAYS, HOSTILE, NO_HDF5, NOT_BUILT, NUMBERS, chunked, lambda_of
from making_hdf5 import ARRAYS, LAYERS, archive, functional, legacy, newer, plain, sequential, stored, written
from mutants import mutated

from badnets.core.errors import RefusedError
from badnets.intake.formats import read_weights
from badnets.intake.hdf5_tree import library, prepare
from badnets.intake.reasons import STEPS
from badnets.intake.sandbox import Sandbox
from badnets.nets.layered import Layered
from badnets.plans._outside import outside_nets

COUNT, ALL = 60, 20_000
CANARY = Path(__file__).parent / "canary"
HAS_H5PY = importlib.util.find_spec("h5py") is not None
needs_h5py = pytest.mark.skipif(not HAS_H5PY, reason="the extra hdf5 is not installed")
# A damaged file may move numbers about, but makes none.
MOST_BYTES = 16 << 20


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as found:
        if not found.level.landlock:
            pytest.skip(f"this system gives no whole sandbox: without {found.level.missing}")
        yield found


@pytest.fixture
def read(sandbox, tmp_path):
    """Bytes -> weights, in the sandbox."""

    def reading(data):
        (tmp_path / "m.h5").write_bytes(data)
        return sandbox.read(tmp_path / "m.h5").weights

    return reading


def test_without_its_library_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "h5py", raising=False)
    with pytest.raises(RefusedError, match=r"^E-EXTRA .*pip install 'badnets\[hdf5\]'") as caught:
        read_weights(NO_HDF5, confined=True)
    assert caught.value.exit_status == 3


@pytest.mark.skipif(HAS_H5PY, reason="the extra hdf5 is installed")
def test_without_its_library_the_sandbox_says_so(read):
    for data in (NO_HDF5, archive(weights=NO_HDF5)):
        with pytest.raises(RefusedError, match=r"^E-EXTRA m.h5: "):
            read(data)


def test_outside_of_a_sandbox_it_is_not_read():
    for data in (NO_HDF5, archive(weights=NO_HDF5)):
        with pytest.raises(RefusedError, match=r"^E-SANDBOX .* whole sandbox"):
            read_weights(data)


@needs_h5py
class TestHonest:
    def test_plain_data_sets(self, read):
        kinds = ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
        sets = {f"a__{kind}": NUMBERS.astype(kind) for kind in kinds} | {"scalar": np.float32(3), "none": np.zeros((0, 3), "f4")}
        found = read(plain(**sets))
        assert (found.format, found.layers) == ("HDF5", ())
        assert found.tensors.keys() == {name.replace("__", ".") for name in sets}
        for name, array in sets.items():
            one = found.tensors[name.replace("__", ".")].data
            assert one.dtype == array.dtype
            assert np.array_equal(one, array)

    @pytest.mark.parametrize(
        "how",
        [
            {}, {"compression": "gzip"}, {"shuffle": True}, {"fletcher32": True},
            {"compression": "gzip", "shuffle": True, "fletcher32": True},
        ],
        ids=str,
    )  # fmt: skip
    @pytest.mark.parametrize("kind", ["f2", "f4", "f8", "u1"])
    @pytest.mark.parametrize("libver", ["earliest", "latest"])
    def test_packed_data_sets(self, read, how, kind, libver):
        data = (np.random.default_rng(1).normal(size=(37, 21, 5)) * 50).astype(kind)
        found = read(written(lambda file: file.create_dataset("w", data=data, chunks=(8, 21, 3), **how), libver=libver))
        assert np.array_equal(found.tensors["w"].data, data)

    def test_data_within_a_header(self, read):
        import h5py

        def compact(file):
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(NUMBERS.shape)
            h5py.h5d.create(file.id, b"w", h5py.h5t.IEEE_F32LE, space, plist).write(h5py.h5s.ALL, h5py.h5s.ALL, NUMBERS)

        assert np.array_equal(read(written(compact)).tensors["w"].data, NUMBERS)

    def test_bfloat16_as_keras_marks_it(self, read):
        def half(file):
            file.create_dataset("w", data=np.array([0x3F80, 0xC000], "u2").view("V2")).attrs["dtype"] = "bfloat16"

        assert read(written(half)).tensors["w"].to_float32().tolist() == [1, -2]

    def test_names_of_the_same_are_told(self, read):
        found = read(written(lambda file: [file.create_dataset("a", data=NUMBERS), file.__setitem__("b", file["a"])]))
        assert np.array_equal(found.tensors["a"].data, found.tensors["b"].data)
        assert "1 data sets are the same numbers as another (tied)" in found.notes

    def test_numbers_that_are_none_are_reported(self, read):
        broken = ARRAYS | {"dense_1": {"kernel": np.full((5, 3), np.nan, np.float32), "bias": ARRAYS["dense_1"]["bias"]}}
        assert read(legacy(arrays=broken)).not_finite == ("dense_1.weight",)
        assert read(archive(weights=stored(broken))).not_finite == ("n9_dense_1.weight",)

    @pytest.mark.parametrize("make", [legacy, stored], ids=["Keras 2", "Keras 3"])
    def test_weights_alone_come_in_torchs_layout(self, read, make):
        found = read(make())
        assert (found.format, found.layers, found.channels_last) == ("Keras weights", (), True)
        assert found.tensors.keys() == {
            *("conv2d.weight", "conv2d.bias", "depthwise_conv2d.weight", "depthwise_conv2d.bias", "dense.weight", "dense.bias"),
            *(f"batch_normalization.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
            "dense_1.weight", "dense_1.bias",
        }  # fmt: skip
        assert np.array_equal(found.tensors["conv2d.weight"].data, ARRAYS["conv2d"]["kernel"].transpose(3, 2, 0, 1))
        assert np.array_equal(found.tensors["dense.weight"].data, ARRAYS["dense"]["kernel"].T)
        depthwise = found.tensors["depthwise_conv2d.weight"].data
        assert np.array_equal(depthwise[2 * 3 + 1, 0], ARRAYS["depthwise_conv2d"]["depthwise_kernel"][:, :, 3, 1])
        if make is legacy:
            assert list(found.tensors)[0] == "conv2d.weight"  # noqa: RUF015 (the order is what is asked)

    def test_weights_alone_are_known_by_their_shapes(self, read):
        kernels = {"conv2d": (3, 3, 1, 4), "conv2d_1": (3, 3, 4, 6), "dense": (24, 3)}
        arrays = {layer: {"kernel": np.ones(shape, "f4"), "bias": np.ones(shape[-1:], "f4")} for layer, shape in kernels.items()}
        found = read(stored(arrays))
        nets = outside_nets(found, SimpleNamespace(shape=(1, 8, 8), num_classes=3, name="pictures"), None)
        strided = [net.fields["layers"] for net in nets if net.fields["layers"][0].get("stride") == [2, 2]]
        assert [layer.get("padding") for layer in strided[0] if layer["op"] == "conv"] == [[0, 0, 1, 1]] * 2
        assert all(layer["channels_last"] for net in nets for layer in net.fields["layers"] if layer["op"] == "flatten")

    def test_what_is_no_kernel_stays_as_it_is(self, read):
        found = read(legacy(arrays={"own": {"kernel": NUMBERS, "table": NUMBERS}, "gru": {"kernel": np.zeros((3, 4, 5), "f4")}}))
        assert np.array_equal(found.tensors["own.own.kernel:0"].data, NUMBERS)
        assert any(note.startswith("as they are in the file: 'own', 'gru'") for note in found.notes)

    def test_nothing_is_lost_where_names_end_alike(self, read):
        inner = {"a/kernel": NUMBERS, "b/kernel": NUMBERS + 1}
        assert [one.data[0, 0] for one in read(legacy(arrays={"model": inner})).tensors.values()] == [0, 1]


def windows(x_NHWC, size, stride, *, same, fill=0.0):
    """Every window that TensorFlow would look at, as N, rows, columns, window rows, window columns, C."""
    if same:
        needed = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(x_NHWC.shape[1:3], size, stride, strict=True)]
        gaps = [(0, 0), *((n // 2, n - n // 2) for n in needed), (0, 0)]
        x_NHWC = np.pad(x_NHWC, gaps, constant_values=fill)
    found = np.lib.stride_tricks.sliding_window_view(x_NHWC, size, axis=(1, 2))
    return found[:, :: stride[0], :: stride[1]].transpose(0, 1, 2, 4, 5, 3)


def by_numpy(x_NHWC):
    """What the model `LAYERS` answers, before its softmax."""
    conv, norm, deep, dense, last = ARRAYS.values()
    x = x_NHWC * 0.5 - 1
    x = np.einsum("nxyhwi,hwio->nxyo", windows(x, (3, 3), (2, 2), same=True), conv["kernel"]) + conv["bias"]
    x = np.maximum(x, 0)
    x = (x - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-3) * norm["gamma"] + norm["beta"]
    x = np.einsum("nxyhwc,hwcm->nxycm", windows(x, (2, 2), (1, 1), same=True), deep["depthwise_kernel"])
    x = x.reshape(*x.shape[:3], -1) + deep["bias"]
    x = windows(x, (2, 2), (2, 2), same=True, fill=-np.inf).max(axis=(3, 4))
    x = x.reshape(len(x), -1)
    return np.tanh(x @ dense["kernel"] + dense["bias"]) @ last["kernel"] + last["bias"]


def answers(weights, x_NHWC, classes):
    """What the net built of a file answers."""
    net = Layered(layers=tuple(map(dict, weights.layers))).build(weights.image, classes, seed=0)
    own = net.state_dict()
    for name, tensor in weights.tensors.items():
        own[f"body.{name}"].copy_(torch.from_numpy(tensor.to_float32()))
    counted = {name for name in own if name.endswith("num_batches_tracked")}
    assert own.keys() == {*(f"body.{name}" for name in weights.tensors), *counted, "mean", "std"}
    with torch.no_grad():
        return net.eval().body(torch.from_numpy(np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2)))).numpy()


@needs_h5py
class TestNets:
    @pytest.mark.parametrize(
        "make",
        [lambda: legacy(sequential()), lambda: legacy(newer()), archive],
        ids=["whole, Keras 2", "whole, Keras 3", "archive"],
    )
    def test_answer_as_numpy_does(self, read, make):
        found = read(make())
        x = np.random.default_rng(3).uniform(size=(6, 9, 10, 2)).astype(np.float32)
        wanted = by_numpy(x)
        assert np.abs(wanted).max() > 0.5
        assert np.allclose(answers(found, x, 3), wanted, atol=1e-5)
        assert "the last softmax left out: it changes no answer" in found.notes

    def test_graphs_with_a_sum(self, read):
        found = read(legacy(functional(GRAPH), GRAPH_ARRAYS))
        assert [layer["op"] for layer in found.layers] == ["conv", "relu", "add", "adaptive_avg_pool", "flatten", "linear"]
        x = np.random.default_rng(4).normal(size=(5, 8, 8, 1)).astype(np.float32)
        conv, last = GRAPH_ARRAYS.values()
        y = np.einsum("nxyhwi,hwio->nxyo", windows(x, (3, 3), (1, 1), same=True), conv["kernel"]) + conv["bias"]
        wanted = (np.maximum(y, 0) + y).mean(axis=(1, 2)) @ last["kernel"] + last["bias"]
        assert np.allclose(answers(found, x, 3), wanted, atol=1e-5)

    @pytest.mark.timeout(240)
    def test_answer_as_keras_does(self, read, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            keras = pytest.importorskip("keras", exc_type=ImportError)
            for make, name in ((_chain, "net.keras"), (_graph, "net.h5")):
                model = make(keras)
                draw = np.random.default_rng(5)
                x = draw.uniform(size=(8, *model.input_shape[1:])).astype(np.float32)
                for variable in model.variables:
                    if variable.dtype == "float32":
                        variable.assign(draw.uniform(0.2, 0.8, variable.shape) - (0 if "variance" in variable.path else 0.5))
                wanted = model(x).detach().numpy()
                model.save(tmp_path / name)
                found = answers(read((tmp_path / name).read_bytes()), x, 10)
                assert np.abs(found - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())


def _chain(keras):
    of = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 27, 3)), of.Rescaling(1 / 127.5, -1), of.ZeroPadding2D(((1, 0), (2, 1))),
            of.Conv2D(8, 3, strides=2, padding="same", activation="relu"), of.BatchNormalization(),
            of.Conv2D(6, 2, strides=3, padding="same"), of.LeakyReLU(),
            of.SeparableConv2D(6, 3, padding="same", activation="swish"), of.AveragePooling2D(2, 1), of.Flatten(),
            of.BatchNormalization(scale=False), of.Dropout(0.5), of.Dense(12, activation="elu"), of.Dense(10),
        ]
    )  # fmt: skip


def _graph(keras):
    of, start = keras.layers, keras.Input((12, 12, 1))
    x = of.Conv2D(4, 3, padding="same", use_bias=False)(start)
    y = of.DepthwiseConv2D(3, padding="same", activation="relu")(of.BatchNormalization()(x))
    x = of.Concatenate()([of.ReLU()(of.Add()([x, y])), y])
    return keras.Model(start, of.Dense(10)(of.GlobalAveragePooling2D()(x)))


@needs_h5py
@pytest.mark.parametrize("case", NOT_BUILT)
def test_not_built_but_read(read, case):
    make, why = NOT_BUILT[case]
    found = read(make())
    assert found.layers == ()
    assert found.notes[0].startswith("its net was not built: ")
    assert why in found.notes[0]
    assert "conv2d.weight" in found.tensors


@needs_h5py
@pytest.mark.parametrize("case", HOSTILE)
def test_refused(read, case):
    make, code = HOSTILE[case]
    with pytest.raises(RefusedError) as caught:
        read(make())
    error = caught.value
    assert (error.code, error.exit_status) == (code, 3), str(error)
    assert str(error).isascii()
    assert str(error).isprintable()
    assert len(str(error)) < 500
    assert error.hint == STEPS[code]


@needs_h5py
class TestHostile:
    def test_code_in_a_layer_would_run_and_does_not(self, read):
        """That it did not run says something only if it does where Python is asked to."""
        import base64
        import builtins
        import marshal
        import types

        (_, old), _ = lambda_of(CANARY)
        try:
            types.FunctionType(marshal.loads(base64.b64decode(old["function"][0])), vars(builtins))(None)  # noqa: S302
            assert CANARY.exists()
        finally:
            CANARY.unlink(missing_ok=True)
        with pytest.raises(RefusedError, match=r"E-KERAS .*'lambda' is a Lambda"):
            read(legacy(sequential([*LAYERS, ("Lambda", old)])))
        assert not CANARY.exists()

    def test_no_filter_of_others_is_loaded(self):
        prepare()
        assert os.environ["HDF5_PLUGIN_PRELOAD"] == "::"
        assert library().h5pl.size() == 0

    @pytest.mark.parametrize("count", [COUNT, pytest.param(ALL, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])])
    def test_only_our_errors(self, read, count):
        """Whatever is changed: our error, or tensors no larger than the file and a few; at worst the sandbox says that its reader died."""
        packing = {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (3, 4)}
        seeds = [plain(a__b=NUMBERS, c=NUMBERS[0]), stored(), legacy(sequential()), chunked(NUMBERS, **packing)]
        seeds += [written(lambda file: file.create_dataset("g/w", data=NUMBERS, **packing), libver="latest"), archive()]
        rng, accepted, codes = random.Random("hdf5"), 0, set()
        for number in range(count):
            data = mutated(seeds[number % len(seeds)], rng)
            try:
                found = read(data)
            except RefusedError as error:
                codes.add(error.code)
                continue
            accepted += 1
            assert found.num_bytes <= len(data) + MOST_BYTES
        assert accepted > count / 50
        assert codes <= STEPS.keys()
