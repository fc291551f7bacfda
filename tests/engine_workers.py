"""Worker functions for the engine's tests, named as `engine_workers:function`."""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

from badnets.core.errors import UsageError


def square(payload):
    number = json.loads(payload)
    return {"square": str(number * number).encode()}, {"number": number, "pid": os.getpid()}


def nap(payload):
    """Sleep `seconds`; first append the own process id to `log`, when one is given."""
    config = json.loads(payload)
    if "log" in config:
        with Path(config["log"]).open("a") as file:
            file.write(f"{os.getpid()}\n")
    if config.get("gil"):
        ctypes.PyDLL(None).usleep(int(config["seconds"] * 1e6))  # like a long step inside a library: no other Python thread runs
    else:
        time.sleep(config["seconds"])
    return {"out": b""}, config


def seen(payload):
    """Environment and standard output as the worker sees them."""
    print("this must not reach standard output")
    os.write(1, b"nor must this\n")
    return {}, {
        "threads": os.environ["OMP_NUM_THREADS"],
        "main": str(getattr(sys.modules["__main__"], "__file__", None)),
        "session": os.getsid(0),
    }


def big(payload):
    return {"big": b"x" * int(payload), "empty": b""}, {}


def refuse(payload):
    raise UsageError("E-TARGET", f"target {payload} is no class.", hint="Use 0 to 9.")


def fail(payload):
    return {"x": b""}, {"ratio": 1 / int(payload)}


def wrong(payload):
    """Answers that are none, and errors that are no Exception."""
    if payload == "exit":
        sys.exit(3)
    if payload == "memory":
        raise MemoryError("12 GiB")
    return {"text": "no bytes"} if payload == "text" else {}, {"value": float("nan")}


def die(payload):
    """`kill`: die by signal 9; `exit`: leave at once; `server`: kill the one who forked us; otherwise: square."""
    if payload == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if payload == "exit":
        os._exit(7)
    if payload == "server":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(30)
    return square(payload)
