"""Small data sets in every format that badnets reads, whole, for the tests to damage."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from badnets.datasets import _places, cifar10
from badnets.datasets.cifar10 import Cifar10
from badnets.datasets.fashion_mnist import FashionMnist
from badnets.datasets.gtsrb import Gtsrb
from badnets.datasets.mnist import Mnist

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def rng(seed=0):
    return np.random.default_rng(seed)


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.astype(np.uint8).tobytes()


def idx_set(folder: Path, *, train=100, test=50, side=8, gz=False, seed=0):
    """Four idx files with ten classes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, count in zip(IDX, (train, train, test, test), strict=True):
        array = rng(seed + count).integers(0, 256, (count, side, side)) if "images" in stem else np.arange(count) % 10
        content = idx_bytes(array)
        (folder / (stem + ".gz" if gz else stem)).write_bytes(gzip.compress(content, mtime=0) if gz else content)
    return folder


BOX = (20, 17, 5, 4, 15, 13)
"""Of a made-up traffic sign: width and height of the photograph, left, top, right and bottom of the sign in it."""
COLUMNS = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"


def gtsrb_arrays(*, tracks=4, frames=2, test=5, side=32, seed=0):
    """43 classes, `tracks` tracks of `frames` frames each, `test` test images each."""
    y_train = np.repeat(np.arange(43), tracks * frames).astype(np.uint8)
    track = np.tile(np.repeat(np.arange(tracks), frames), 43).astype(np.uint16)
    y_test = np.repeat(np.arange(43), test).astype(np.uint8)
    draw = rng(seed)
    return {
        "x_train": draw.integers(0, 256, (len(y_train), side, side, 3), dtype=np.uint8),
        "y_train": y_train,
        "track_train": track,
        "whroi_train": np.tile(np.array(BOX, dtype=np.uint16), (len(y_train), 1)),
        "x_test": draw.integers(0, 256, (len(y_test), side, side, 3), dtype=np.uint8),
        "y_test": y_test,
        "whroi_test": np.tile(np.array(BOX, dtype=np.uint16), (len(y_test), 1)),
    }


def npy_bytes(array, **kwargs):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), **kwargs)
    return buffer.getvalue()


def npz(path: Path, members: dict[str, bytes], compression=zipfile.ZIP_STORED):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def gtsrb_npz(folder: Path, **changes):
    """A whole gtsrb32.npz; `changes` replace arrays (None leaves one out, bytes stand for the member itself)."""
    arrays = gtsrb_arrays() | changes
    members = {f"{k}.npy": v if isinstance(v, bytes) else npy_bytes(v) for k, v in arrays.items() if v is not None}
    return npz(folder / "gtsrb32.npz", members)


def gtsrb_official(folder: Path, *, frames=8, test=4):
    """The official folders: 43 classes, tracks of two frames, the test table."""
    for label in range(43):
        cls = folder / "Final_Training" / "Images" / f"{label:05}"
        cls.mkdir(parents=True)
        box = ";".join(map(str, BOX))
        rows = [f"{i // 2:05}_{i % 2:05}.ppm;{box};{label}" for i in range(frames)]
        (cls / f"GT-{label:05}.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
        for i in range(frames):
            picture(seed=label * 100 + i, size=(20, 17)).save(cls / f"{i // 2:05}_{i % 2:05}.ppm")
    testing = folder / "Final_Test" / "Images"
    testing.mkdir(parents=True)
    lines = [COLUMNS]
    for i in range(43 * test):
        picture(seed=9000 + i, size=(20, 17)).save(testing / f"{i:05}.ppm")
        lines.append(f"{i:05}.ppm;{';'.join(map(str, BOX))};{i % 43}")
    (testing / "GT-final_test.csv").write_text("\r\n".join(lines) + "\r\n")
    return folder


def cifar_batch(rows, seed):
    labels = (np.arange(rows) % 10).astype(np.uint8)[:, None]
    return np.concatenate([labels, rng(seed).integers(0, 256, (rows, 3072), dtype=np.uint8)], axis=1).tobytes()


def cifar_set(folder: Path, rows=20):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate([f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]):
        (folder / name).write_bytes(cifar_batch(rows, i))
    return folder


def picture(seed=0, size=(12, 10), mode="RGB"):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,), "CMYK": (4,)}[mode]
    return Image.fromarray(
        rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8), mode=None if mode != "CMYK" else "CMYK"
    )


def encoded(form, **kwargs):
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    kwargs.pop("image", picture()).save(buffer, form, **kwargs)
    return buffer.getvalue()


def image_folder(root: Path, *, classes=("cat", "dog"), count=10, mode="RGB", suffix="png", size=(12, 10)):
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(seed=1000 * c + i, mode=mode, size=size).save(root / name / f"{i:03}.{suffix}")
    return root


def small_set(name, tmp_path):
    """A small whole copy of a data set, in a folder of its name; None for one that comes with a package."""
    makers = {"mnist": idx_set, "fashion_mnist": idx_set, "cifar10": cifar_set, "gtsrb": gtsrb_npz, "folder": image_folder}
    if name not in makers:
        return None
    makers[name](tmp_path / name)
    return tmp_path / name


def clean_machine(tmp_path, monkeypatch):
    """No data set anywhere: not named, not installed, not fetched."""
    monkeypatch.delenv("BADNETS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_places, "SYSTEM", tmp_path / "system")
    return monkeypatch


def unpin(monkeypatch):
    """Accept made-up content, and CIFAR-10 batches of 20 rows."""
    for dataset in (Mnist, FashionMnist, Gtsrb, Cifar10):
        monkeypatch.setattr(dataset, "content", None)
    monkeypatch.setattr(cifar10, "_ROWS", 20)
    return monkeypatch
