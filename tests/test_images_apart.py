"""Images are decoded in a process that can reach nothing: the same bits as here, and what becomes of decoders that die, dawdle or lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import data_makers as make
import numpy as np
import pytest
from PIL import Image
from test_hostile_data_images import IMAGES, _png

from badnets.core.errors import RefusedError, StoreError
from badnets.datasets import _decoder, _images
from badnets.datasets._decoder import Decoder
from badnets.datasets.folder import Folder
from badnets.datasets.gtsrb import Gtsrb

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and namespaces are Linux's")
FINE = make.encoded("PNG")


def gone(pid):
    """Ended; where nobody reaps orphans it may lie there dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def soon(condition):
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def pid_of(decoder):
    assert decoder.level.process
    return decoder._child.process.pid


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as found:
        yield found


@pytest.fixture
def ask(tmp_path):
    """Decodes bytes as a file; a refusal as its text, without the file's name."""

    def asked(decoder, content, size=8):
        path = tmp_path / "x.png"
        path.write_bytes(content)
        try:
            return decoder.decode(path, size)
        except RefusedError as error:
            return str(error).removeprefix(f"E-IMAGE {path}: ").removesuffix(" Replace it, or move it out of the folder.")

    return asked


def turned(form, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return make.encoded(form, image=make.picture(size=(20, 12)), exif=exif, **options)


def _wide():
    """16 bits, more than are scaled at once, no two rows alike."""
    values = np.arange(1200 * 1000).reshape(1200, 1000) * 7 % 65_536
    return values.astype(np.uint16)


KINDS = {
    "png": lambda: make.encoded("PNG"),
    "png-alpha": lambda: make.encoded("PNG", image=Image.merge("RGBA", [*make.picture().split(), make.picture(3).split()[0]])),
    "png-16": lambda: make.encoded("PNG", image=Image.fromarray(_wide())),
    "png-palette": lambda: make.encoded("PNG", image=make.picture().quantize(16)),
    "png-palette-transparent": lambda: make.encoded("PNG", image=make.picture().quantize(16), transparency=3),
    "png-bits": lambda: make.encoded("PNG", image=make.picture().convert("1")),
    "png-grey-alpha": lambda: make.encoded("PNG", image=make.picture().convert("LA")),
    "png-turned": lambda: turned("PNG", 5),
    "jpeg": lambda: make.encoded("JPEG", image=make.picture(size=(300, 200))),
    "jpeg-grey": lambda: make.encoded("JPEG", image=make.picture().convert("L")),
    "jpeg-cmyk-progressive": lambda: make.encoded("JPEG", image=make.picture().convert("CMYK"), progressive=True),
    **{f"jpeg-turned-{n}": lambda n=n: turned("JPEG", n) for n in range(1, 9)},
    "bmp": lambda: make.encoded("BMP"),
    "bmp-palette": lambda: make.encoded("BMP", image=make.picture().quantize(16)),
    "webp": lambda: make.encoded("WEBP", quality=80),
    "webp-turned": lambda: turned("WEBP", 6, lossless=True),
    "ppm": lambda: make.encoded("PPM"),
    "pgm-16": lambda: b"P5 1000 1200 65535\n" + _wide().byteswap().tobytes(),
    "ppm-plain": lambda: b"P3 2 1 255\n1 2 3 4 5 6\n",
    "jpeg-of-two-frames": lambda: make.encoded("MPO", save_all=True, append_images=[make.picture(2)]),
}


class TestTheSame:
    @pytest.mark.parametrize("size", [8, 37])
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jpeg-of-two-frames"])
    def test_bits(self, decoder, ask, kind, size):
        content = KINDS[kind]()
        found, here = ask(decoder, content, size), _images.decode(content, size)
        assert found.dtype == here.dtype == np.uint8
        np.testing.assert_array_equal(found, here)

    @pytest.mark.parametrize("case", [*(case for case in IMAGES if case != "empty"), "jpeg-of-two-frames"])
    def test_words(self, decoder, ask, case):
        content = IMAGES[case][0]() if case in IMAGES else KINDS[case]()
        with pytest.raises(_images.BadImageError) as here:
            _images.decode(content, 8)
        assert ask(decoder, content) == f"{here.value}."

    def test_one_child_does_it_all(self, decoder, ask):
        before = pid_of(decoder)
        assert ask(decoder, b"nonsense") == "expected PNG, JPEG, BMP, WEBP, PPM, got something else."
        assert ask(decoder, FINE).shape == (8, 8, 3)
        assert pid_of(decoder) == before

    def test_without_processes(self, ask, monkeypatch):
        monkeypatch.delattr("os.fork")
        with Decoder() as decoder:
            assert str(decoder.level) == "none: in this process"
            np.testing.assert_array_equal(ask(decoder, FINE), _images.decode(FINE, 8))
            assert ask(decoder, IMAGES["bmp-huge"][0]()).startswith("expected at most 89,478,485 pixels")

    def test_large_square(self, decoder, ask):
        assert ask(decoder, FINE, 512).shape == (512, 512, 3)


EVIL = """
import os, resource, signal, socket, sys, time
import numpy
import badnets.datasets._decoder as decoder
honest, kept = decoder.decode, []

def evil(content, size):
    word = bytes(content).decode("latin-1")
    if word == "sleep": time.sleep(60)
    if word == "spin":
        while True: pass
    if word == "segv": os.kill(os.getpid(), signal.SIGSEGV)
    if word == "exit": os._exit(7)
    if word == "memory": kept.append(bytearray(1 << 34))
    if word == "defect": raise ZeroDivisionError
    if word == "short": return numpy.zeros(3, numpy.uint8)
    if word == "long": return numpy.zeros(3 * size**2 + 1, numpy.uint8)
    if word == "talk": raise decoder.BadImageError("a" * 100_000)
    if word == "escape": raise decoder.BadImageError("\\x1b[2J")
    if word == "flood":
        for _ in range(100): os.write(int(sys.argv[2]), b"x" * 1000)
    if word == "close": os.close(int(sys.argv[2])); time.sleep(60)
    if word.startswith("try "):
        try: exec(word[4:], globals())
        except BaseException as error: word = type(error).__name__
        else: word = "done"
        raise decoder.BadImageError(word)
    return honest(content, size)

decoder.decode = evil
"""
EVIL_BOOT = _decoder._BOOT.replace("from badnets", f"exec({EVIL!r}, globals()); from badnets")


@pytest.fixture(scope="module")
def boot():
    """Decoders that were broken into: what they do is what the image says."""
    patch = pytest.MonkeyPatch()
    patch.setattr(_decoder, "_BOOT", EVIL_BOOT)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def broken(boot):
    with Decoder(seconds=0.8) as found:
        yield found


class TestBrokenDecoders:
    @pytest.mark.parametrize(
        ("word", "said"),
        [
            ("sleep", "decoding it took longer than 0.8 s."),
            ("spin", "decoding it took longer than 0.8 s."),
            ("segv", "its decoder ended without an answer (SIGSEGV)."),
            ("exit", "its decoder ended without an answer (exit status 7)."),
            ("defect", "its decoder ended without an answer (exit status 1)."),
            ("short", "its decoder answered with nonsense."),
            ("long", "its decoder answered with nonsense."),
            ("talk", "its decoder answered with nonsense."),
            ("escape", "its decoder answered with nonsense."),
            ("flood", "its decoder answered with nonsense."),
            ("close", "its decoder ended without an answer (SIGKILL)."),
        ],
    )
    def test_one_image_is_refused_and_the_next_one_decoded(self, broken, ask, word, said):
        before = pid_of(broken)
        assert ask(broken, word.encode()) == said
        assert gone(before)
        np.testing.assert_array_equal(ask(broken, FINE), _images.decode(FINE, 8))
        assert pid_of(broken) != before

    def test_memory(self, broken, ask):
        if not broken.level.limits:
            pytest.skip("no limit on memory here")
        assert ask(broken, b"memory") == "its decoder ended without an answer (exit status 1)."

    @LINUX
    @pytest.mark.parametrize(
        "act",
        [
            "os.open('/etc/passwd', os.O_RDONLY)",
            "os.open(os.__file__, os.O_RDONLY)",
            "os.open('/dev/null', os.O_WRONLY)",
            "os.open('canary', os.O_WRONLY | os.O_CREAT)",
            "os.listdir('/')",
            "os.mkdir('canary')",
            "os.dup(0)",
            "socket.socket()",
            "socket.socket(socket.AF_UNIX)",
            "os.pipe()",
            "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))",
            "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        ],
    )
    def test_it_can_do_nothing(self, broken, ask, act):
        if not broken.level.complete:
            pytest.skip(f"this system gives no whole sandbox: without {broken.level.missing}")
        assert ask(broken, f"try {act}".encode()) in ("OSError.", "PermissionError.", "ValueError.")
        assert not Path("canary").exists()

    @LINUX
    def test_the_limits_are_as_told(self, broken, ask):
        told = "assert resource.getrlimit(resource.RLIMIT_CPU)[0] == 8; assert resource.getrlimit(resource.RLIMIT_AS)[0] < 5 << 30"
        assert ask(broken, f"try {told}".encode()) == "done."

    def test_a_child_has_an_end(self, broken, ask):
        """The limit on processor time is for its whole life: before it comes near, there is another one."""
        before = pid_of(broken)
        broken._child.busy = 6.5
        assert ask(broken, FINE).shape == (8, 8, 3)
        assert pid_of(broken) == before
        broken._child.busy = 7.3
        assert ask(broken, FINE).shape == (8, 8, 3)
        assert pid_of(broken) != before

    def test_the_current_folder_is_not_searched(self, tmp_path, monkeypatch):
        (tmp_path / "json.py").write_text("open('canary', 'w')")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
        with Decoder() as decoder:
            assert decoder.level.process
        assert not (tmp_path / "canary").exists()


class TestEndings:
    def test_killed_between_two_images(self, ask):
        with Decoder() as decoder:
            before = pid_of(decoder)
            assert ask(decoder, FINE).shape == (8, 8, 3)
            os.kill(before, signal.SIGKILL)
            soon(lambda: gone(before))
            assert ask(decoder, FINE).shape == (8, 8, 3)
            assert pid_of(decoder) != before

    def test_killed_at_work(self, boot, ask):
        with Decoder() as decoder:
            threading.Timer(0.5, os.kill, (pid_of(decoder), signal.SIGKILL)).start()
            assert ask(decoder, b"sleep") == "its decoder ended without an answer (SIGKILL)."
            assert ask(decoder, FINE).shape == (8, 8, 3)

    def test_interrupted(self, boot, ask):
        with Decoder() as decoder:
            before = pid_of(decoder)
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                ask(decoder, b"sleep")
            assert gone(before)
            assert ask(decoder, FINE).shape == (8, 8, 3)

    @LINUX
    def test_dies_with_its_parent(self, tmp_path):
        (tmp_path / "spin").write_text("spin")
        code = (
            "import sys; from pathlib import Path; from badnets.datasets import _decoder\n"
            f"_decoder._BOOT = {EVIL_BOOT!r}\n"
            "decoder = _decoder.Decoder(); decoder.level; print(decoder._child.process.pid, flush=True)\n"
            "decoder.decode(Path(sys.argv[1]), 8)\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "spin")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as parent:
            child = int(parent.stdout.readline())
            assert not gone(child)
            time.sleep(0.1)
            parent.kill()
        soon(lambda: gone(child))

    def test_nothing_is_left(self, ask):
        before = sorted(Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else []
        with Decoder() as decoder:
            child = pid_of(decoder)
            ask(decoder, FINE)
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
        assert not before or sorted(Path("/proc/self/fd").iterdir()) == before
        decoder.close()

    def test_that_cannot_start(self, ask, monkeypatch):
        monkeypatch.setattr(_decoder, "_BOOT", "raise SystemExit(3)")
        with Decoder() as decoder, pytest.raises(StoreError, match=r"^E-WORKERS .*exit status 3"):
            ask(decoder, FINE)
        monkeypatch.setattr(sys, "executable", "nowhere")
        with Decoder() as decoder, pytest.raises(StoreError, match=r"^E-WORKERS .*No such file"):
            ask(decoder, FINE)


def test_a_bomb_meets_the_limit_on_memory(ask):
    bomb = _png(6000, 6000, zlib.compress(bytes(6001 * 6000), 1), colour=0)
    with Decoder(memory=96 << 20) as decoder:
        if not decoder.level.limits:
            pytest.skip("no limit on memory here")
        before = pid_of(decoder)
        assert ask(decoder, bomb) == "damaged image: MemoryError."
        assert ask(decoder, FINE).shape == (8, 8, 3)
        assert pid_of(decoder) == before


def test_a_folder_has_one_child_and_leaves_none(tmp_path, monkeypatch):
    children = []
    real = _decoder._popen
    monkeypatch.setattr(_decoder, "_popen", lambda *args: children.append(real(*args)) or children[-1])
    root = make.image_folder(tmp_path / "pets")
    Folder(size=8).load(root)
    (root / "cat" / "bad.png").write_bytes(b"junk")
    with pytest.raises(RefusedError, match="1 of 21"):
        Folder(size=8).load(root)
    assert len(children) == 2
    monkeypatch.setattr(Gtsrb, "content", None)
    Gtsrb().load(make.gtsrb_official(tmp_path / "signs", frames=8, test=2))
    assert len(children) == 3
    assert all(child.returncode in (0, -signal.SIGKILL) for child in children)  # it may have been faster than the signal
