"""Writes HDF5 files and Keras models by h5py alone, as Keras 2 and 3 lay them out; h5py is imported when one is written."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np

DRAW = np.random.default_rng(7)
ARRAYS = {
    "conv2d": {"kernel": DRAW.normal(size=(3, 3, 2, 4)), "bias": DRAW.normal(size=4)},
    "batch_normalization": {
        "gamma": DRAW.normal(size=4), "beta": DRAW.normal(size=4), "moving_mean": DRAW.normal(size=4),
        "moving_variance": DRAW.uniform(1, 2, 4),
    },
    "depthwise_conv2d": {"depthwise_kernel": DRAW.normal(size=(2, 2, 4, 2)), "bias": DRAW.normal(size=8)},
    "dense": {"kernel": DRAW.normal(size=(72, 5)), "bias": DRAW.normal(size=5)},
    "dense_1": {"kernel": DRAW.normal(size=(5, 3)), "bias": DRAW.normal(size=3)},
}  # fmt: skip
ARRAYS = {layer: {name: array.astype(np.float32) for name, array in arrays.items()} for layer, arrays in ARRAYS.items()}
LAYERS = [
    ("Rescaling", {"name": "rescaling", "scale": 0.5, "offset": -1.0}),
    ("Conv2D", {"name": "conv2d", "filters": 4, "kernel_size": [3, 3], "strides": [2, 2], "padding": "same", "activation": "relu"}),
    ("BatchNormalization", {"name": "batch_normalization", "axis": [3], "epsilon": 0.001}),
    ("DepthwiseConv2D", {"name": "depthwise_conv2d", "kernel_size": [2, 2], "padding": "same", "depth_multiplier": 2}),
    ("MaxPooling2D", {"name": "max_pooling2d", "pool_size": [2, 2], "strides": None, "padding": "same"}),
    ("Flatten", {"name": "flatten"}),
    ("Dropout", {"name": "dropout", "rate": 0.5}),
    ("Dense", {"name": "dense", "units": 5, "activation": "tanh"}),
    ("Dense", {"name": "dense_1", "units": 3, "activation": "softmax"}),
]
"""For pictures of 9x10 in two channels."""
SHAPE = [None, 9, 10, 2]


def written(fill, **how):
    """The bytes of an HDF5 file that `fill` fills."""
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w", **how) as file:
        fill(file)
    return out.getvalue()


def plain(**sets):
    """A file of data sets and nothing else."""
    return written(lambda file: [file.create_dataset(name.replace("__", "/"), data=data) for name, data in sets.items()])


def sequential(layers=LAYERS, shape=SHAPE):
    """A model as Keras 2 describes it."""
    told = [{"class_name": kind, "config": dict(config)} for kind, config in layers]
    told[0]["config"]["batch_input_shape"] = shape
    return {"class_name": "Sequential", "config": {"name": "net", "layers": told}, "keras_version": "2.4.0", "backend": "tensorflow"}


def newer(layers=LAYERS, shape=SHAPE):
    """The same as Keras 3 describes it."""
    first = ("InputLayer", {"name": "input_layer", "batch_shape": shape})
    told = [
        {"module": "keras.layers", "class_name": kind, "config": dict(config), "registered_name": None} for kind, config in (first, *layers)
    ]
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "net", "layers": told}, "registered_name": None}


def functional(nodes, ends=("a", "z")):
    """A graph as Keras 2 describes it; `nodes`: (kind, config, names that it reads)."""
    told = [
        {"class_name": kind, "name": config["name"], "config": config, "inbound_nodes": [[[one, 0, 0, {}] for one in read]] if read else []}
        for kind, config, read in nodes
    ]
    first, last = ends
    return {"class_name": "Functional", "config": {"layers": told, "input_layers": [[first, 0, 0]], "output_layers": [[last, 0, 0]]}}


def legacy(config=None, arrays=ARRAYS, *, names=None, more=None):
    """A whole model, or (config None) its weights, as Keras 2 writes it; `names`: of layers; `more`: what else to write."""

    def fill(file):
        top = file
        if config is not None:
            text = config if isinstance(config, str | bytes) else json.dumps(config)
            file.attrs["model_config"] = text.encode() if isinstance(text, str) else text
            top = file.create_group("model_weights")
        top.attrs["layer_names"] = [name.encode() for name in (names or arrays)]
        for layer, parts in arrays.items():
            group = top.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in parts]
            for name, array in parts.items():
                group[f"{layer}/{name}:0"] = array
        if more:
            more(file)

    return written(fill)


def stored(arrays=ARRAYS, *, more=None):
    """Weights as Keras 3 writes them."""

    def fill(file):
        for layer, parts in arrays.items():
            for number, array in enumerate(parts.values()):
                file[f"layers/{layer}/vars/{number}"] = array
        file["layers/dropout/seed_generator/vars/0"] = np.array([0, 7], np.uint32)
        file["optimizer/vars/0"] = np.int32(100)
        file.create_group("vars")
        if more:
            more(file)

    return written(fill)


ABOUT = b'{"keras_version": "3.11.0", "date_saved": "2026-01-01@00:00:00"}'


def archive(config=None, weights=None, *, about=ABOUT, more=(), method=zipfile.ZIP_STORED):
    """A `.keras` file; `more`: (name, bytes) of other members."""
    config = newer() if config is None else config
    members = [
        ("metadata.json", about),
        ("config.json", config if isinstance(config, bytes) else json.dumps(config).encode()),
        ("model.weights.h5", stored() if weights is None else weights),
    ]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in [*members, *more]:
            file.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()
