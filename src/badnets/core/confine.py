"""Takes from the calling process, for good, what work on a stranger's bytes does not need: files, the network, new processes, core dumps.

Linux only: no new privileges, a network of its own with nothing in it, Landlock, resource limits. Who reads a file can open nothing any
more; who runs a net may still read the code of this package and of the libraries it stands on, since those import as they go. Each step
is tried and what took hold is reported; nothing is assumed. Beyond sockets no system call is filtered: whoever breaks into the process
can still attack the kernel. Elsewhere only the resource limits that the system has take hold. M. Salaün (2021), Landlock,
https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import socket
import struct
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_CAPABILITIES_V3 = 0x20080522
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_AT_CALL, _AT_ARCHITECTURE = 0, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_SOCKET_CALLS = {"x86_64": (0xC000003E, (41, 425)), "aarch64": (0xC00000B7, (198, 425))}
"""Machine -> what the kernel calls it, and its numbers of socket and io_uring_setup."""
_ASKED = (Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu"), Path("/dev/urandom"))
_LIBRARIES = tuple(map(Path, ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")))
# Rights over files that each version of Landlock knows; a version refuses a right that is newer than itself.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11


@dataclass(frozen=True, slots=True)
class Level:
    """What keeps a reader in. `landlock`: the version of its interface, 0 without; `network`: no interface, or no new descriptor."""

    process: bool = False
    no_new_privileges: bool = False
    landlock: int = 0
    network: bool = False
    limits: bool = False

    @property
    def complete(self) -> bool:
        return all(getattr(self, field.name) for field in fields(self))

    @property
    def missing(self) -> list[str]:
        return [field.name.replace("_", " ") for field in fields(self) if not getattr(self, field.name)]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if not self.process:
            return "none: in this process"
        told = [f"Landlock {self.landlock}" if self.landlock else "", "no network" if self.network else "", "limits" if self.limits else ""]
        return ", ".join(["own process", *filter(None, told)]) + (f" (without {', '.join(self.missing)})" if self.missing else "")


def confine(readable: Sequence[Path] = ()) -> Level:
    """Confines the calling process, which must have a single thread, and its children; what took hold.

    `readable`: files, and folders beneath which files, may still be opened for reading; whatever else is closed. What is not there is
    passed over.
    """
    own_network = alone = False
    landlock = 0
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        alone = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        # A user namespace gives the right to a network namespace, and takes every right over the rest of the system, also from root.
        own_network = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
        if not own_network and os.geteuid() == 0:
            _drop_capabilities(libc) if readable else _leave_root()
        landlock = _landlock(libc, readable)
    limits = limit({"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0})
    return Level(process=True, no_new_privileges=alone, landlock=landlock, network=own_network, limits=limits)


def confine_reader(level: Level, *, memory: int, seconds: int, num_files: int = 0) -> Level:
    """The rest, for the child that does the work: memory in bytes, processor seconds, and from now on no new process, and no descriptor
    beyond `num_files`.

    Without descriptors there is no socket, so no network either. What the child then can do is tried.
    """
    if num_files and not level.network:
        _refuse_sockets()
    # RLIMIT_NOFILE of 0 leaves the descriptors that are open and refuses every other; RLIMIT_NPROC does not hold for root.
    limits = limit({"RLIMIT_AS": memory, "RLIMIT_CPU": seconds, "RLIMIT_NPROC": 0, "RLIMIT_NOFILE": num_files})
    return Level(level.process, level.no_new_privileges, level.landlock, level.network or not _can_connect(), limits and level.limits)


def die_with_parent(parent: int | None = None) -> None:
    """Linux: kills this process when its parent ends; elsewhere a reader ends with its time or when nobody listens.

    `parent`: its process number, where it may have ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent is not None and os.getppid() != parent:
            os._exit(1)


def limit(limits: dict[str, int]) -> bool:
    """Sets resource limits that the process cannot raise again; whether all of them are set."""
    if resource is None:
        return False
    done = True
    for name, value in limits.items():
        try:
            # Where both limits are the same, Linux kills without saying that it was for the time.
            resource.setrlimit(getattr(resource, name), (value, value + (name == "RLIMIT_CPU")))
        except (AttributeError, ValueError, OSError):
            done = False
    return done


def address_space() -> int:
    """Bytes of address space that this process has; on systems that do not say, more than it may ever have."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return sys.maxsize >> 1


def _leave_root() -> None:
    """To nobody: root could raise its limits again."""
    nobody = 65534
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(nobody, nobody, nobody)
        os.setresuid(nobody, nobody, nobody)


def readable_by_code() -> list[Path]:
    """Where the code of this process lies: this package, Python's own modules, libraries of it and of the system; and what those ask
    the system: what the processor can do, which decides how they compute, and a seed."""
    paths = sysconfig.get_paths()
    named = [paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    loaded = [sys.modules[name].__file__ for name in ("numpy", "scipy", "torch") if name in sys.modules]
    beside = [Path(file).parent.parent for file in loaded if file]
    own = [Path(__file__).parent.parent, Path(sys.base_prefix) / "lib"]
    return list(dict.fromkeys([*own, *map(Path, named), *beside, *_LIBRARIES, *_ASKED]))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Root without root's rights, who can still read what root owns, where the code may lie."""
    with contextlib.suppress(OSError):
        os.setgroups([])
    libc.capset(struct.pack("<Ii", _CAPABILITIES_V3, 0), bytes(24))


def _landlock(libc: ctypes.CDLL, readable: Sequence[Path]) -> int:
    """The version of Landlock under which no other file can be opened any more; 0 where it does not take hold."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < 1:
        return 0
    rights = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    network = _TCP_BIND_AND_CONNECT if version >= 4 else 0
    scope = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0
    attributes = struct.pack("<QQQ", rights, network, scope)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return 0
    try:
        for folder in readable:
            _allow_reading(libc, ruleset, folder)
        if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            return 0
    finally:
        os.close(ruleset)
    return 0 if _can_open() else version


def _allow_reading(libc: ctypes.CDLL, ruleset: int, folder: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = _READ_FILE | (_READ_DIR if folder.is_dir() else 0)
            rule = struct.pack("<Qi", rights, fd)
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(fd)


def _can_open() -> bool:
    with contextlib.suppress(OSError):
        os.close(os.open("/", os.O_RDONLY))
        return True
    return False


def _refuse_sockets() -> None:
    """A filter of system calls for who may open files, where there is no network of its own: no socket, and no ring that makes one."""
    known = _SOCKET_CALLS.get(platform.machine()) if sys.platform == "linux" else None
    if known is None:
        return
    architecture, calls = known
    # Berkeley packet filter: (code, jump if true, jump if false, operand); jumps count from the next instruction.
    program = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_JUMP_EQUAL, 0, len(calls) + 1, architecture),
        (_LOAD, 0, 0, _AT_CALL),
        *((_JUMP_EQUAL, len(calls) - i, 0, call) for i, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE | errno.EPERM),
    ]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in program))
    head = struct.pack("@HP", len(program), ctypes.addressof(filters))
    ctypes.CDLL(None).prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head, 0, 0)


def _can_connect() -> bool:
    with contextlib.suppress(OSError):
        socket.socket().close()
        return True
    return False
