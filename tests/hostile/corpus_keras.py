"""Keras archives that are at fault before any HDF5 is read, HDF5 files that are, and models of which the net is not built."""

from __future__ import annotations

import base64
import io
import json
import marshal
import zlib

import numpy as np
from making_hdf5 import ARRAYS, LAYERS, archive, functional, legacy, newer, plain, sequential, stored, written

NUMBERS = np.arange(24, dtype=np.float32).reshape(4, 6)
NO_HDF5 = b"\x89HDF\r\n\x1a\n" + b"\0" * 90


def lambda_of(canary):
    """What Keras writes for a layer of code, which its loaders run; all that it would do is to touch a file."""
    code = compile(f"lambda x: open({str(canary)!r}, 'w').close()", "<lambda>", "eval").co_consts[0]
    packed = base64.b64encode(marshal.dumps(code)).decode()
    old = {"name": "lambda", "function": [packed, None, None], "function_type": "lambda", "module": "__main__"}
    new = {"name": "lambda", "function": {"class_name": "__lambda__", "config": {"code": packed, "defaults": None, "closure": None}}}
    return ("Lambda", old), ("Lambda", new)


def within(config, depth=3):
    """The model in a model in a model."""
    for number in range(depth):
        config = {"class_name": "Sequential", "config": {"name": f"n{number}", "layers": [config]}}
    return config


def cases(canary):
    """Name -> (bytes, code): refused for what the zip or its config says, with h5py or without."""
    old, new = lambda_of(canary)
    activation = {"name": "dense", "units": 5, "activation": new[1]["function"]}
    configs = {
        "Lambda": (newer([old, *LAYERS]), "E-KERAS"),
        "Lambda of Keras 3": (newer([*LAYERS, new]), "E-KERAS"),
        "Lambda in a model within": (within(newer([new])), "E-KERAS"),
        "code as an activation": (newer([*LAYERS[:-2], ("Dense", activation)]), "E-KERAS"),
        "no JSON": (b"{", "E-JSON"),
        "a list": (b"[]", "E-JSON"),
        "not a number": (b'{"class_name": NaN}', "E-JSON"),
        "a key twice": (b'{"class_name": "Sequential", "class_name": "Lambda"}', "E-DUPLICATE"),
        "deeper than Python goes": (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "E-JSON"),
        "very many lists": (b'{"a":[' + b"[]," * 600_000 + b"[]]}", "E-JSON"),
        "very long": (b'{"a":"' + b"x" * (9 << 20) + b'"}', "E-JSON"),
        "not UTF-8": (b'{"a": \xff}', "E-JSON"),
        "weights that are no HDF5": (newer(), "E-HDF5"),
    }
    found = {key: (archive(config, b"x" * 99), code) for key, (config, code) in configs.items()}
    found |= {
        "a pickle within": (archive(weights=NO_HDF5, more=[("data.pkl", b"cos\nsystem\n(S'true'\ntR.")]), "E-ZIP-MEMBER"),
        "a program within": (archive(weights=NO_HDF5, more=[("assets/layer.py", b"import os")]), "E-ZIP-MEMBER"),
        "a path within": (archive(weights=NO_HDF5, more=[("../evil", b"x")]), "E-ZIP-NAME"),
        "capitals": (archive(weights=NO_HDF5, more=[("Config.json", b"{}")]), "E-DUPLICATE"),
        "deflated": (archive(weights=NO_HDF5, method=8), "E-ZIP-PACKED"),
        "long metadata": (archive(weights=NO_HDF5, about=b" " * 70_000), "E-ZIP-MEMBER"),
        "bytes behind it": (archive(weights=NO_HDF5) + b"x", "E-ZIP"),
        "outside of a sandbox": (archive(weights=NO_HDF5), "E-SANDBOX"),
        "HDF5 outside of a sandbox": (NO_HDF5, "E-SANDBOX"),
    }
    return {f"keras: {key}": case for key, case in found.items()}


def chunked(data, *, raw=None, mask=0, **how):
    """A data set in pieces; `raw`: what the first piece really holds."""

    def fill(file):
        made = file.create_dataset("w", data=data, chunks=how.pop("chunks", data.shape), **how)
        if raw is not None:
            made.id.write_direct_chunk((0,) * data.ndim, raw, mask)

    return written(fill)


def linked(make):
    import h5py

    def fill(file):
        file["w"] = NUMBERS
        make(file, h5py)

    return written(fill)


def typed(make):
    """A data set of a type that h5py has for it."""
    import h5py

    return written(lambda file: file.create_dataset("w", data=make[0], dtype=make[1](h5py) if callable(make[1]) else make[1]))


def referring(file, h5py):
    file.create_dataset("r", data=np.array([file["w"].ref], dtype=h5py.ref_dtype))


def virtual(file, h5py):
    layout = h5py.VirtualLayout(shape=(4, 6), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "w", shape=(4, 6))
    file.create_virtual_dataset("v", layout)


def outside(file, h5py):
    file.create_dataset("e", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def odd_float(file, h5py):
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"o", kind, space).close()


def deep(file, h5py):
    for _ in range(40):
        file = file.create_group("g")
    file["w"] = NUMBERS


def often(file, h5py):
    for number in range(10_001):
        file.id.links.create_hard(b"h%d" % number, file.id, b"w")


def moved(where):
    """Two data sets; the second is said to lie somewhere else."""
    import h5py

    data = plain(a=NUMBERS, b=NUMBERS + 1)
    with h5py.File(io.BytesIO(data), "r") as file:
        at = {name: file[name].id.get_offset() for name in "ab"}
    old, new = (n.to_bytes(8, "little") for n in (at["b"], where(at)))
    assert data.count(old) == 1
    return data.replace(old, new)


def attributed(**attributes):
    return written(lambda file: [file.create_dataset("w", data=NUMBERS), *(file.attrs.create(k, v) for k, v in attributes.items())])


def changed(layer, **parts):
    """The arrays of the honest model with some of a layer's others."""
    return ARRAYS | {layer: {name: array for name, array in (ARRAYS[layer] | parts).items() if array is not None}}


def packed(data, **how):
    machine = zlib.compressobj(**how)
    return machine.compress(data) + machine.flush()


ZEROS = np.zeros((1 << 21,), np.float32)
HOSTILE = {
    "half": (lambda: plain(w=NUMBERS)[: len(plain(w=NUMBERS)) // 2], "E-HDF5"),
    "only its signature": (lambda: NO_HDF5[:8], "E-HDF5"),
    "without its last byte": (lambda: plain(w=NUMBERS)[:-1], "E-HDF5"),
    "bytes before it": (lambda: b"\0" * 512 + plain(w=NUMBERS), "E-FORMAT"),
    "nothing in it": (lambda: written(lambda file: file.create_group("g")), "E-NO-WEIGHTS"),
    "a link to another file": (lambda: linked(lambda f, h: f.__setitem__("e", h.ExternalLink("/etc/passwd", "/w"))), "E-HDF5"),
    "a link by a path": (lambda: linked(lambda f, h: f.__setitem__("s", h.SoftLink("/w"))), "E-HDF5"),
    "a link to nothing": (lambda: linked(lambda f, h: f.__setitem__("s", h.SoftLink("/absent"))), "E-HDF5"),
    "a link to itself": (lambda: linked(lambda f, h: f.__setitem__("s", h.SoftLink("/s"))), "E-HDF5"),
    "a group in itself": (lambda: linked(lambda f, h: f.create_group("g").__setitem__("g", f["g"])), "E-HDF5"),
    "the root in itself": (lambda: linked(lambda f, h: f.create_group("g").__setitem__("root", f["/"])), "E-HDF5"),
    "a group by two names": (lambda: linked(lambda f, h: f.__setitem__("h", f.create_group("g"))), "E-HDF5"),
    "a virtual data set": (lambda: linked(virtual), "E-HDF5"),
    "numbers in another file": (lambda: linked(outside), "E-HDF5"),
    "a type by itself": (lambda: linked(lambda f, h: f.__setitem__("t", np.dtype("f4"))), "E-HDF5"),
    "groups forty deep": (lambda: linked(deep), "E-HDF5"),
    "ten thousand names of one": (lambda: linked(often), "E-COUNT"),
    "a thousand attributes": (lambda: attributed(**{f"a{i}": 1 for i in range(1_001)}), "E-COUNT"),
    "a bomb": (lambda: chunked(np.zeros((5, 1 << 20), np.float32), chunks=(1, 1 << 20), compression="gzip"), "E-HDF5"),
    "a small bomb": (lambda: chunked(ZEROS, compression="gzip", compression_opts=9), "E-HDF5"),
    "a bomb that claims little": (lambda: chunked(NUMBERS, compression="gzip", raw=packed(bytes(16 << 20))), "E-HDF5"),
    "a piece that claims much": (lambda: written(lambda f: f.create_dataset("w", (4,), "f4", maxshape=(None,), chunks=(1 << 28,))), "E-HDF5"),
    "a terabyte of nothing": (lambda: written(lambda f: f.create_dataset("w", (1 << 38,), "f4", chunks=(1 << 20,))), "E-HDF5"),
    "very many pieces": (lambda: written(lambda f: f.create_dataset("w", (1 << 20,), "i1", chunks=(1,))), "E-HDF5"),
    "a piece that is not gzip's": (lambda: chunked(NUMBERS, compression="gzip", raw=b"\xff" * 40), "E-HDF5"),
    "a piece with more behind it": (lambda: chunked(NUMBERS, compression="gzip", raw=packed(NUMBERS.tobytes()) + b"x"), "E-HDF5"),
    "a piece cut off": (lambda: chunked(NUMBERS, compression="gzip", raw=packed(NUMBERS.tobytes())[:-5]), "E-HDF5"),
    "a piece too short": (lambda: chunked(NUMBERS, compression="gzip", raw=packed(b"\0" * 95)), "E-HDF5"),
    "a piece without its filter": (lambda: chunked(NUMBERS, compression="gzip", raw=NUMBERS.tobytes(), mask=1), "E-HDF5"),
    "a piece of another size": (lambda: chunked(NUMBERS, shuffle=True, raw=b"\0" * 60), "E-STORAGE"),
    "a wrong checksum": (lambda: chunked(NUMBERS, fletcher32=True, raw=NUMBERS.tobytes() + b"abcd"), "E-HDF5"),
    "less than a checksum": (lambda: chunked(NUMBERS, fletcher32=True, raw=b"ab"), "E-HDF5"),
    "pieces that are not there": (lambda: written(lambda f: f.create_dataset("w", (40,), "f4", chunks=(10,)).__setitem__(3, 1)), "E-STORAGE"),
    "packed by LZF": (lambda: chunked(NUMBERS, compression="lzf"), "E-HDF5"),
    "packed by scale and offset": (lambda: chunked(NUMBERS, scaleoffset=2), "E-HDF5"),
    "numbers never written": (lambda: written(lambda f: f.create_dataset("w", (4,), "f4")), "E-STORAGE"),
    "nothing, by its space": (lambda: written(lambda f: f.create_dataset("w", dtype="f4")), "E-STORAGE"),
    "two in one place": (lambda: moved(lambda at: at["a"]), "E-OVERLAP"),
    "two that overlap": (lambda: moved(lambda at: at["a"] + 4), "E-OVERLAP"),
    "beyond the end": (lambda: moved(lambda at: 1 << 40), "E-HDF5"),
    "before the beginning": (lambda: moved(lambda at: (1 << 64) - 9), "E-HDF5"),
    "texts": (lambda: typed((["a", "b"], lambda h: h.string_dtype())), "E-DTYPE"),
    "texts of one length": (lambda: plain(w=np.array([b"ab", b"cd"])), "E-DTYPE"),
    "lists": (lambda: typed((np.array([np.ones(2, "f4")] * 2 + [None], object)[:2], lambda h: h.vlen_dtype("f4"))), "E-DTYPE"),
    "references": (lambda: linked(referring), "E-DTYPE"),
    "compounds": (lambda: plain(w=np.zeros(2, [("a", "f4"), ("b", "i4")])), "E-DTYPE"),
    "complex numbers": (lambda: plain(w=np.zeros(2, np.complex64)), "E-DTYPE"),
    "truths": (lambda: plain(w=np.zeros(2, bool)), "E-DTYPE"),
    "bytes of no type": (lambda: plain(w=np.zeros(2, "V2")), "E-DTYPE"),
    "floats of another layout": (lambda: linked(odd_float), "E-DTYPE"),
    "the other way round": (lambda: plain(w=NUMBERS.astype(">f4")), "E-BYTEORDER"),
    "nine axes": (lambda: plain(w=np.zeros((1,) * 9, np.float32)), "E-SHAPE"),
    "a newline in a name": (lambda: written(lambda f: f.create_dataset("a\nb", data=NUMBERS)), "E-NAME"),
    "a turned name": (lambda: written(lambda f: f.create_dataset("a\u202eb", data=NUMBERS)), "E-NAME"),
    "a long name": (lambda: written(lambda f: f.create_dataset("a" * 300, data=NUMBERS)), "E-NAME"),
    "a name in no script": (lambda: written(lambda f: f.create_dataset(b"a\xff", data=NUMBERS)), "E-HDF5"),
    "one name by two ways": (lambda: written(lambda f: [f.create_dataset("a/b", data=NUMBERS), f.create_dataset("a.b", data=NUMBERS)]), "E-DUPLICATE"),
    "a huge attribute": (lambda: legacy(json.dumps(sequential() | {"x": "y" * (9 << 20)})), "E-HDF5"),
    "an attribute that is no text": (lambda: attributed(layer_names=[1, 2]), "E-HDF5"),
    "an attribute that is a table": (lambda: attributed(layer_names=np.array([[b"a"], [b"b"]])), "E-HDF5"),
    "a config that is not UTF-8": (lambda: legacy(b"{\xff"), "E-HDF5"),
    "a config that is no JSON": (lambda: legacy("{"), "E-JSON"),
    "a config deeper than Python goes": (lambda: legacy('{"a":' + "[" * 60_000 + "]" * 60_000 + "}"), "E-JSON"),
    "a config without weights": (lambda: attributed(model_config=json.dumps(sequential())), "E-NO-WEIGHTS"),
    "Lambda": (lambda: legacy(sequential([*LAYERS, lambda_of("canary")[0]])), "E-KERAS"),
    "Lambda in a model within": (lambda: legacy(within(sequential([lambda_of("canary")[0]]))), "E-KERAS"),
    "layers listed twice": (lambda: legacy(names=[*ARRAYS, "dense"]), "E-DUPLICATE"),
    "layers called alike": (lambda: legacy(sequential([*LAYERS, LAYERS[-1]])), "E-DUPLICATE"),
    "an array that is not there": (lambda: legacy(more=lambda f: f.__delitem__("dense/dense/bias:0")), "E-KERAS"),
    "an array of no layer": (lambda: legacy(sequential(), more=lambda f: f.create_dataset("model_weights/x", data=NUMBERS)), "E-KERAS"),
    "an array of a layer not listed": (lambda: legacy(names=list(ARRAYS)[1:]), "E-KERAS"),
    "a kernel of another size": (lambda: legacy(sequential(), changed("conv2d", kernel=np.ones((5, 5, 2, 4), "f4"))), "E-KERAS"),
    "a kernel turned": (lambda: legacy(sequential(), changed("dense_1", kernel=np.ones((3, 5), "f4"))), "E-KERAS"),
    "a bias too many": (lambda: legacy(sequential(), changed("dense_1", other=np.ones(3, "f4"))), "E-KERAS"),
    "a bias too few": (lambda: legacy(sequential(), changed("dense", bias=None)), "E-KERAS"),
    "a kernel of whole numbers": (lambda: legacy(sequential(), changed("dense_1", kernel=np.ones((5, 3), "i4"))), "E-KERAS"),
    "a layer without its arrays": (lambda: legacy(sequential(), {k: v for k, v in ARRAYS.items() if k != "conv2d"}), "E-KERAS"),
    "arrays of a layer not told": (lambda: legacy(sequential(), {**ARRAYS, "dense_2": ARRAYS["dense_1"]}), "E-KERAS"),
    "an archive with other weights": (lambda: archive(weights=stored(changed("dense", kernel=np.ones((7, 5), "f4")))), "E-KERAS"),
    "an archive with more weights": (lambda: archive(weights=stored({**ARRAYS, "dense_2": ARRAYS["dense_1"]})), "E-KERAS"),
    "an archive with weights elsewhere": (lambda: archive(weights=plain(w=NUMBERS)), "E-NO-WEIGHTS"),
    "an archive with half its weights": (lambda: archive(weights=stored()[:2_000]), "E-HDF5"),
    "arrays not numbered from 0": (lambda: stored(more=lambda f: f.__setitem__("layers/dense/vars/3", NUMBERS)), "E-KERAS"),
    "an array beside the numbered": (lambda: stored(more=lambda f: f.__setitem__("layers/dense/w", NUMBERS)), "E-KERAS"),
}  # fmt: skip


def altered(number, **changes):
    """The honest model with a layer's fields changed."""
    kind, config = LAYERS[number]
    return [*LAYERS[:number], (changes.pop("kind", kind), config | changes), *LAYERS[number + 1 :]]


def own(**fields):
    """The honest model of Keras 3, a layer of it not Keras' own."""
    config = newer()
    config["config"]["layers"][3] |= fields
    return config


GRAPH = [
    ("InputLayer", {"name": "a", "batch_input_shape": [None, 8, 8, 1]}, []),
    ("Conv2D", {"name": "conv2d", "filters": 2, "kernel_size": [3, 3], "padding": "same"}, ["a"]),
    ("ReLU", {"name": "relu"}, ["conv2d"]),
    ("Add", {"name": "add"}, ["relu", "conv2d"]),
    ("GlobalAveragePooling2D", {"name": "pool"}, ["add"]),
    ("Dense", {"name": "z", "units": 3}, ["pool"]),
]
GRAPH_ARRAYS = {
    "conv2d": {"kernel": ARRAYS["conv2d"]["kernel"][:, :, :1, :2].copy(), "bias": ARRAYS["conv2d"]["bias"][:2].copy()},
    "z": {"kernel": ARRAYS["dense_1"]["kernel"][:2].copy(), "bias": ARRAYS["dense_1"]["bias"]},
}


def twice():
    found = functional(GRAPH)
    found["config"]["layers"][2]["inbound_nodes"] *= 2
    return found


def called():
    found = functional(GRAPH)
    found["config"]["layers"][2]["inbound_nodes"][0][0][3] = {"training": True}
    return found


NOT_BUILT = {
    "a layer of the author's own": (lambda: archive(own(registered_name="mine>BatchNormalization")), "not Keras' own"),
    "a layer of another module": (lambda: archive(own(module="os")), "not Keras' own"),
    "a layer that is not translated": (lambda: legacy(sequential(altered(6, kind="GRU"))), "GRU is not translated"),
    "an activation that is not": (lambda: legacy(sequential(altered(7, activation="exponential"))), "'exponential', which is not"),
    "an activation that is a table": (lambda: legacy(sequential(altered(7, activation={"class_name": "Mine"}))), "a dict, which is not"),
    "softmax in the middle": (lambda: legacy(sequential(altered(7, activation="softmax"))), "softmax in the middle"),
    "channels first": (lambda: legacy(sequential(altered(1, data_format="channels_first"))), "channels first"),
    "another axis": (lambda: legacy(sequential(altered(2, axis=[1]))), "another axis"),
    "no fixed size": (lambda: legacy(sequential(shape=[None, None, None, 2])), "images of a fixed size"),
    "no picture": (lambda: legacy(sequential(shape=[None, 180])), "images of a fixed size"),
    "strange strides": (lambda: legacy(sequential(altered(1, strides=[0, "x"]))), "has strides"),
    "strange padding": (lambda: legacy(sequential(altered(1, padding="causal"))), "pads by 'causal'"),
    "a kernel beyond the picture": (lambda: legacy(sequential(altered(4, pool_size=[99, 99], padding="valid"))), "does not fit into"),
    "an epsilon of text": (lambda: legacy(sequential(altered(2, epsilon="x"))), "batch_norm"),
    "a scale of tables": (lambda: legacy(sequential(altered(0, scale={"a": 1}))), "affine"),
    "a model within": (lambda: legacy(sequential([LAYERS[0], ("Sequential", {"name": "n", "layers": []})])), "Sequential is not translated"),
    "a class of model": (lambda: legacy({"class_name": "Mine", "config": {}}), "neither Sequential nor Functional"),
    "no layers": (lambda: legacy({"class_name": "Sequential", "config": []}), "0 layers"),
    "a thousand layers": (lambda: legacy(sequential([("Dropout", {"name": f"d{i}"}) for i in range(1_001)])), "1,001 layers"),
    "a layer used twice": (lambda: legacy(twice(), GRAPH_ARRAYS), "more than once"),
    "a layer called as in training": (lambda: legacy(called(), GRAPH_ARRAYS), "something else than layers' outputs"),
    "a circle": (lambda: legacy(functional([*GRAPH[:2], ("Add", {"name": "x"}, ["z", "a"]), ("ReLU", {"name": "z"}, ["x"])])), "no layer before it gives"),
    "an end that is not there": (lambda: legacy(functional(GRAPH, ends=("a", "y")), GRAPH_ARRAYS), "no layers of its own"),
    "an answer that is a flattened picture": (
        lambda: legacy(functional([*GRAPH[:2], ("Flatten", {"name": "z"}, ["conv2d"])]), {"conv2d": GRAPH_ARRAYS["conv2d"]}), "flattened picture",
    ),
    "sums in two orders": (
        lambda: legacy(functional([*GRAPH[:2], ("Flatten", {"name": "f"}, ["conv2d"]), ("Dense", {"name": "z", "units": 128}, ["f"]),
                                   ("Add", {"name": "s"}, ["f", "z"])], ends=("a", "s")),
                       {**GRAPH_ARRAYS, "z": {"kernel": np.ones((128, 128), "f4"), "bias": np.ones(128, "f4")}}),
        "different orders",
    ),
}  # fmt: skip
