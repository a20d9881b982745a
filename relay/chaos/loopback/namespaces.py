"""A network and a disk of one's own, which can fail without anybody else noticing: Linux namespaces.

Knows the kernel's calls and nothing of relay. Root has them; others where the system lets them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# Linux, sched.h, mount.h, sockios.h and if.h; Python's os.unshare comes with 3.12.
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_MS_REC_PRIVATE: Final = 0x4000 | 0x40000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP: Final = 0x1

DISK_BYTES: Final = 16 * 2**20


class NotAllowed(Exception):
    """This system gives no namespaces to this user; the text says why."""


def enter_own_world() -> None:
    """Leave the machine's network and mounts for ones of this process and those it starts. For good.

    Raises NotAllowed, and then nothing has changed: a child tries it first, since half of it would be a trap.
    Only for a process that has one thread and no connection yet.
    """
    if threading.active_count() > 1:
        raise NotAllowed("the process has several threads")
    child = os.fork()
    if child == 0:
        try:
            _enter()
        except OSError as problem:
            os._exit(problem.errno or 255)
        except BaseException:  # noqa: ASYNC103, BLE001 - a child never comes back into its parent's code
            os._exit(255)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        raise NotAllowed(os.strerror(status) if 0 < status < 255 else "it was tried in vain")
    _enter()


def _enter() -> None:
    user, group, is_root = os.getuid(), os.getgid(), os.geteuid() == 0
    _call("unshare", _CLONE_NEWNET | _CLONE_NEWNS | (0 if is_root else _CLONE_NEWUSER))
    if not is_root:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")
    _call("mount", b"none", b"/", None, _MS_REC_PRIVATE, None)
    set_loopback(is_up=True)


def set_loopback(*, is_up: bool) -> None:
    """Plug the network in, or pull its cable: nothing arrives any more, and nobody is told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, name + bytes(24)), 16)[0]
        flags = flags | _IFF_UP if is_up else flags & ~_IFF_UP
        fcntl.ioctl(control, _SIOCSIFFLAGS, name + struct.pack("H22x", flags))


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of DISK_BYTES under this folder, in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder).encode()
    _call("mount", b"none", path, b"tmpfs", 0, f"size={DISK_BYTES}".encode())
    try:
        yield
    finally:
        _call("umount2", path, 2)  # MNT_DETACH: somebody may still hold a file


def fill(folder: Path) -> Path:
    """Write a file there until nothing more fits; the file."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):  # to the last byte
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def _call(name: str, *arguments: object) -> None:
    """A function of libc. Raises OSError where it fails, or is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    function = getattr(libc, name, None)
    if function is None:
        raise OSError(errno.ENOSYS, name)
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)
