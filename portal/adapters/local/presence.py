"""Processes by names under which others on the same machine can tell whether they still run."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import uuid
from pathlib import Path

_NAME = re.compile(r"([0-9a-f]{16})-(\d+)-(\d+)-\d+\Z")
_numbers = itertools.count(1)
_STARTED = 19
"""Which word of /proc/PID/stat behind the program's name says when the process started, in clock ticks since
the machine did (proc(5), field 22).
"""


def own_name() -> str:
    """Another name of this process at each call, as `gone` understands it; anything unique where the system
    does not tell.
    """
    world, started = _world(), _started(os.getpid())
    if world is None or started is None:
        return uuid.uuid4().hex
    return f"{world}-{os.getpid()}-{started}-{next(_numbers)}"


def gone(name: str) -> bool:
    """Whether the process of that name has certainly ended; False for one that cannot be seen from here."""
    found = _NAME.match(name)
    if found is None or found[1] != _world():
        return False
    return _started(int(found[2])) != int(found[3])


def _world() -> str | None:
    """The running machine and the space of process numbers in it: two containers have each its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return None
    return hashlib.sha256(f"{boot} {space}".encode()).hexdigest()[:16]


def _started(pid: int) -> int | None:
    """When a process started; None where it does not run, also for one that nobody has waited for."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[_STARTED])
