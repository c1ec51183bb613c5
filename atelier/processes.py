"""Child processes that never outlive their parent: each holds the read end of a pipe and exits when it
closes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

PARENT_FD = "ATELIER_PARENT_FD"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
"""What any program needs to start at all. Nothing else of the parent's environment reaches a child."""


class Child:
    """A started child. Closing the pipe asks it to go; `stop` asks, waits and then kills its whole process
    group.
    """

    def __init__(self, process: subprocess.Popen[bytes], pipe: int) -> None:
        self.process = process
        self._pipe: int | None = pipe
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self.process.pid

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self.process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status. Raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout)

    def terminate(self) -> None:
        """Ask the child to drain and go (SIGTERM)."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM, up to `timeout` seconds to drain, then SIGKILL to its group. Returns the exit status."""
        self.terminate()
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            status = self.process.wait()
        self.release()
        return status

    def release(self) -> None:
        """Close our end of the pipe: a child still alive exits by itself."""
        with self._lock:
            if self._pipe is not None:
                os.close(self._pipe)
                self._pipe = None


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    log: Path | IO[bytes] | None = None,
    cwd: Path | None = None,
    passed_on: Sequence[str] = (),
) -> Child:
    """Start `argv` with exactly `env` (plus PATH and the like, and the pipe), in a process group of its own.

    `log` takes stdout and stderr (appended); None leaves them where the parent's go. `passed_on` names
    further variables that the child gets where the parent has them.
    """
    read_end, write_end = os.pipe()
    inherited = {name: os.environ[name] for name in (*_PASSED_ON, *passed_on) if name in os.environ}
    target = log.open("ab") if isinstance(log, Path) else log
    try:
        process = subprocess.Popen(
            list(argv),
            env={**inherited, **env, PARENT_FD: str(read_end)},
            pass_fds=(read_end,),
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.STDOUT if target else None,
            cwd=cwd,
            start_new_session=True,
        )
    except BaseException:
        os.close(write_end)
        raise
    finally:
        os.close(read_end)
        if isinstance(log, Path) and target is not None:
            target.close()
    return Child(process, write_end)


def exit_with_parent(
    on_close: Callable[[], None] | None = None, *, fd: int | None = None
) -> threading.Thread | None:
    """Watch the parent's pipe in a daemon thread; when it closes call `on_close`, by default SIGTERM to
    ourselves.

    Returns the thread, None where the process has no such pipe (it was started by hand).
    """
    if fd is None:
        named = os.environ.get(PARENT_FD)
        if not named:
            return None
        fd = int(named)
    react = on_close or (lambda: os.kill(os.getpid(), signal.SIGTERM))

    def watch() -> None:
        while os.read(fd, 1):
            pass
        os.close(fd)
        react()

    thread = threading.Thread(target=watch, name="parent-watch", daemon=True)
    thread.start()
    return thread
