"""Taking rights away from the process that reads foreign files, for good.

Three walls, each of which would do: limits of the kernel on what it may use, a list of system calls for which
the kernel ends it (seccomp), and Python's audit hook, which ends it for whatever a reader of files never
does. What it needs (two open files, loaded modules) it holds before.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BROKE_OUT = 77
"""Exit status of a process that the audit hook ended."""
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER_MODE = 1, 22, 38, 2
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000 | 13, 0x7FFF0000
_LOAD, _JUMP_EQUAL, _JUMP_FROM, _RETURN = 0x20, 0x15, 0x35, 0x06
_OTHER_ABI = 0x40000000
"""From here on x86's calls have other numbers."""
_MACHINE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ENDING: dict[str, tuple[int, ...]] = {
    # ptrace, socket, connect, accept, sendto, recvfrom, sendmsg, bind, listen, socketpair, fork, vfork,
    # execve, kill, link, symlink, rename, unlink, mkdir, chmod, mount, io_uring_setup, process_vm_writev,
    # execveat, bpf, userfaultfd, setns, unshare, and on x86 those of link, symlink, rename ... with a folder
    "x86_64": (101, 41, 42, 43, 44, 45, 46, 49, 50, 53, 57, 58, 59, 62, 86, 88, 82, 87, 83, 90, 165, 425, 311,
               322, 321, 323, 308, 272, 265, 266, 264, 316, 263, 258, 268),
    "aarch64": (117, 198, 203, 202, 206, 207, 211, 200, 201, 199, 221, 129, 37, 36, 38, 35, 34, 53, 40, 425,
                271, 281, 280, 282, 268, 97),
}  # fmt: skip
_REFUSED: dict[str, tuple[int, ...]] = {
    "x86_64": (2, 257, 437, 56, 435),  # open, openat, openat2, clone, clone3
    "aarch64": (56, 437, 220, 435),
}
_EVENTS = (
    "os.", "subprocess.", "socket.", "ctypes.", "import", "open", "exec", "compile", "shutil.", "pty.",
    "fcntl.", "urllib.", "http.", "ftplib.", "smtplib.", "sqlite3.", "webbrowser.", "tempfile.", "signal.",
    "code.", "marshal.load", "pickle.find_class", "cpython.run_", "sys.addaudithook", "sys._getframe",
    "sys.setprofile", "sys.settrace", "glob.", "resource.prlimit", "syslog.", "winreg.", "mmap.",
)  # fmt: skip
"""Audit events that end the process, by their beginning."""


@dataclass(frozen=True)
class Bounds:
    """What a process may use: bytes of address space, processor seconds, bytes of one file."""

    memory: int
    seconds: int
    file_bytes: int


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def confine(bounds: Bounds, report: Callable[[str], None]) -> None:
    """Give up everything but computing, and reading and writing the files that are open. `report` is told
    what was tried before the process ends for it.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails with an error that can be told
    for limit, value in (
        (resource.RLIMIT_AS, bounds.memory),
        (resource.RLIMIT_CPU, bounds.seconds),
        (resource.RLIMIT_FSIZE, bounds.file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        with contextlib.suppress(ValueError):  # the machine's own limit is lower: that one holds
            resource.setrlimit(limit, (value, value))
    _filter_calls()
    sys.addaudithook(_hook(report))


def _hook(report: Callable[[str], None]) -> Callable[[str, tuple[Any, ...]], None]:
    leave, beginnings = os._exit, _EVENTS

    def watch(event: str, _arguments: tuple[Any, ...]) -> None:
        if event.startswith(beginnings):
            try:
                report(event)
            finally:
                leave(BROKE_OUT)

    return watch


def _filter_calls() -> None:
    """A seccomp filter (Linux's seccomp(2)), where the kernel takes one."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _MACHINE:
        return
    program = _program(machine)
    library = ctypes.CDLL(None, use_errno=True)
    held = ctypes.create_string_buffer(program)
    described = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held)), 16
    )
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        library.prctl(_PR_SET_SECCOMP, _FILTER_MODE, described, 0, 0)


def _program(machine: str) -> bytes:
    """Instructions (code, jump if true, jump if false, value). Calls of another machine end it too."""
    ending, refused = _ENDING[machine], _REFUSED[machine]
    lines = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, _MACHINE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_JUMP_FROM, 0, 1, _OTHER_ABI),
        (_RETURN, 0, 0, _KILL),
    ]
    for number in ending:
        lines += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _KILL)]
    for number in refused:
        lines += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
