"""Hostile model folders, one case a line: (what is done to an honest folder, code, words of the message)."""

from __future__ import annotations

import json
import os

from making import call, entry, pickled, safetensors, text

CONFIG, PREPARATION, WEIGHTS, INDEX = "config.json", "preprocessor_config.json", "model.safetensors", "model.safetensors.index.json"
HEAD = {"num_labels": 2, "architectures": ["ViTForImageClassification"]}
FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
REST = safetensors({"v": entry()})
NORMAL = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def plain(path, config=HEAD, more=()):
    """An honest folder: `classifier.weight` of two rows."""
    write(path, CONFIG, config)
    write(path, WEIGHTS, safetensors({"classifier.weight": entry()}))
    for name, content in more:
        write(path, name, content)


def write(path, name, content):
    path.mkdir(exist_ok=True)
    (path / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def config(content, code="E-MODEL-FOLDER", said="config.json: "):
    return lambda path: plain(path, content), code, said


def changed(code="E-MODEL-FOLDER", said="config.json: ", **fields):
    return config({**HEAD, **fields}, code, said)


def timm(said, **fields):
    told = {"architecture": "resnet18", "num_classes": 2, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 8, 8]}}
    return config({**told, **fields}, said=said)


def prepared(content, said="preprocessor_config.json: ", code="E-MODEL-FOLDER"):
    content = content if isinstance(content, bytes) else {**NORMAL, **content}
    return lambda path: plain(path, more=[(PREPARATION, content)]), code, said


def sharded(places, shards=None, *, code="E-SHARDS", said="", top=None, then=None):
    """A folder of two shards with w and v; `places`: the weight_map."""

    def make(path):
        write(path, CONFIG, HEAD)
        write(path, INDEX, {"metadata": {}, "weight_map": places} if top is None else top)
        for name, content in ({FIRST: safetensors(), SECOND: REST} if shards is None else shards).items():
            write(path, name, content)
        if then is not None:
            then(path)

    return make, code, said


BOTH = {"w": FIRST, "v": SECOND}


def link(name, to, *, code="E-LINK"):
    def make(path):
        plain(path, more=[(PREPARATION, NORMAL)])
        (path / name).unlink(missing_ok=True)
        (path / name).symlink_to(to)

    return make, code, f"{name}: it is a symbolic link to "


def sparse(name, size):
    def make(path):
        plain(path, more=[(PREPARATION, NORMAL)])
        with (path / name).open("wb") as file:
            file.truncate(size)

    return make, "E-SPARSE", f"{name}: "


def main(content, code, said=""):
    return lambda path: (plain(path), write(path, WEIGHTS, content)), code, said


def pickle_alone(path):
    write(path, CONFIG, HEAD)
    write(path, "pytorch_model.bin", pickled(call("os", "system", text("touch canary"))))


def linked_shard(path):
    (path / SECOND).rename(path.parent / "elsewhere")
    (path / SECOND).symlink_to("../elsewhere")


def pipe(path):
    plain(path)
    (path / CONFIG).unlink()
    os.mkfifo(path / CONFIG)


def cases():
    deep, wide = b'{"a":' * 100_000, b'{"a":[' + b"{}," * 500_000 + b"{}]}"
    return {
        "config is a list": config(b"[1]", "E-JSON"),
        "config is no JSON": config(b"{a: 1}", "E-JSON"),
        "config is no UTF-8": config(b'{"\xff": 1}', "E-JSON"),
        "config is empty": config(b"", "E-EMPTY"),
        "config ends early": config(b'{"num_labels": 2', "E-JSON"),
        "config with something behind it": config(b'{"num_labels": 2} {}', "E-JSON"),
        "config is safetensors": config(safetensors(), "E-JSON"),
        "config is a pickle": config(pickled(b"N"), "E-JSON"),
        "config nested 100,000 deep": config(deep + b"1" + b"}" * 100_000, "E-JSON"),
        "config nested 40 deep": config(b'{"a":' * 40 + b"1" + b"}" * 40, "E-JSON"),
        "config of half a million tables": config(wide, "E-JSON"),
        "config of a million numbers": config(b'{"a":[' + b"1," * 1_000_000 + b"1]}", "E-JSON"),
        "config of 5 MB": config(b'{"a":"' + b"x" * (5 << 20) + b'"}'),
        "config of 1 GB in a hole": sparse(CONFIG, 1 << 30),
        "preparation of 1 GB in a hole": sparse(PREPARATION, 1 << 30),
        "a key twice": config(b'{"num_labels": 2, "num_labels": 3}', "E-DUPLICATE", "'num_labels' twice"),
        "a key twice by escape": config(b'{"num_labels": 2, "num_l\\u0061bels": 3}', "E-DUPLICATE", "'num_labels' twice"),
        "a key twice deep inside": config(b'{"x": {"a": 1, "a": 2}}', "E-DUPLICATE", "'a' twice"),
        "NaN": config(b'{"layer_norm_eps": NaN}', "E-JSON", "'NaN'"),
        "infinity": config(b'{"layer_norm_eps": -Infinity}', "E-JSON", "'-Infinity'"),
        "a number of 5,000 digits": config(b'{"num_labels": ' + b"9" * 5_000 + b"}", "E-JSON"),
        "a float that is infinite": config(b'{"layer_norm_eps": 1e999}'),
        "num_labels disagrees": changed(num_labels=7, said="config.json: it says 7 classes, its last layer has (2,)"),
        "num_labels disagrees with names": changed(id2label={"0": "a", "1": "b", "2": "c"}, said="names for 3 classes and says that there are 2"),
        "num_labels is a text": changed(num_labels="2", said="expected a whole number as num_labels, got '2'"),
        "num_labels is true": changed(num_labels=True, said="expected a whole number as num_labels, got True"),
        "num_labels is negative": changed(num_labels=-1),
        "num_labels is 10 ** 30": changed(num_labels=10**30),
        "num_labels with a fraction": changed(num_labels=2.5),
        "names are a list": changed(id2label=["a", "b"], said="expected a table as id2label"),
        "names are numbers": changed(id2label={"0": 1, "1": 2}),
        "names with a gap": changed(id2label={"0": "a", "5": "b"}),
        "a name of 10,000 characters": changed(id2label={"0": "a" * 10_000, "1": "b"}),
        "image_size of 10 ** 9": changed(image_size=10**9, said="image.0: Input should be less than or equal to 4096, got 1000000000"),
        "image_size of zero": changed(image_size=0),
        "image_size of three": changed(image_size=[1, 2, 3]),
        "image_size is a text": changed(image_size="224"),
        "image_size of a text": changed(image_size=["8", 8]),
        "num_channels of a million": changed(num_channels=1_000_000),
        "no head": changed(num_attention_heads=0),
        "a million heads": changed(num_attention_heads=1_000_000),
        "epsilon of zero": changed(layer_norm_eps=0),
        "epsilon is a list": changed(layer_norm_eps=[1e-6]),
        "activation is a table": changed(hidden_act={"a": 1}),
        "architectures is a text": changed(architectures="ViT"),
        "architectures of numbers": changed(architectures=[1]),
        "an architecture of 5,000 letters": changed(architectures=["x" * 5_000]),
        "a flag is a text": changed(downsample_in_first_stage="no"),
        "timm: mean of texts": timm("expected a list of numbers as mean", pretrained_cfg={"mean": ["a"], "std": [1.0]}),
        "timm: deviation of zero": timm("pretrained_cfg in config.json: std.0", pretrained_cfg={"mean": [0.5], "std": [0.0], "input_size": [1, 8, 8]}),
        "timm: the size is huge": timm("image.0", pretrained_cfg={"input_size": [3, 10**9, 10**9]}),
        "timm: pretrained_cfg is a list": timm("expected a table as pretrained_cfg", pretrained_cfg=[1]),
        "timm: classes disagree": timm("it says 1000 classes", num_classes=1000),
        "timm: names of classes are numbers": timm("label_names", label_names=[1, 2]),
        "mean of NaN": prepared(b'{"image_mean": [NaN], "image_std": [1]}', "'NaN'", "E-JSON"),
        "mean of 10 ** 400": prepared(b'{"image_mean": [1' + b"0" * 400 + b'], "image_std": [1]}'),
        "mean of 10 ** 9": prepared({"image_mean": [1e9] * 3}),
        "mean is a text": prepared({"image_mean": "0.5"}),
        "mean of nothing": prepared({"image_mean": []}),
        "mean of four channels": prepared({"image_mean": [0.5] * 4}, "preprocessor_config.json: expected a mean and a deviation for each"),
        "deviation of zero": prepared({"image_std": [0.5, 0.0, 0.5]}, "preprocessor_config.json: std.1: Input should be greater than"),
        "deviation below zero": prepared({"image_std": [-0.5] * 3}),
        "deviation of 1e-300": prepared({"image_std": [1e-300] * 3}),
        "rescale_factor of zero": prepared({"rescale_factor": 0}),
        "rescale_factor below zero": prepared({"rescale_factor": -1}),
        "do_rescale is a text": prepared({"do_rescale": "false"}),
        "size is huge": prepared({"size": {"height": 10**9, "width": 10**9}}, "config.json: image.0"),
        "size is a text": prepared({"size": {"height": "8", "width": 8}}),
        "preparation nested deep": prepared(deep, code="E-JSON"),
        "preparation is a list": prepared(b"[]", code="E-JSON"),
        "preparation with a key twice": prepared(b'{"size": 8, "size": 9}', "twice", "E-DUPLICATE"),
        "config is a link": link(CONFIG, "../x"),
        "config is a link to /etc/passwd": link(CONFIG, "/etc/passwd"),
        "preparation is a link": link(PREPARATION, CONFIG),
        "weights are a link": link(WEIGHTS, "/dev/zero"),
        "weights are a link into a cache": link(WEIGHTS, "../../blobs/0f"),
        "config is a pipe": (pipe, "E-NOT-FILE", "config.json: "),
        "config is a folder": (lambda path: (plain(path), (path / CONFIG).unlink(), (path / CONFIG).mkdir()), "E-DIRECTORY", ""),
        "only a pickle": (pickle_alone, "E-PICKLE-RAW", ""),
        "a pickle called safetensors": main(pickled(call("os", "system", text("touch canary"))), "E-PICKLE-RAW"),
        "weights are nothing": main(b"", "E-EMPTY"),
        "weights are cut off": main(safetensors()[:-1], "E-OFFSETS"),
        "weights are a config": main(b'{"a": 1}', "E-SHARDS", "expected a table of tensors as weight_map"),
        "weights are an index": main(json.dumps({"weight_map": BOTH}).encode(), "E-SHARDS", "which is no shard in its folder"),
        "weights of no kind": main(b"not weights", "E-FORMAT"),
        "the index leads out": sharded({"w": FIRST, "v": "../../etc/passwd"}, said="got '../../etc/passwd'"),
        "the index leads to the root": sharded({"w": FIRST, "v": "/etc/passwd"}, said="got '/etc/passwd'"),
        "the index leads out behind a good name": sharded({"w": FIRST, "v": f"x/../{SECOND}"}),
        "the index leads into a folder": sharded({"w": FIRST, "v": f"deep/{SECOND}"}),
        "the index names a pickle": sharded({"w": FIRST, "v": "evil.pkl"}),
        "the index names with a line break": sharded({"w": FIRST, "v": SECOND + "\n"}),
        "the index names a number": sharded({"w": FIRST, "v": 2}),
        "the index names nothing": sharded({}),
        "the index has no map": sharded({}, top={"metadata": {}}),
        "the index is a list": sharded({}, top=[1], code="E-FORMAT"),
        "the index maps to tables": sharded({"w": {"a": 1}}),
        "the index has a tensor twice": sharded({}, top=f'{{"weight_map": {{"w": "{FIRST}", "w": "{SECOND}"}}}}'.encode(), code="E-DUPLICATE"),
        "the index nested deep": sharded({}, top=b'{"weight_map":' * 50_000, code="E-JSON"),
        "the index of 20,000 tensors": sharded({str(i): FIRST for i in range(20_000)}, code="E-COUNT"),
        "the index names 40 shards": sharded({str(i): f"model-{i:05}-of-00040.safetensors" for i in range(40)}, said="names 40 shards"),
        "a shard is missing": sharded(BOTH, {FIRST: safetensors()}, said=f"names '{SECOND}', which is no shard in its folder"),
        "a shard too many": sharded({"w": FIRST}, said=f"does not name '{SECOND}'"),
        "a shard is a link": sharded(BOTH, then=linked_shard, code="E-LINK", said=f"{SECOND}: it is a symbolic link to '../elsewhere'"),
        "a shard is a folder": sharded(BOTH, {FIRST: safetensors()}, then=lambda path: (path / SECOND).mkdir(), said="no shard"),
        "a tensor in two shards": sharded(BOTH, {FIRST: safetensors(), SECOND: safetensors({"v": entry((2,), (0, 8)), "w": entry((4,), (8, 24))})},
                                          said="it has the tensor 'w', which another shard has too"),
        "a tensor that the index does not name": sharded(BOTH, {FIRST: safetensors(), SECOND: safetensors({"v": entry((2,), (0, 8)), "x": entry((4,), (8, 24))})},
                                                         said="it has the tensor 'x', which the index does not name"),
        "shards the other way round": sharded(BOTH, {FIRST: REST, SECOND: safetensors()}, said="which the index puts into"),
        "a tensor is missing": sharded({**BOTH, "x": SECOND}, said="it lacks the tensor 'x'"),
        "a shard is a pickle": sharded(BOTH, {FIRST: safetensors(), SECOND: pickled(b"N")}, code="E-PICKLE-RAW", said=SECOND),
        "a shard is an index": sharded(BOTH, {FIRST: safetensors(), SECOND: b'{"weight_map": {}}'}, code="E-FORMAT", said=SECOND),
        "a shard is empty": sharded(BOTH, {FIRST: safetensors(), SECOND: b""}, code="E-EMPTY", said=SECOND),
        "a shard is cut off": sharded(BOTH, {FIRST: safetensors(), SECOND: REST[:-4]}, code="E-OFFSETS", said=SECOND),
        "weights where the index should be": sharded({}, top=safetensors(), said="does not name"),
        "tensors of NaN": (lambda path: plain(path, more=[(WEIGHTS, safetensors({"w": entry()}, b"\xff" * 24))]), None, ""),
        "weights and a pickle": (lambda path: plain(path, more=[("pytorch_model.bin", pickled(call("os", "system", text("touch canary"))))]), None,
                                 "not looked at in this folder: 'pytorch_model.bin'"),
        "names with sequences for terminals": changed(None, "'\\x1b[2J\\x07', '<script>alert(1)</script>'", id2label={"0": "\x1b[2J\x07", "1": "<script>alert(1)</script>"}),
        "code of its own": changed(None, "config.json names code that was not looked at: 'auto_map'", auto_map={"AutoModel": "evil.Net"}),
        "a file with a strange name beside it": (lambda path: plain(path, more=[("a\x1b[2J\n.py", b"")]), None, "'a\\x1b[2J\\n.py'"),
    }  # fmt: skip
